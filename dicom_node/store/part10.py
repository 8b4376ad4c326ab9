"""The head of a DICOM file (PS3.10 7.1) whose rest is still on its way."""

from __future__ import annotations

from io import BytesIO

from pydicom.filereader import read_dataset
from pydicom.uid import UID

from dicom_node.domain.uids import is_uid
from dicom_node.errors import CannotUnderstand, UnknownTransferSyntax

LONGEST_HEAD = 64 * 1024
_LENGTH = slice(140, 144)  # value of File Meta Information Group Length (0002,0000), the first element
_STARTS = b"DICM\2\0\0\0UL\4\0"


def head_length(begun: bytes | bytearray) -> int | None:
    """How long preamble and file meta information are together; None while that cannot be said.

    Raises
    ------
    CannotUnderstand
        When this is the beginning of no DICOM file.
    """
    if len(begun) < _LENGTH.stop:
        return None
    length = _LENGTH.stop + int.from_bytes(begun[_LENGTH], "little")
    if begun[128:140] != _STARTS or length > LONGEST_HEAD:
        raise CannotUnderstand("this is no DICOM file: preamble or file meta information are missing")
    return length


def announced(head: bytes) -> tuple[str, str, str]:
    """SOP Class, SOP Instance and Transfer Syntax UID of the file meta information.

    Raises
    ------
    CannotUnderstand, UnknownTransferSyntax
        When it cannot be read, or names a transfer syntax that there is not.
    """
    try:
        meta = read_dataset(BytesIO(head[132:]), is_implicit_VR=False, is_little_endian=True)
        uids = [str(meta.get(tag, "")) for tag in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID")]
        syntax = str(meta.get("TransferSyntaxUID", ""))
    except Exception:  # noqa: BLE001 - pydicom raises whatever the malformed element happens to trip over
        raise CannotUnderstand("the file meta information cannot be read") from None
    if not is_uid(syntax) or not UID(syntax).is_transfer_syntax:
        raise UnknownTransferSyntax("a transfer syntax that the standard does not know")
    return uids[0], uids[1], syntax
