"""The watching process: folders that others put DICOM files into, each a source like an association.

A file is taken once its size and its time of change have stood still for a while, seen by us and on our clock, so that
it works on network shares, which tell of no changes and have clocks of their own. It is touched only after it is synced
and committed, and only if it is still the file that was read.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Engine

from dicom_node import __version__
from dicom_node.db.audit import record
from dicom_node.db.engine import is_away, transaction, utc_now
from dicom_node.db.instances import RELEASED, Sender, end_association
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.intake.batch import Batch, Became, Outcome
from dicom_node.intake.found import find_in_file
from dicom_node.loop import run_every
from dicom_node.settings import Settings, WatchedFolder
from dicom_node.spool import Spool
from dicom_node.store.storage import Storage

# As they are called while somebody still writes them; who renames them in the end need not wait for us to settle.
UNFINISHED = (".part", ".partial", ".filepart", ".tmp", ".temp", ".crdownload", ".writing")
DONE, FAILED, REASON = "done", "failed", ".reason.txt"
GIVE_UP = 10  # times settle_s: a file that is not whole and has not changed for so long never will be
MOST_AT_ONCE = 2_000  # files of one sweep
FLUSH_S = 30.0

_log = logging.getLogger(__name__)


class Watcher:
    """Looks into every folder at its pace, each in a thread of its own: a share that hangs holds up no other."""

    def __init__(self, settings: Settings, engine: Engine, spool: Spool) -> None:
        self._storage = Storage(spool, engine, settings.assemble.waiting())
        self._watches = [
            FolderWatch(folder, settings.node.ae_title, self._storage, engine) for folder in settings.receive.folders
        ]

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop`."""
        self._storage.start()
        threads = [
            threading.Thread(target=run_every, args=(watch.tolerant_sweep, watch.every_s, stop), daemon=True)
            for watch in self._watches
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        for thread in threads:
            thread.join(timeout=FLUSH_S)
        self._storage.stop(FLUSH_S)
        self._storage.tell_last()


@dataclass(frozen=True, slots=True)
class _State:
    """By what a file is known to be the same and unchanged."""

    size: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> _State | None:
        try:
            stat = path.stat(follow_symlinks=False)
        except OSError:
            return None
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


class FolderWatch:
    """One folder."""

    def __init__(self, folder: WatchedFolder, ae_title: str, storage: Storage, engine: Engine) -> None:
        self.every_s = folder.every_s
        self._folder = folder
        self._called_ae = folder.called_ae or ae_title
        self._storage = storage
        self._engine = engine
        self._still: dict[Path, tuple[_State, float]] = {}  # as it was last seen, and since when (monotonic)
        self._through: dict[Path, _State] = {}  # of a folder that is kept as it is: what needs no more looking at
        self._is_missing = False

    def tolerant_sweep(self) -> None:
        """Sweep; a database or a share that is away is told in one line."""
        try:
            self.sweep()
        except Exception as error:
            if not (is_away(error) or isinstance(error, OSError)):
                raise
            _log.warning("folder %s is looked at again: %s", self._folder.path, type(error).__name__)

    def sweep(self) -> int:
        """Take what has settled; how many files were dealt with."""
        settled = self._settled()
        if not settled:
            return 0
        outcomes: dict[Path, list[Outcome]] = {path: [] for path in settled}
        sender = self._sender()
        held = {path: find_in_file(path) for path in settled}
        owner = {found.name: path for path, files in held.items() for found in files}
        stays = self._folder.afterwards == "keep"  # so that it is found again after every start
        batch = Batch(
            self._storage, self._engine, sender, lambda one: outcomes[owner[one.found.name]].append(one), once=stays
        )
        for files in held.values():
            for found in files:
                batch.take(found)
        batch.settle()
        counts = Counter(one.became for some in outcomes.values() for one in some if not one.may_pass)
        dealt = sum(self._conclude(path, settled[path], outcomes[path]) for path in settled)
        self._tell(sender, counts)
        return dealt

    def _settled(self) -> dict[Path, _State]:
        """Files that have not changed for a while, at most `MOST_AT_ONCE`."""
        now = time.monotonic()
        there = dict(self._files())
        self._still = {path: since for path, since in self._still.items() if path in there}
        self._through = {path: state for path, state in self._through.items() if there.get(path) == state}
        for path, state in there.items():
            if path not in self._still or self._still[path][0] != state:
                self._still[path] = state, now
        ripe = (
            (path, state)
            for path, (state, since) in self._still.items()
            if now - since >= self._folder.settle_s and path not in self._through
        )
        return dict(sorted(ripe, key=lambda one: one[0])[:MOST_AT_ONCE])

    def _files(self) -> Iterator[tuple[Path, _State]]:
        root = self._folder.path
        if not root.is_dir():
            if not self._is_missing:
                _log.warning("the watched folder %s is not there; is the share mounted?", root)
            self._is_missing = True
            return
        self._is_missing = False
        for place, folders, names in os.walk(root):
            if Path(place) == root:
                folders[:] = [name for name in folders if name not in (DONE, FAILED)]
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(place, name)
                if name.startswith(".") or name.lower().endswith((*UNFINISHED, REASON)) or path.is_symlink():
                    continue
                if path.is_file() and (state := _State.of(path)) is not None:
                    yield path, state

    def _conclude(self, path: Path, state: _State, outcomes: list[Outcome]) -> bool:
        """Do with a file what is to be done with it; whether it was dealt with."""
        waiting = [one for one in outcomes if one.may_pass]
        if waiting and not (self._is_given_up(path) and all(one.is_truncated for one in waiting)):
            return False
        if _State.of(path) != state:  # somebody changed it: it is another file, and looked at again
            return False
        problems = [one for one in outcomes if one.became is Became.REFUSED]
        some = [one for one in outcomes if one.became in (Became.TAKEN, Became.THERE)]
        if problems or not some:
            reasons = sorted({one.reason for one in problems or outcomes}) or ["it is empty"]
            _log.warning("a file in %s is not taken: %s", self._folder.path, "; ".join(reasons))
            self._put_aside(path, state, FAILED, "\n".join(reasons) + "\n")
        elif self._folder.afterwards == "delete":
            path.unlink(missing_ok=True)
        else:
            self._put_aside(path, state, DONE)
        return True

    def _is_given_up(self, path: Path) -> bool:
        return time.monotonic() - self._still[path][1] >= GIVE_UP * self._folder.settle_s

    def _put_aside(self, path: Path, state: _State, where: str, reason: str = "") -> None:
        """Move a file out of the way; where nothing is to be touched, remember that it was looked at."""
        if self._folder.afterwards == "keep":
            self._through[path] = state
            return
        target = self._folder.path / where / path.relative_to(self._folder.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target = target.with_name(f"{target.name}.{uuid4().hex[:8]}")
        with suppress(FileNotFoundError):  # another node watches, too
            path.rename(target)
            if reason:
                target.with_name(target.name + REASON).write_text(reason, encoding="utf-8")

    def _sender(self) -> Sender:
        return Sender(
            id=str(uuid4()),
            calling_ae=self._folder.calling_ae,
            called_ae=self._called_ae,
            address="",
            implementation=f"dicom-node {__version__} watch",
            started_at=utc_now(),
        )

    def _tell(self, sender: Sender, counts: Counter[Became]) -> None:
        stored, refused = counts[Became.TAKEN], counts[Became.REFUSED]
        if stored:
            self._storage.tell(partial(end_association, sender=sender, reason=RELEASED, stored=stored, refused=refused))
        if stored or refused:
            counted = {became.value.replace(" ", "_"): counts[became] for became in Became}
            detail = {"from": self._folder.calling_ae, "folder": str(self._folder.path), **counted}
            with transaction(self._engine) as tx:
                record(tx, AuditEvent(Event.INSTANCES_IMPORTED, detail=detail))
