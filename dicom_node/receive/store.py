"""C-STORE: an instance is durable before it is acknowledged.

The association's loop streams a data set to a file and hands it over here. One thread per process commits what several
associations handed over meanwhile as one group: every file synced and renamed, the folder synced, one transaction for
all rows. Only then do their responses go out, and `0x0000` means that the instance survives a power cut.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.db.audit import record
from dicom_node.db.engine import transaction
from dicom_node.db.instances import NewInstance, Sender, Stored, end_association, store_instances
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.errors import DuplicateDiffers, NodeError, OutOfResources, StoreError
from dicom_node.receive.header import check_identity, read_header
from dicom_node.spool import Incoming, Spool

LARGEST_GROUP = 64  # instances in one transaction
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Arrival:
    """One C-STORE request: what the command said, and the file that its data set goes to.

    `problem` is set as soon as it is known that the instance will be refused; its bytes are then swallowed.
    """

    sender: Sender
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: UID
    answer: Callable[[Arrival], None]
    file: Incoming | None = None
    data_starts_at: int = 0
    problem: StoreError | None = None
    header: dict[str, Any] = field(default_factory=dict)

    def write(self, data: memoryview) -> None:
        """Take a piece of the data set."""
        if self.file is None:
            return
        try:
            self.file.write(data)
        except OSError as error:
            self.refuse(out_of_resources(error))

    def refuse(self, problem: StoreError) -> None:
        """Give up on the instance; the first reason counts."""
        self.problem = self.problem or problem
        if self.file is not None:
            self.file.discard()
            self.file = None


class Store:
    """Takes arrivals, commits them in groups, and has them answered.

    Parameters
    ----------
    spool, engine : Spool, sqlalchemy.Engine
        Where files and rows go.
    quiet_s : float
        A series settles when nothing new arrived for so long.
    """

    def __init__(self, spool: Spool, engine: Engine, quiet_s: float) -> None:
        self._spool = spool
        self._engine = engine
        self._quiet_s = quiet_s
        self._work: queue.SimpleQueue[Callable[[], None] | Arrival | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def begin(self, arrival: Arrival) -> None:
        """Open the file of an arrival, unless there is no room; does not wait for the disk."""
        if arrival.problem is not None:
            return
        try:
            if self._spool.is_full():
                arrival.refuse(OutOfResources("no space left: the spool is down to its reserve"))
                return
            arrival.file = self._spool.incoming()
            prefix = _prefix(arrival)
            arrival.file.write_prefix(prefix)
            arrival.data_starts_at = len(prefix)
        except OSError as error:
            arrival.refuse(out_of_resources(error))

    def finish(self, arrival: Arrival) -> None:
        """Commit a complete arrival; its `answer` is called from the committing thread."""
        self._work.put(arrival)

    def note(self, *events: AuditEvent) -> None:
        """Record events that belong to no instance, when the database has time."""
        self._work.put(lambda: self._record(events))

    def end(self, sender: Sender, reason: str, stored: int, refused: int) -> None:
        """Record how an association ended."""
        self._work.put(lambda: self._end(sender, reason, stored, refused))

    def close(self) -> None:
        """Finish what was handed over, then stop."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            group: list[Arrival] = []
            item = self._work.get()
            while True:
                if item is None:
                    going = False
                elif isinstance(item, Arrival):
                    group.append(item)
                else:
                    self._commit(group)
                    group = []
                    item()
                if len(group) >= LARGEST_GROUP or self._work.empty():
                    break
                item = self._work.get()
            self._commit(group)

    def _commit(self, group: Sequence[Arrival]) -> None:
        """Make a group durable and have every member answered, whatever happens."""
        if not group:
            return
        try:
            self._store([arrival for arrival in group if arrival.problem is None and self._understand(arrival)])
            self._tell_refusals([arrival for arrival in group if arrival.problem is not None])
        except Exception:  # noqa: BLE001 - nothing is acknowledged that is not stored; the peers send again
            _log.exception("storing a group of %d instances failed", len(group))
            for arrival in group:
                arrival.refuse(OutOfResources("internal error; the log says more"))
        for arrival in group:
            arrival.answer(arrival)

    def _understand(self, arrival: Arrival) -> bool:
        assert arrival.file is not None
        try:
            arrival.header = read_header(arrival.file.path, arrival.data_starts_at, arrival.transfer_syntax)
            check_identity(arrival.header, arrival.sop_class_uid, arrival.sop_instance_uid)
        except StoreError as error:
            arrival.refuse(error)
        except OSError as error:
            arrival.refuse(out_of_resources(error))
        return arrival.problem is None

    def _store(self, arrivals: list[Arrival]) -> None:
        """Files first, then rows.

        When the commit fails the files stay, for `Spool.sweep_orphans` to judge: a connection that breaks in the middle
        of a commit does not say whether the rows are there.
        """
        if not arrivals:
            return
        files = [arrival.file for arrival in arrivals if arrival.file is not None]
        try:
            paths = self._spool.keep(files)
            rows = [_row(arrival, path) for arrival, path in zip(arrivals, paths, strict=True)]
            with transaction(self._engine) as tx:
                outcomes = store_instances(tx, rows, self._quiet_s)
        except (OSError, SQLAlchemyError) as error:
            problem = out_of_resources(error)
            _log.error("%d instances not stored: %s", len(arrivals), problem)
            for arrival in arrivals:
                arrival.file = None
                arrival.refuse(problem)
            return
        for arrival, path, outcome in zip(arrivals, paths, outcomes, strict=True):
            arrival.file = None
            if outcome is not Stored.NEW:
                self._spool.delete(path)
            if outcome is Stored.DIFFERS:
                arrival.refuse(DuplicateDiffers("this SOP Instance UID is stored already, with other bytes"))

    def _tell_refusals(self, refused: Sequence[Arrival]) -> None:
        events = [_refusal(arrival) for arrival in refused if not isinstance(arrival.problem, DuplicateDiffers)]
        for arrival in refused:
            _log.warning("refused %s: %s", arrival.sop_instance_uid, arrival.problem)
        if events:
            self._record(events)

    def _record(self, events: Sequence[AuditEvent]) -> None:
        try:
            with transaction(self._engine) as tx:
                record(tx, *events)
        except SQLAlchemyError as error:
            _log.error("%d audit events not recorded, the database is away: %s", len(events), type(error).__name__)

    def _end(self, sender: Sender, reason: str, stored: int, refused: int) -> None:
        try:
            with transaction(self._engine) as tx:
                end_association(tx, sender, reason=reason, stored=stored, refused=refused)
        except SQLAlchemyError as error:
            _log.error("the end of association %s was not recorded: %s", sender.id, type(error).__name__)


