"""kill -9 of each process of a whole node, supervisor and model included, at random points of the road to the PACS.

A series is sent, something is killed while it arrives, is computed or is sent on, and at times the PACS is away, too.
Whatever it was: the series ends with one SEG and one SR at the PACS.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from sqlalchemy import Engine, select

from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine
from dicom_node.deliver.dimse import FileSent, send_files
from dicom_node.errors import DeliveryError
from dicom_node.settings import load_settings
from tests.acceptance.test_spine import results_in
from tests.chaos.ledger import Ledger, Tail, count_stored
from tests.node import RunningNode, ended, wait_for
from tests.peers.orthanc import Orthanc

VICTIMS = ("receive", "work", "model child", "deliver", "supervisor", "assemble")
PHASES = ("arriving", "computing", "sending")
SLICES = 40
PACS_AWAY = 0.2  # in so many of the points


def run_road(
    node: RunningNode,
    pacs: Orthanc,
    images: list[Path],
    folder: Path,
    points: int,
    seed: int,
    say: Callable[[str], object] = lambda line: None,
) -> Ledger:
    """Kill at `points` points: each victim in each phase first, then random ones; what became of everything."""
    chance, ledger = random.Random(seed), Ledger()
    plan = [(victim, phase) for phase in PHASES for victim in VICTIMS][:points]
    plan += [(chance.choice(VICTIMS), chance.choice(PHASES)) for _ in range(points - len(plan))]
    engine = open_engine(load_settings(node.settings).database.url, pool_size=1)
    acknowledged: dict[str, Tail] = {}
    for number, (victim, phase) in enumerate(plan):
        where = f"point {number}: {victim} killed while {phase}"
        sent = shrink(images, folder / f"series{number}")
        sender = Sender(sorted((folder / f"series{number}").iterdir()), node.port)
        sender.start()
        is_away = chance.random() < PACS_AWAY
        if is_away:
            pacs.stop()
        reach(phase, engine, sent, sender)
        time.sleep(chance.uniform(0.0, 0.4))
        kill(victim, node)
        ledger.kills[victim] += 1
        if is_away:
            pacs.start()
            ledger.pacs_away += 1
        sender.join(120)
        _judge(ledger, pacs, sent, wait_until_ended(engine, sent, node), sender, where)
        acknowledged |= sender.acknowledged
        say(where)
    count_stored(ledger, engine, node.home / "spool", acknowledged)
    engine.dispose()
    return ledger


def _judge(ledger: Ledger, pacs: Orthanc, sent: Dataset, state: str, sender: Sender, where: str) -> None:
    ledger.sent += sender.sent
    ledger.broken += sender.broken
    ledger.processed += state == "completed"
    at_pacs = sorted(results_in(pacs, str(sent.StudyInstanceUID)))
    ledger.delivered += len(at_pacs)
    if sender.problem:
        ledger.problems.append(f"{where}: {sender.problem}")
    if state != "completed" or at_pacs != ["SEG", "SR"]:
        ledger.problems.append(f"{where}: the job is {state}, and the PACS has {at_pacs}")


@dataclass
class Sender(threading.Thread):
    """A PACS that sends one series, and sends again what was not acknowledged, as a PACS does."""

    files: list[Path]
    port: int
    acknowledged: dict[str, Tail] = field(default_factory=dict)
    problem: str = ""
    sent: int = 0
    broken: int = 0

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._taken: set[Path] = set()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        end = time.monotonic() + 60
        while missing := [f for f in self.files if f not in self._taken]:
            if time.monotonic() > end:
                self.problem = f"{len(missing)} instances were never acknowledged"
                return
            try:
                send_files(missing, "127.0.0.1", self.port, "AINODE", "SCANNER", self._note, timeout_s=5)
            except DeliveryError:
                self.broken += 1
                time.sleep(0.05)

    def _note(self, sent: FileSent) -> None:
        self.sent += 1
        if sent.status == 0x0000:
            self._taken.add(sent.path)
            ds = dcmread(sent.path)
            self.acknowledged[str(ds.SOPInstanceUID)] = Tail.of(ds.PixelData)
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


def wait_until_ended(engine: Engine, sent: Dataset, node: RunningNode) -> str:
    """Wait until the road of a series is over; the state of its job."""
    uid = str(sent.SeriesInstanceUID)
    return wait_for(lambda: ended(engine, uid), 150, lambda: node.log.read_text()[-6000:])


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
