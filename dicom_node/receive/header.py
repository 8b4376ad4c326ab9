"""Read the header of a stored instance once: the attributes that the node decides by (domain.study.HEADER)."""

from __future__ import annotations

import math
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import IS, DSfloat

from dicom_node.domain.study import HEADER
from dicom_node.domain.uids import is_uid
from dicom_node.errors import CannotUnderstand, DataSetMismatch

MOST_INFLATED = 64 * 1024 * 1024
LONGEST_TEXT = 1024
_PIXELS = 0x7FE00000
_TAGS: list[BaseTag | int] = [tag_for_keyword(keyword) or 0 for keyword in (*HEADER, "SpecificCharacterSet")]
_IDENTITY = ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")


def read_header(path: Path, start: int, transfer_syntax: UID) -> dict[str, Any]:
    """Read the attributes of one data set, stopping before its pixels.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    start : int
        Where the data set begins in it.
    transfer_syntax : UID
        How it is encoded.

    Returns
    -------
    dict
        Keyword to text, number or list of them, fit for JSON; absent and empty attributes are left out.

    Raises
    ------
    CannotUnderstand
        If there is no readable data set, or a UID of instance, class, study or series is missing or malformed.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are kept as text, not complained about
            file.seek(start)
            source = _inflated(file) if transfer_syntax == DeflatedExplicitVRLittleEndian else file
            ds = read_dataset(
                source,
                transfer_syntax.is_implicit_VR,
                transfer_syntax.is_little_endian,
                stop_when=lambda tag, vr, length: tag >= _PIXELS,
                specific_tags=_TAGS,
            )
            header = {keyword: value for keyword in HEADER if (value := _value(ds, keyword)) not in (None, "", [])}
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a broken data set makes the parser raise, it is the data set's fault
        raise CannotUnderstand(f"the data set cannot be read: {type(error).__name__}") from error
    for keyword in _IDENTITY:
        if not is_uid(str(header.get(keyword, ""))):
            raise CannotUnderstand(f"{keyword} is missing or no UID")
    return header


def check_identity(header: dict[str, Any], sop_class_uid: str, sop_instance_uid: str) -> None:
    """Hold the data set to what the command said of it (PS3.4 B.2.3, status 0xA900).

    Raises
    ------
    DataSetMismatch
        If they name different instances or classes.
    """
    if header["SOPInstanceUID"] != sop_instance_uid:
        raise DataSetMismatch("the SOP Instance UID of the data set is not that of the command")
    if header["SOPClassUID"] != sop_class_uid:
        raise DataSetMismatch("the SOP Class UID of the data set is not that of the command")


def _inflated(file: BinaryIO) -> BinaryIO:
    """The first 64 MiB of a deflated data set: far beyond any header, and no bomb."""
    return BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), MOST_INFLATED))


def _value(ds: Dataset, keyword: str) -> Any:
    try:
        value = ds.get(keyword)
    except Exception:  # noqa: BLE001 - a value that breaks its representation is kept as the text that it is
        raw = ds.get_item(keyword)
        value = bytes(raw.value or b"").decode("ascii", "replace") if raw is not None else None
    return _plain(value)


def _plain(value: Any) -> Any:
    """What JSON and both databases take."""
    if isinstance(value, (MultiValue, list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, IS):
        return int(value)
    if isinstance(value, (DSfloat, float)):
        return float(value) if math.isfinite(value) else str(value)
    if value is None or isinstance(value, int):
        return value
    return str(value).replace("\0", "").strip()[:LONGEST_TEXT]
