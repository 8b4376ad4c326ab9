"""A whole node with a model that marks what is bright, the PACS that it answers, and what dcmtk sends to it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydicom.filereader import read_file_meta_info

from dicom_node.db import migrate
from dicom_node.domain.job import JobInstance
from dicom_node.spool import Spool
from tests.node import free_port, wait_for
from tests.peers.missing import need
from tests.unit.ai.bundles import ABOVE, write_bundle

BRIGHT = 100.5  # what the model marks is above it

_SETTINGS = """\
models = ["models"]
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
[work]
max_attempts = 2
retry_first_s = 0.5
[deliver]
retry_first_s = 0.5
[engine]
poll_s = 0.1
dead_after_s = 200
[destinations.pacs]
host = "127.0.0.1"
port = {pacs_port}
ae_title = "PACS"
timeout_s = 60
"""
_RULE = 'model = "bright"\ndestinations = ["pacs"]\n[when]\ncalling_ae = "SCANNER"\n'
_CARD = """\
name = "bright"
version = "1"
title = "Bright voxels"
manufacturer = "Test"
summary = "Marks what is bright."
training = "not trained; for tests"
timeout_s = 300.0
[accepts]
modality = ["CT", "MR", "PT"]
[[segments]]
output = "bright"
label = "Bright"
category = { value = "85756007", scheme = "SCT", meaning = "Tissue" }
type = { value = "85756007", scheme = "SCT", meaning = "Tissue" }
"""
_INSTANCES = (
    "select sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, digest, header, series_instance_uid "
    "from instance join series on series.id = instance.series_id"
)
_CLOSED = "select series_instance_uid, refusal from series where state = 'complete'"
_UNDER_WAY = (
    "select (select count(*) from series where state = 'receiving')"
    " + (select count(*) from job where state in ('scheduled', 'in progress') or report = 'due')"
    " + (select count(*) from delivery where state in ('waiting', 'sending'))"
)
_ENDED = (
    "select series.series_instance_uid, job.state, job.failure, result.kind, result.sop_instance_uid, delivery.state "
    "from job join series on series.id = job.series_id left join delivery on delivery.job_id = job.id "
    "left join result on result.id = delivery.result_id order by result.kind"
)


class Answer(NamedTuple):
    """What the PACS was to get for a series: how its job ended, and one object of it, if any."""

    state: str
    failure: str | None
    kind: str | None
    sop_instance_uid: str | None
    delivery: str | None


class Node:
    """One round: no series of it is sent twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent, self.pacs = folder / "sent", folder / "pacs"
        for place in (folder, self.sent, self.pacs, folder / "rules", folder / "models"):
            place.mkdir()
        self.port, self.sink_port, pacs_port = free_port(), free_port(), free_port()
        (folder / "settings.toml").write_text(_SETTINGS.format(port=self.port, pacs_port=pacs_port))
        (folder / "rules" / "all.toml").write_text(_RULE)
        bundle = folder / "models" / "bright"
        write_bundle(bundle, network=ABOVE, class_name="Bright", channels=("background", "bright"), threshold=BRIGHT)
        (bundle / "card.toml").write_text(_CARD)
        migrate.upgrade(f"sqlite:///{folder / 'node.db'}")
        self.spool = Spool(folder / "spool", reserve_mib=0)
        self._processes = [self._serve(), _storescp(self.sent, self.sink_port), _storescp(self.pacs, pacs_port)]
        wait_for(lambda: "ready: " in self.log(), 240, self.log)

    def _serve(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dicom_node", "serve", "--settings", str(self.folder / "settings.toml")]
        with (self.folder / "node.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})

    def log(self) -> str:
        """The end of what the node says."""
        return (self.folder / "node.log").read_text()[-6000:]

    def send(self, command: Sequence[str], files: Sequence[Path]) -> str:
        """Send files by a command of dcmtk to the storescp and to the node; what was said of the node."""
        said = b""
        for port in (self.sink_port, self.port):
            to = ["-aet", "SCANNER", "-aec", "AINODE", "127.0.0.1", str(port)]
            done = subprocess.run([*command, *to, *map(str, files)], capture_output=True, check=False, timeout=300)
            said = done.stdout + done.stderr
        return said.decode(errors="replace")

    def send_ourselves(self, files: Sequence[Path]) -> str:
        """Send what dcmtk does not know or cannot read, as it is; what was said, if anything failed."""
        to = ["--to", f"127.0.0.1:{self.port}", "--called", "AINODE", "--calling", "SCANNER"]
        settings = ["--settings", str(self.folder / "settings.toml")]
        command = [sys.executable, "-m", "dicom_node", "send", *to, *settings, *map(str, files)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=300)
        return "" if done.returncode == 0 else (done.stdout + done.stderr).decode(errors="replace").strip()

    def instances(self) -> dict[str, tuple[JobInstance, str]]:
        """What is stored: SOP Instance UID -> instance and its series."""
        with self._reading() as db:
            rows = db.execute(_INSTANCES).fetchall()
        return {
            uid: (JobInstance(uid, sop_class, syntax, path, digest, json.loads(header)), series)
            for uid, sop_class, syntax, path, digest, header, series in rows
        }

    def ended(self) -> tuple[dict[str, str | None], dict[str, list[Answer]]]:
        """Wait until nothing is under way; by series its refusal, None for a volume, and what was made of it."""

        def over() -> bool:
            with self._reading() as db:
                return bool(db.execute(_UNDER_WAY).fetchone() == (0,))

        wait_for(over, 900, self.log, every_s=0.5)
        with self._reading() as db:
            refusals = dict(db.execute(_CLOSED).fetchall())
            answers: dict[str, list[Answer]] = {}
            for series, *answer in db.execute(_ENDED).fetchall():
                answers.setdefault(series, []).append(Answer(*answer))
        return refusals, answers

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.folder / "node.db", timeout=60)
        try:
            yield db
        finally:
            db.close()

    def stop(self) -> None:
        """End all of it."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(60)


def _storescp(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [need("storescp"), "+B", "+xa", "-pm", "-od", str(folder), str(port)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def received(folder: Path) -> dict[str, Path]:
    """What a storescp has kept, by the instance that it was announced as: the data set itself may be odd."""
    return {str(read_file_meta_info(path).MediaStorageSOPInstanceUID): path for path in folder.iterdir()}
