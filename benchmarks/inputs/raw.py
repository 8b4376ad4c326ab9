"""The bytes of a file as a data set, whatever they are: how a node answers what no proper sender would send."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pydicom.uid import SecondaryCaptureImageStorage as SecondaryCapture


def with_meta(path: Path) -> Path:
    """Write the data set of a file behind meta information that can be sent, with made-up UIDs where it names none."""
    meta, buffer = FileMetaDataset(), DicomBytesIO()
    sop_class, instance, syntax = _announced(dcmread(path, force=True, stop_before_pixels=True))
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    meta.TransferSyntaxUID = syntax
    write_file_meta_info(buffer, meta)
    target = path.with_suffix(".with_meta")
    target.write_bytes(b"\0" * 128 + b"DICM" + buffer.getvalue() + data_set(path))
    return target


def _announced(ds: Dataset) -> tuple[UID, UID, UID]:
    """SOP Class, SOP Instance and Transfer Syntax UID, as far as the file names them."""
    sop_class = ds.file_meta.get("MediaStorageSOPClassUID") or ds.get("SOPClassUID") or SecondaryCapture
    instance = ds.file_meta.get("MediaStorageSOPInstanceUID") or ds.get("SOPInstanceUID") or generate_uid()
    implicit, little = ds.original_encoding
    plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return UID(sop_class), UID(instance), UID(ds.file_meta.get("TransferSyntaxUID") or plain)


def data_set(path: Path) -> bytes:
    """Read what follows the file meta information; meta information without its length is found element by element."""
    data = path.read_bytes()
    if data[128:132] != b"DICM":
        return data
    if data[132:140] == b"\x02\x00\x00\x00UL\x04\x00":
        return data[144 + int.from_bytes(data[140:144], "little") :]
    position = 132
    while data[position : position + 2] == b"\x02\x00":
        is_long = data[position + 4 : position + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        at, size = (position + 8, 4) if is_long else (position + 6, 2)
        position = at + size + int.from_bytes(data[at : at + size], "little")
    return data[position:]
