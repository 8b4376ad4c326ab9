"""One file looked at before it is stored: what it announces, whether it is whole, whether we have it already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from dicom_node.digest import Digest
from dicom_node.errors import CannotUnderstand
from dicom_node.store.header import check_whole
from dicom_node.store.part10 import announced, head_length

PIECE = 1024 * 1024
_PREAMBLE = 132


class NoDicom(Exception):
    """A file that is none of ours: a viewer's program, a thumbnail, a note."""


class Truncated(CannotUnderstand):
    """A file that is not whole: it was cut off, or somebody still writes it."""

    retry = True


@dataclass(frozen=True, slots=True)
class Announced:
    """What stands in the file meta information, and where the data set begins."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    start: int


class Section:
    """The data set in a file that can be read from anywhere."""

    def __init__(self, stream: IO[bytes], start: int) -> None:
        self._stream = stream
        self._start = start

    def read(self, position: int, length: int) -> bytes:
        """Read up to `length` bytes from `position` of the data set."""
        self._stream.seek(self._start + position)
        return self._stream.read(length)


def read_head(stream: IO[bytes]) -> Announced:
    """Read preamble and file meta information from the beginning of a stream.

    Raises
    ------
    NoDicom
        If it is no DICOM file (PS3.10 7.1), or a DICOMDIR.
    CannotUnderstand, UnknownTransferSyntax
        If it is one that cannot be read.
    """
    begun = stream.read(_PREAMBLE + 12)
    if not begun:
        raise Truncated("the file is empty")
    if begun[128:_PREAMBLE] != b"DICM":
        raise NoDicom("no DICOM file")
    length = head_length(begun)
    head = begun + stream.read((length or 0) - len(begun)) if length else begun
    if length is None or len(head) < length:
        raise Truncated("the file ends before its data set begins")
    uids = announced(head)
    if uids[0] == "1.2.840.10008.1.3.10":
        raise NoDicom("the directory of a disc")
    return Announced(*uids, length)


def digest_whole(stream: IO[bytes], head: Announced, size: int, like: str = "") -> str:
    """Prove that the data set is whole; its digest, as that of a stored instance, of the same kind as `like`.

    Raises
    ------
    Truncated
        If it ends inside an element.
    OSError
        If it cannot be read.
    """
    digest, read = Digest(like), head.start
    while piece := stream.read(PIECE):
        digest.update(piece)
        read += len(piece)
    if read != size:
        raise Truncated(f"{read} of {size} bytes can be read")
    try:
        check_whole(Section(stream, head.start), head.transfer_syntax_uid, size - head.start)
    except CannotUnderstand as error:
        raise Truncated(str(error)) from None
    return str(digest)
