"""A node that receives and assembles, and beside it a storescp that keeps what dcmtk really sent."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dicom_node.db import migrate
from dicom_node.domain.job import JobInstance
from dicom_node.spool import Spool
from tests.node import free_port, wait_for

_SETTINGS = """\
[database]
url = "sqlite:///node.db"
[spool]
path = "spool"
reserve_mib = 0
[receive]
address = "127.0.0.1"
port = {port}
processes = 1
peers = [{{ ae_title = "SCANNER" }}]
[assemble]
quiet_s = 1
patience_s = 2
sweep_s = 0.2
"""
_INSTANCES = (
    "select sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, digest, header, series_instance_uid "
    "from instance join series on series.id = instance.series_id"
)


class Node:
    """One round: no series of it is sent twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.sent = folder / "sent"
        self.sent.mkdir()
        (folder / "rules").mkdir()
        self.port, self.sink_port = free_port(), free_port()
        (folder / "settings.toml").write_text(_SETTINGS.format(port=self.port))
        migrate.upgrade(f"sqlite:///{folder / 'node.db'}")
        self.spool = Spool(folder / "spool", reserve_mib=0)
        self._processes = [self._role("receive", "--slot", "0"), self._role("assemble")]
        sink = ["storescp", "+B", "+xa", "-pm", "-od", str(self.sent), str(self.sink_port)]
        self._processes.append(subprocess.Popen(sink, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait_for(lambda: b"listening on" in (folder / "receive.log").read_bytes(), 120)

    def _role(self, role: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dicom_node", role, *more, "--settings", str(self.folder / "settings.toml")]
        with (self.folder / f"{role}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})

    def send(self, files: Sequence[Path]) -> list[str]:
        """Send files to the storescp and to the node; what dcmtk said of those that the node was not sent."""
        options = ["-v", "-dn", "-nh", "-nuc", "+f", "-aet", "SCANNER", "-aec", "AINODE"]
        said = ""
        for port in (self.sink_port, self.port):
            command = ["dcmsend", *options, "127.0.0.1", str(port), *map(str, files)]
            done = subprocess.run(command, capture_output=True, check=False, timeout=300)
            said = (done.stdout + done.stderr).decode(errors="replace")
        return [line for line in said.splitlines() if re.match(r"[WEF]: ", line)]

    def send_ourselves(self, files: Sequence[Path]) -> str:
        """Send what dcmtk does not know or cannot read, as it is; what was said, if anything failed."""
        to = ["--to", f"127.0.0.1:{self.port}", "--called", "AINODE", "--calling", "SCANNER"]
        settings = ["--settings", str(self.folder / "settings.toml")]
        command = [sys.executable, "-m", "dicom_node", "send", *to, *settings, *map(str, files)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=300)
        return "" if done.returncode == 0 else (done.stdout + done.stderr).decode(errors="replace").strip()

    def instances(self) -> dict[str, tuple[JobInstance, str]]:
        """What is stored: SOP Instance UID -> instance and its series."""
        with sqlite3.connect(self.folder / "node.db") as db:
            rows = db.execute(_INSTANCES).fetchall()
        return {
            uid: (JobInstance(uid, sop_class, syntax, path, digest, json.loads(header)), series)
            for uid, sop_class, syntax, path, digest, header, series in rows
        }

    def closed(self) -> dict[str, str | None]:
        """Wait until every series is closed; UID -> its refusal, None for a volume."""
        sql = "select series_instance_uid, refusal from series where state = ?"

        def all_closed() -> bool:
            with sqlite3.connect(self.folder / "node.db") as db:
                return not db.execute(sql, ("receiving",)).fetchall()

        wait_for(all_closed, 40, lambda: (self.folder / "assemble.log").read_text()[-3000:], every_s=0.5)
        with sqlite3.connect(self.folder / "node.db") as db:
            return dict(db.execute(sql, ("complete",)).fetchall())

    def stop(self) -> None:
        """End all of it."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)
