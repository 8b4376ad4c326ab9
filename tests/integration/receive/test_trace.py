"""The order that survives a power cut, as the kernel saw it: contents and name on disk, the row, then the answer."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dicom_node.db import migrate
from dicom_node.spool import Spool
from tests.integration.receive.conftest import listens
from tests.integration.receive.objects import ct
from tests.integration.receive.scu import Scu
from tests.integration.receive.test_durable import SETTINGS
from tests.node import free_port, wait_for
from tests.peers.missing import need

CALLS = "fsync,fdatasync,rename,renameat,renameat2,sendto,sendmsg"
NAMED, CONTENTS, FOLDER, ROW = "named", "contents synced", "folder synced", "row synced"
SEND = re.compile(r"send(to|msg)\(\d+<TCP")
INSTANCES = 5


def test_what_is_answered_is_on_disk_before_by_the_kernels_own_account(tmp_path: Path) -> None:
    port = free_port()
    settings, trace = tmp_path / "settings.toml", tmp_path / "trace"
    settings.write_text(SETTINGS.format(url=f"sqlite:///{tmp_path / 'node.db'}", port=port))
    migrate.upgrade(f"sqlite:///{tmp_path / 'node.db'}")
    Spool(tmp_path / "spool").prepare()
    watch = [need("strace"), "-D", "-f", "-qq", "-yy", "-e", f"trace={CALLS}", "-o", str(trace)]
    node = subprocess.Popen([*watch, sys.executable, "-m", "dicom_node", "receive", "--settings", str(settings)])
    try:
        wait_for(lambda: listens(port), 60)
        with Scu(port) as scu:
            scu.associate_for(ct())
            assert [scu.store(ct(n, pixels=50_000)) for n in range(INSTANCES)] == [0x0000] * INSTANCES
            scu.release()
    finally:
        node.terminate()
        node.wait(180)

    wait_for(lambda: len(happened_before_each_answer(trace.read_text())) == INSTANCES + 2, 60)
    [_, *answers] = happened_before_each_answer(trace.read_text())

    for steps in answers[:INSTANCES]:
        named, contents, folder, row = (steps[step] for step in (NAMED, CONTENTS, FOLDER, ROW))
        assert named.end < folder.begin, "a folder is synced with the names that are in it when that begins"
        assert max(contents.end, folder.end) < row.begin


@dataclass(frozen=True, slots=True)
class Call:
    """The lines of a trace between which a system call took place."""

    begin: int
    end: int


def happened_before_each_answer(trace: str) -> list[dict[str, Call]]:
    """What was over before each PDU that was sent, and after the one before it; of each kind the last."""
    answers: list[dict[str, Call]] = []
    steps: dict[str, Call] = {}
    begun: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(trace.splitlines()):
        pid, _, call = line.partition(" ")
        call = call.strip()
        if SEND.match(call):
            answers.append(steps)
            steps = {}
        elif call.endswith("<unfinished ...>"):
            begun[pid] = number, call
        else:
            begin = number
            if call.startswith("<...") and "resumed" in call:
                begin, call = begun.pop(pid, (number, ""))
            if step := _step(call):
                steps[step] = Call(begin, number)
    return answers


def _step(call: str) -> str:
    name = call.partition("(")[0]
    if name in ("fsync", "fdatasync"):
        for path, step in ((".dcm>", CONTENTS), ("/spool/instances/", FOLDER), ("node.db-wal>", ROW)):
            if path in call:
                return step
    return NAMED if name.startswith("rename") and ".dcm" in call else ""
