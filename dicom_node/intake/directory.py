"""The DICOMDIR of a disc (PS3.10 8.6): a list to check against, never a list of paths to open."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import PurePosixPath

from pydicom import dcmread

from dicom_node.errors import CannotUnderstand
from dicom_node.intake.found import Found, opened

NAME = "DICOMDIR"
LONGEST = 256 * 1024 * 1024


def is_directory(found: Found) -> bool:
    """Whether a file is the directory of a disc, by its name."""
    return PurePosixPath(found.name.replace("\\", "/").rpartition(":")[2] or found.name).name.upper() == NAME


def missing(directory: Found, files: Iterable[Found]) -> list[str]:
    """Names that a DICOMDIR lists and that are not there.

    Raises
    ------
    CannotUnderstand, OSError
        If it cannot be read.
    """
    there = {_plain(one.name) for one in files}
    root = _plain(directory.name).removesuffix(NAME)
    return ["/".join(parts) for parts in _listed(directory) if root + "/".join(parts).upper() not in there]


def _listed(directory: Found) -> list[tuple[str, ...]]:
    """File IDs of all records (Referenced File ID (0004,1500)), each part by part."""
    if directory.size > LONGEST:
        raise CannotUnderstand("the DICOMDIR is too large to be one")
    with opened(directory) as stream:
        data = stream.read()
    try:
        records = dcmread(BytesIO(data)).get("DirectoryRecordSequence") or ()
        named = [record.get("ReferencedFileID") for record in records]
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever the malformed element happens to trip over
        raise CannotUnderstand(f"the DICOMDIR cannot be read ({type(error).__name__})") from None
    return [(str(one),) if isinstance(one, str) else tuple(map(str, one)) for one in named if one]


def _plain(name: str) -> str:
    """As names on discs are compared: without case, without the version and the dot that ISO 9660 adds."""
    return name.replace("\\", "/").upper().partition(";")[0].rstrip(".")
