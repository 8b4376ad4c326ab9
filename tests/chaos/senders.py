"""Senders that never give up: what was not acknowledged is sent again, as a scanner or a PACS does it."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from tests.chaos.ledger import Tail
from tests.integration.receive.objects import ct
from tests.integration.receive.scu import Aborted, Instance, Rejected, Scu
from tests.peers.missing import need

IN_SERIES = 12
GIVE_UP_S = 120.0


@dataclass(frozen=True, slots=True)
class Item:
    """One instance to send, and what its file shall end with."""

    uid: str
    tail: Tail
    content: Instance | Path


class Sender(ABC, threading.Thread):
    """Sends series after series until told to stop, and ends its last one.

    Attributes
    ----------
    sent, broken : int
        As in the ledger.
    acknowledged : dict
        SOP Instance UID -> what its file has to end with.
    series : list of str
        Series Instance UIDs of which everything was acknowledged.
    """

    def __init__(self, port: int, chance: random.Random, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.chance = chance
        self.sent = self.broken = 0
        self.acknowledged: dict[str, Tail] = {}
        self.series: list[str] = []
        self.problem = ""
        self._stopped = stop

    def run(self) -> None:
        """Send."""
        while not self._stopped.is_set() and not self.problem:
            series, waiting = self.make()
            end = time.monotonic() + GIVE_UP_S
            while waiting and not self.problem:
                taken = self.offer(waiting)
                self.acknowledged |= {item.uid: item.tail for item in waiting if item.uid in taken}
                waiting = [item for item in waiting if item.uid not in taken]
                time.sleep(0.05 if waiting else 0.0)
                if time.monotonic() > end:
                    self.problem = f"{len(waiting)} instances of {series} were never acknowledged"
            self.series.append(series)

    @abstractmethod
    def make(self) -> tuple[str, list[Item]]:
        """Make a series."""

    @abstractmethod
    def offer(self, items: Sequence[Item]) -> set[str]:
        """Send on one association; the UIDs of what was answered with 0x0000."""


class PlainSender(Sender):
    """Writes PDUs itself, so that an answer counts from the moment in which its last byte is there."""

    def make(self) -> tuple[str, list[Item]]:
        """Make CT slices of many sizes."""
        root = generate_uid(entropy_srcs=[str(self.chance.random())])[:50]
        slices = [ct(n, series=root, pixels=self.chance.randint(200, 40_000) * 2) for n in range(1, IN_SERIES + 1)]
        return f"{root}.2", [Item(one.sop_instance_uid, Tail.of(one.data), one) for one in slices]

    def offer(self, items: Sequence[Item]) -> set[str]:
        """Send one after the other until something breaks."""
        taken: set[str] = set()
        is_associated = False
        instances = [item.content for item in items if isinstance(item.content, Instance)]
        try:
            with Scu(self.port, timeout_s=60) as scu:
                scu.associate_for(*instances)
                is_associated = True
                for one in instances:
                    self.sent += 1
                    if scu.store(one, piece=8_000) == 0x0000:
                        taken.add(one.sop_instance_uid)
                scu.release()
        except (Aborted, Rejected, OSError, AssertionError):
            self.broken += is_associated
        return taken


class DcmtkSender(Sender):
    """dcmtk's storescu, one process for each association; what it says that was answered counts."""

    def __init__(self, port: int, chance: random.Random, stop: threading.Event, folder: Path) -> None:
        super().__init__(port, chance, stop)
        self._folder = folder
        self._program = need("storescu")
        folder.mkdir()

    def make(self) -> tuple[str, list[Item]]:
        """Write files of one series."""
        ds = dcmread(str(get_testdata_file("MR_small.dcm")))
        del ds[0xFFFC, 0xFFFC]  # padding, which storescu leaves out
        ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
        items = []
        for number in range(IN_SERIES):
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            ds.InstanceNumber = number + 1
            file = self._folder / f"{number}.dcm"
            ds.save_as(file)
            items.append(Item(ds.SOPInstanceUID, Tail.of(ds.PixelData), file))
        return str(ds.SeriesInstanceUID), items

    def offer(self, items: Sequence[Item]) -> set[str]:
        """Run it, and read what it says."""
        files = {str(item.content): item.uid for item in items}
        where = ["-aet", "SCANNER", "-aec", "AINODE", "127.0.0.1", str(self.port)]
        command = [self._program, "-v", "-to", "10", "-ta", "20", "-td", "20", *where, *files]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=100)
        taken, now = set(), ""
        for line in done.stdout.decode(errors="replace").splitlines():
            if "Sending file: " in line:
                now = line.rpartition("Sending file: ")[2].strip()
                self.sent += 1
            elif "Received Store Response (Success)" in line:
                taken.add(files[now])
        self.broken += bool(now) and done.returncode != 0
        return taken
