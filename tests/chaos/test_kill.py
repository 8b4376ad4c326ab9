"""kill -9 of each process of the node at random points of the road.

Whatever is killed while a series arrives, is computed or is sent: after the restart the PACS holds exactly one SEG and
one SR of it, and every instance that was acknowledged is in the database and in the spool, byte for byte.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from sqlalchemy import Engine, select

from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine
from dicom_node.deliver.dimse import FileSent, send_files
from dicom_node.errors import DeliveryError
from dicom_node.settings import load_settings
from tests.acceptance.test_spine import results_in
from tests.node import RunningNode, wait_for
from tests.peers.orthanc import Orthanc

VICTIMS = ("receive", "work", "model child", "deliver", "supervisor", "assemble")
PHASES = ("arriving", "computing", "sending")
POINTS = 24
SEED = 20261124
SLICES = 40


@pytest.fixture
def node(orthanc_module: Orthanc, tmp_path: Path, database_url: str) -> Iterator[RunningNode]:
    running = RunningNode(
        tmp_path / "home", orthanc_module.dicom_port, orthanc_module.ae, database_url=database_url, quiet_s=1.5
    )
    running.start()
    yield running
    running.stop()


@pytest.mark.timeout(1500)
def test_kill_9_anywhere_leaves_one_seg_and_one_sr(
    node: RunningNode, orthanc_module: Orthanc, chest_ct: list[Path], tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    points = [(victim, phase) for phase in PHASES for victim in VICTIMS]
    points += [(chance.choice(VICTIMS), chance.choice(PHASES)) for _ in range(POINTS - len(points))]
    engine = open_engine(load_settings(node.settings).database.url, pool_size=1)
    for number, (victim, phase) in enumerate(points):
        sent = shrink(chest_ct, tmp_path / f"series{number}")
        sender = Sender(sorted((tmp_path / f"series{number}").iterdir()), node.port)
        sending = threading.Thread(target=sender.run)
        sending.start()
        reach(phase, engine, sent, sender)
        time.sleep(chance.uniform(0.0, 0.4))
        kill(victim, node)
        sending.join(120)
        where = f"point {number}: {victim} killed while {phase}"

        job = node.finished(str(sent.SeriesInstanceUID), timeout_s=120)

        assert sender.problem is None, f"{where}: {sender.problem}"
        assert job["state"] == "completed", f"{where}: {node.ask('explain', job['id'])}"
        assert sorted(results_in(orthanc_module, str(sent.StudyInstanceUID))) == ["SEG", "SR"], where
        assert all(d["state"] == "delivered" for d in job["deliveries"]), where
        assert_nothing_acknowledged_is_lost(engine, node, sender, where)
    engine.dispose()


@dataclass
class Sender:
    """A PACS that sends one series, and sends again what was not acknowledged, as a PACS does."""

    files: list[Path]
    port: int
    acknowledged: set[Path] = field(default_factory=set)
    problem: str | None = None

    def run(self) -> None:
        end = time.monotonic() + 60
        while missing := [f for f in self.files if f not in self.acknowledged]:
            if time.monotonic() > end:
                self.problem = f"{len(missing)} instances were never acknowledged"
                return
            try:
                send_files(missing, "127.0.0.1", self.port, "AINODE", "SCANNER", self._note, timeout_s=5)
            except DeliveryError:
                time.sleep(0.05)

    def _note(self, sent: FileSent) -> None:
        if sent.status == 0x0000:
            self.acknowledged.add(sent.path)
            time.sleep(0.015)  # no scanner is faster; it gives the killer something to hit


def shrink(files: list[Path], folder: Path) -> Dataset:
    """A real chest of fewer and coarser voxels, under UIDs of its own: quick to compute, still lungs to find."""
    folder.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for number, file in enumerate(files[:: len(files) // SLICES]):
        ds = dcmread(file)
        pixels = ds.pixel_array[::4, ::4]
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, series, generate_uid()
        ds.FrameOfReferenceUID = frame
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.Rows, ds.Columns = pixels.shape
        ds.PixelSpacing = [4 * float(v) for v in ds.PixelSpacing]
        ds.PixelData = pixels.tobytes()
        ds["PixelData"].VR = "OW"
        ds["PixelData"].is_undefined_length = False
        ds.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
    return ds


def reach(phase: str, engine: Engine, sent: Dataset, sender: Sender) -> None:
    """Wait until the series is where it shall be hit."""
    if phase == "arriving":
        wait_for(lambda: len(sender.acknowledged) >= 3, 60, every_s=0.01)
        return
    uid = str(sent.SeriesInstanceUID)
    state = select(t.job.c.state).join(t.series).where(t.series.c.series_instance_uid == uid)
    wanted = "in progress" if phase == "computing" else "completed"

    def there() -> bool:
        with engine.begin() as tx:
            return tx.scalar(state) in (wanted, "completed")

    wait_for(there, 90, every_s=0.05)


def kill(victim: str, node: RunningNode) -> None:
    """kill -9; a killed supervisor is started again as a service manager does, everything else by the supervisor."""
    if victim == "supervisor":
        node.kill_supervisor()
        node.start()
        return
    for pid in find(victim, node):
        os.kill(pid, signal.SIGKILL)


def find(victim: str, node: RunningNode) -> list[int]:
    """Process ids of a role among the descendants of the supervisor."""
    children = {pid: (parent, line) for pid, parent, line in processes()}
    roles = {pid: line for pid, (parent, line) in children.items() if parent == node.pid}
    if victim == "model child":
        workers = {pid for pid, line in roles.items() if " work " in line}
        return [pid for pid, (parent, _) in children.items() if parent in workers]
    return [pid for pid, line in roles.items() if f" {victim} " in line]


def processes() -> Iterator[tuple[int, int, str]]:
    """Every process: id, parent, command line (proc(5))."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            yield int(entry.name), int(stat[1]), line


def assert_nothing_acknowledged_is_lost(engine: Engine, node: RunningNode, sender: Sender, where: str) -> None:
    with engine.begin() as tx:
        rows = {r.sop_instance_uid: r for r in tx.execute(select(t.instance))}
    for file in sender.files:
        ds = dcmread(file)
        row = rows.get(str(ds.SOPInstanceUID))
        assert row is not None, f"{where}: {file.name} was acknowledged and has no row"
        kept = dcmread(node.home / "spool" / row.path)
        assert kept.PixelData == ds.PixelData, f"{where}: {file.name} is not what was sent"
