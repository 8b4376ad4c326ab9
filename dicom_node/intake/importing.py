"""`dicom-node import`: folders, discs, archives and single files, once; the same again goes on where it stopped.

What is stored already is recognised by its bytes, read and not written again. Each folder counts as an association of
its own, so that its series are complete when the folder is through, not when the whole disc is.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, Engine

from dicom_node import __version__
from dicom_node.db.audit import record
from dicom_node.db.engine import transaction, utc_now
from dicom_node.db.instances import RELEASED, Sender, end_association
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.errors import NodeError, OutOfResources
from dicom_node.intake.batch import Batch, Became, Outcome
from dicom_node.intake.directory import is_directory, missing
from dicom_node.intake.found import Found, find
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.store.storage import Storage

CALLING_AE = "IMPORT"
FLUSH_S = 60.0
_MOST_NAMED = 10


@dataclass
class Import:
    """What an import came to. `stopped`: it ended early, and why."""

    counts: Counter[Became] = field(default_factory=Counter)
    refused: list[Outcome] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    studies: set[str] = field(default_factory=set)
    stopped: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether everything that was to be taken is there."""
        some = self.counts[Became.TAKEN] + self.counts[Became.THERE]
        return bool(some) and not (self.refused or self.missing or self.stopped)


def import_paths(
    paths: list[Path],
    settings: Settings,
    spool: Spool,
    engine: Engine,
    *,
    calling_ae: str = CALLING_AE,
    called_ae: str = "",
    actor: str,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    begin: Callable[[int], None] = lambda total: None,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Import:
    """Take every instance behind some paths.

    Parameters
    ----------
    calling_ae, called_ae : str
        How the series are said to have come, for the rules; by default ``IMPORT``, and the node's own title.
    actor : str
        Who does it, for the audit trail.
    dry_run : bool
        Say what would become of each file, and store nothing.
    stop : threading.Event, optional
        Ends the import after the file that it is at.
    begin, tell : callable
        Called with the number of files, and with the outcome of each.
    """
    files = find(paths)
    begin(len(files))
    done = Import()
    lock = threading.Lock()

    def note(outcome: Outcome) -> None:
        with lock:
            done.counts[outcome.became] += 1
            if outcome.study_instance_uid:
                done.studies.add(outcome.study_instance_uid)
            if outcome.became is Became.REFUSED:
                done.refused.append(outcome)
        tell(outcome)

    with _storage(settings, spool, engine, dry_run=dry_run) as storage:
        for _, together in groupby(files, key=lambda one: one.folder):
            sender = _sender(calling_ae, called_ae or settings.node.ae_title)
            before = Counter(done.counts)
            batch = Batch(storage, engine, sender, note)
            for one in together:
                if done.stopped or (stop is not None and stop.is_set()):
                    done.stopped = done.stopped or "it was interrupted"
                    break
                batch.take(one)
                done.stopped = next((o.reason for o in done.refused[-1:] if o.status == OutOfResources.status), "")
            batch.settle()
            if storage is not None:
                storage.tell(partial(_end, sender, done.counts - before))
            if done.stopped:
                break
    _check_directories(files, done)
    if not dry_run:
        with transaction(engine) as tx:
            record(tx, AuditEvent(Event.INSTANCES_IMPORTED, actor=actor, detail=_detail(done, calling_ae)))
    return done


@contextmanager
def _storage(settings: Settings, spool: Spool, engine: Engine, *, dry_run: bool) -> Iterator[Storage | None]:
    if dry_run:
        yield None
        return
    storage = Storage(spool, engine, settings.assemble.waiting())
    storage.start()
    try:
        yield storage
    finally:
        storage.stop(FLUSH_S)
        storage.tell_last()


def _sender(calling_ae: str, called_ae: str) -> Sender:
    return Sender(
        id=str(uuid4()),
        calling_ae=calling_ae,
        called_ae=called_ae,
        address="",
        implementation=f"dicom-node {__version__} import",
        started_at=utc_now(),
    )


def _end(sender: Sender, counts: Counter[Became], tx: Connection) -> None:
    if counts[Became.TAKEN]:
        end_association(tx, sender, reason=RELEASED, stored=counts[Became.TAKEN], refused=counts[Became.REFUSED])


def _check_directories(files: list[Found], done: Import) -> None:
    for one in files:
        if is_directory(one) and not one.problem:
            try:
                done.missing += [f"{one.name} lists {name}, which is not there" for name in missing(one, files)]
            except (NodeError, OSError) as error:
                done.missing.append(f"{one.name}: {error}")


def _detail(done: Import, calling_ae: str) -> dict[str, object]:
    """Counts and UIDs; names of files may be names of patients."""
    counted = {became.value.replace(" ", "_"): done.counts[became] for became in Became}
    reasons = sorted({outcome.reason for outcome in done.refused})[:_MOST_NAMED]
    return {
        "from": calling_ae,
        **counted,
        "missing": len(done.missing),
        "reasons": reasons,
        "studies": sorted(done.studies)[:_MOST_NAMED],
        "stopped": done.stopped,
    }
