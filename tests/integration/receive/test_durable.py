"""0x0000 is a promise: what comes before it, and what is left of it after kill -9."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import event, select

from dicom_node.db import migrate
from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine, transaction
from dicom_node.digest import digest_of
from dicom_node.spool import Spool
from tests.integration.receive.conftest import Start, listens
from tests.integration.receive.objects import ct
from tests.integration.receive.scu import Aborted, Scu
from tests.node import free_port, wait_for

SETTINGS = """\
[database]
url = "{url}"
[spool]
path = "spool"
reserve_mib = 0
[receive]
address = "127.0.0.1"
port = {port}
peers = [{{ ae_title = "SCANNER" }}]
"""


def test_file_name_and_row_are_on_disk_before_the_answer(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    node = start()
    root = node.spool.root.resolve()
    happened: list[str] = []
    fsync, rename = os.fsync, os.rename

    def slow_fsync(fd: int) -> None:
        name = str(Path(f"/proc/self/fd/{fd}").readlink().relative_to(root))
        fsync(fd)
        time.sleep(0.05)  # an answer that does not wait for it comes first
        happened.append("synced file" if name.endswith(".dcm") else f"synced {name}")

    def recorded_rename(source: Path, target: Path) -> None:
        rename(source, target)
        happened.append("renamed")

    def slow_commit(connection: object) -> None:
        time.sleep(0.05)
        happened.append("committed")

    with Scu(node.port) as scu:
        scu.associate_for(ct())
        monkeypatch.setattr(os, "fsync", slow_fsync)
        monkeypatch.setattr(os, "rename", recorded_rename)
        event.listen(node.engine, "commit", slow_commit)
        for number in (1, 2):
            assert scu.store(ct(number)) == 0x0000
            happened.append("answered")
        with node.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL: a commit syncs
        event.remove(node.engine, "commit", slow_commit)
    hour = node.files()[[name.startswith("instances/") for name in node.files()].index(True)].rsplit("/", 1)[0]
    first, second = happened[: happened.index("answered") + 1], happened[happened.index("answered") + 1 :]
    assert first.index("synced instances") < first.index("renamed")  # the name of a new folder as well
    for steps in ([step for step in first if step != "synced instances"], second[:5]):
        assert steps[0] == "renamed"
        assert sorted(steps[1:3]) == sorted(["synced file", f"synced {hour}"])
        assert steps[3:] == ["committed", "answered"]


class Sending(threading.Thread):
    """Sends instances one after another until the receiver dies; knows which were acknowledged."""

    def __init__(self, port: int, series: str) -> None:
        super().__init__()
        self._port = port
        self._series = series
        self.acknowledged: dict[str, str] = {}  # SOP Instance UID -> SHA-256 of the data set

    def run(self) -> None:
        try:
            with Scu(self._port) as scu:
                scu.associate_for(ct())
                for number in range(100_000):
                    one = ct(number, series=self._series, pixels=random.Random(number).randrange(400_000))
                    if scu.store(one) == 0x0000:
                        self.acknowledged[one.sop_instance_uid] = digest_of(one.data)
        except (Aborted, OSError):
            pass  # the receiver was killed


def _each_has(senders: list[Sending], number: int) -> bool:
    return all(len(sender.acknowledged) >= number for sender in senders)


def test_kill_9_in_mid_stream_loses_nothing_that_was_acknowledged(tmp_path: Path, database_url: str) -> None:
    port = free_port()
    settings = tmp_path / "settings.toml"
    settings.write_text(SETTINGS.format(url=database_url, port=port))
    migrate.upgrade(database_url)
    acknowledged: dict[str, str] = {}
    command = [sys.executable, "-m", "dicom_node", "receive", "--settings", str(settings)]
    for turn in range(3):
        receiver = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: listens(port), 60)
            senders = [Sending(port, f"1.2.{turn}.{number}") for number in range(4)]
            for sender in senders:
                sender.start()
            wait_for(partial(_each_has, senders, 3 + 2 * turn), 60, every_s=0.001)
        finally:
            receiver.kill()
            receiver.wait()
        for sender in senders:
            sender.join(60)
            acknowledged |= sender.acknowledged
    engine = open_engine(database_url)
    spool = Spool(tmp_path / "spool")
    spool.sweep_incoming()
    assert not list((spool.root / "incoming").iterdir())
    with transaction(engine) as tx:
        rows = {row.sop_instance_uid: row for row in tx.execute(select(t.instance))}
        counted = sum(tx.scalars(select(t.series.c.instance_count)))
    engine.dispose()
    assert acknowledged.keys() <= rows.keys()
    assert counted == len(rows)
    for uid, row in rows.items():
        file = spool.path(row.path).read_bytes()
        data = file[144 + int.from_bytes(file[140:144], "little") :]
        assert len(file) == row.size
        assert digest_of(data) == row.digest == acknowledged.get(uid, row.digest)