def out_of_resources(error: Exception) -> OutOfResources:
    """Say what is lacking, without paths or statements: it goes to the peer as Error Comment."""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return OutOfResources("no space left on the node" if full else f"the spool cannot be written: {error.strerror}")
    return OutOfResources("the node's database is away")


def _prefix(arrival: Arrival) -> bytes:
    """Preamble, empty so that nothing can hide in it, and file meta information (PS3.10 section 7.1)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(arrival.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(arrival.sop_instance_uid)
    meta.TransferSyntaxUID = arrival.transfer_syntax
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    meta.SourceApplicationEntityTitle = arrival.sender.calling_ae
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_file_meta_info(buffer, meta)
    return bytes(128) + b"DICM" + buffer.getvalue()


def _row(arrival: Arrival, path: str) -> NewInstance:
    assert arrival.file is not None
    return NewInstance(
        sender=arrival.sender,
        study_instance_uid=arrival.header["StudyInstanceUID"],
        series_instance_uid=arrival.header["SeriesInstanceUID"],
        sop_instance_uid=arrival.sop_instance_uid,
        sop_class_uid=arrival.sop_class_uid,
        transfer_syntax_uid=str(arrival.transfer_syntax),
        path=path,
        size=arrival.file.size,
        sha256=arrival.file.sha256,
        header=arrival.header,
    )


def _refusal(arrival: Arrival) -> AuditEvent:
    problem = arrival.problem
    assert isinstance(problem, NodeError)
    detail = {
        "instance": arrival.sop_instance_uid,
        "from": arrival.sender.calling_ae,
        "status": f"0x{problem.status:04X}",
        "reason": str(problem),
    }
    for name, keyword in (("study", "StudyInstanceUID"), ("series", "SeriesInstanceUID")):
        if keyword in arrival.header:
            detail[name] = arrival.header[keyword]
    return AuditEvent(Event.INSTANCE_REFUSED, arrival.sender.id, detail=detail)
