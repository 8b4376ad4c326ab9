"""One instance on its way: what is said of it, its file, and what the file turns out to be."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_node.db.instances import NewInstance, Sender, Stored
from dicom_node.domain.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, is_uid
from dicom_node.errors import CannotUnderstand, DataSetMismatch, OutOfResources, StoreError
from dicom_node.spool import Incoming, Spool
from dicom_node.store.hands import Hand
from dicom_node.store.header import Source, read_header, read_series_uid
from dicom_node.store.inflated import check_inflated

LONGEST_WAIT_BYTES = 4 * 1024 * 1024
_LOOK_AT_DISK_EVERY = 16 * 1024 * 1024


class Answer(Protocol):
    """Takes the status of a store, from another thread."""

    def __call__(self, status: int, comment: str) -> None:
        """Give the answer to whoever sent the instance."""


@dataclass(slots=True, eq=False)
class Arrival:
    """One instance on its way: filled by one thread, ended by the one that commits.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid : str
        As announced, by a command set or by file meta information; the data set has to say the same.
    study_instance_uid : str
        The only study that the sender means; empty for any.
    hand : Hand, optional
        The thread that writes it; None before the first piece is handed over.
    pending : list
        Pieces of the data set that wait for more, so that not each of them is handed over alone.
    queued, written : int
        Bytes that came and bytes that the disk has; each is written by one thread only.
    series_instance_uid : str
        Which series an instance belongs to that cannot be stored, where that could be read.
    on_room : callable, optional
        Called from the thread that writes once it has caught up; None while nobody waits for that.
    outcome : Stored, optional
        Whether it was stored now or before, once that is settled.
    """

    sender: Sender
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    answer: Answer
    study_instance_uid: str = ""
    hand: Hand | None = None
    pending: list[memoryview | bytes] = field(default_factory=list)
    pending_bytes: int = 0
    queued: int = 0
    written: int = 0
    on_room: Callable[[], None] | None = None
    file: Incoming | None = None
    error: StoreError | None = None
    instance: NewInstance | None = None
    series_instance_uid: str = ""
    outcome: Stored | None = None
    looked_at_disk: int = -_LOOK_AT_DISK_EVERY

    @property
    def is_ahead(self) -> bool:
        """Whether the network is so far ahead of the disk that it should wait."""
        return self.queued - self.written > LONGEST_WAIT_BYTES

    def check_announced(self) -> None:
        """Look at the UIDs that were announced; what is wrong becomes `error`."""
        if not is_uid(self.sop_instance_uid) or not is_uid(self.sop_class_uid):
            self.error = CannotUnderstand("no usable SOP Class and SOP Instance UID are announced")

    def hold(self, data: memoryview | bytes) -> None:
        """Keep a piece until there is enough to hand over."""
        self.pending.append(data)
        self.pending_bytes += len(data)
        self.queued += len(data)

    def take_pending(self) -> list[memoryview | bytes]:
        """Hand over what has been kept."""
        pieces, self.pending, self.pending_bytes = self.pending, [], 0
        return pieces

    def append(self, pieces: Sequence[memoryview | bytes], spool: Spool) -> None:
        """Write the next pieces of the data set.

        Raises
        ------
        OutOfResources, OSError
            If the disk is full or broken.
        """
        if self.written - self.looked_at_disk >= _LOOK_AT_DISK_EVERY:
            self.looked_at_disk = self.written
            if spool.is_full():
                raise OutOfResources(f"less than {spool.reserve_mib} MiB free in the spool")
        if self.file is None:
            self.file = spool.incoming()
            self.file.write_prefix(file_prefix(self))
        self.file.write(*pieces)

    def identify(self) -> None:
        """Read who the instance is, and check it against what was announced.

        Raises
        ------
        CannotUnderstand, DataSetMismatch
            If it has no identity, or another than was announced.
        """
        if self.file is None:
            raise CannotUnderstand("the data set is empty")
        self.instance = instance_of(self, self.file)

    def note_series(self, data: bytes) -> None:
        """Read which series it belongs to, `data` being what could not be written."""
        begin: Source = _Beginning(data) if self.file is None or not self.written else self.file
        self.series_instance_uid = read_series_uid(begin, self.transfer_syntax_uid)

    def keep(self, spool: Spool) -> None:
        """Make it durable; its row is to be written then.

        Raises
        ------
        OSError
            If the disk is full or broken.
        """
        assert self.file is not None
        assert self.instance is not None
        (path,) = spool.keep([self.file])
        self.instance = replace(self.instance, path=path)

    def discard(self) -> None:
        """Delete what has been written."""
        if self.file is not None:
            self.file.discard()
            self.file = None


@dataclass(frozen=True, slots=True)
class _Beginning:
    """The first piece of a data set, in memory."""

    data: bytes

    def read(self, position: int, length: int) -> bytes:
        return bytes(self.data[position : position + length])


def file_prefix(arrival: Arrival) -> bytes:
    """Write what stands before the data set in a file: preamble and file meta information (PS3.10 7.1)."""
    meta = b"".join(
        (
            _meta(0x0001, b"OB", b"\0\1"),
            _meta(0x0002, b"UI", arrival.sop_class_uid.encode()),
            _meta(0x0003, b"UI", arrival.sop_instance_uid.encode()),
            _meta(0x0010, b"UI", arrival.transfer_syntax_uid.encode()),
            _meta(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _meta(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
            _meta(0x0016, b"AE", arrival.sender.calling_ae.encode()),
        )
    )
    return bytes(128) + b"DICM" + _meta(0x0000, b"UL", struct.pack("<I", len(meta))) + meta


def _meta(number: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    length = struct.pack("<HI", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH", 2, number) + vr + length + value


class DataSet(Source, Protocol):
    """A data set that lies somewhere as a whole."""

    @property
    def size(self) -> int:
        """Bytes, with what stands before it in the file."""

    @property
    def digest(self) -> str:
        """Of the data set as it was sent."""


def instance_of(arrival: Arrival, file: DataSet) -> NewInstance:
    """Read who an instance is, and check it against what was announced.

    Raises
    ------
    CannotUnderstand, DataSetMismatch
        If it has no identity, or another than was announced.
    """
    header = read_header(file, arrival.transfer_syntax_uid)
    uids = {}
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        uids[keyword] = str(header.get(keyword, ""))
        if not is_uid(uids[keyword]):
            raise CannotUnderstand(f"the data set has no usable {keyword}")
    if uids["SOPClassUID"] != arrival.sop_class_uid:
        raise DataSetMismatch("the data set has another SOP Class UID than was announced")
    if uids["SOPInstanceUID"] != arrival.sop_instance_uid:
        raise DataSetMismatch("the data set has another SOP Instance UID than was announced")
    if arrival.study_instance_uid and uids["StudyInstanceUID"] != arrival.study_instance_uid:
        raise DataSetMismatch("the data set belongs to another study than the request is for")
    if arrival.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        check_inflated(file)
    return NewInstance(
        sender=arrival.sender,
        study_instance_uid=uids["StudyInstanceUID"],
        series_instance_uid=uids["SeriesInstanceUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        sop_class_uid=uids["SOPClassUID"],
        transfer_syntax_uid=arrival.transfer_syntax_uid,
        path="",
        size=file.size,
        digest=file.digest,
        header=header,
    )
