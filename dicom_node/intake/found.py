"""The files behind a path. Nothing is ever unpacked onto the disk, so that names inside an archive lead nowhere."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from dicom_node.errors import ConflictError

MOST_ENTRIES = 1_000_000
MOST_BYTES = 4 * 1024**3  # of one entry: no instance may be longer
IN_MEMORY = 256 * 1024**2
ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class Found:
    """One file, on disk or in an archive.

    Attributes
    ----------
    name : str
        As a person would find it again.
    folder : str
        What lies together probably belongs together.
    problem : str
        Why it cannot be read at all; empty when it can.
    """

    name: str
    folder: str
    size: int
    open: Callable[[], IO[bytes]]
    problem: str = ""


def find(paths: list[Path]) -> list[Found]:
    """List the files behind some paths, folder by folder; archives among them stand for what is in them.

    Raises
    ------
    OSError
        If a path cannot be read.
    """
    found: list[Found] = []
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            found += find_in_file(file)
    return found


def find_in_file(file: Path) -> list[Found]:
    """Give a file, or what is in it when it is a zip archive."""
    if file.suffix.lower() == ".zip":
        try:
            return _entries(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, ConflictError) as error:
            return [Found(str(file), str(file.parent), 0, partial(_open, file), f"no archive that is read: {error}")]
    return [Found(str(file), str(file.parent), file.stat().st_size, partial(_open, file))]


def _open(file: Path) -> IO[bytes]:
    return file.open("rb")


def _entries(file: Path) -> list[Found]:
    with zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MOST_ENTRIES:
        raise ConflictError(f"it holds {len(infos)} files; {MOST_ENTRIES} are read")
    return [_entry(file, info) for info in sorted(infos, key=lambda info: info.filename)]


def _entry(file: Path, info: zipfile.ZipInfo) -> Found:
    problem = ""
    if info.flag_bits & ENCRYPTED:
        problem = "it is encrypted"
    elif info.file_size > MOST_BYTES:
        problem = f"it would be {info.file_size / 1024**3:.1f} GiB"
    elif info.filename.lower().endswith(".zip"):
        problem = "an archive inside an archive: unpack it first"
    folder = f"{file}:{PurePosixPath(info.filename).parent}"
    return Found(f"{file}:{info.filename}", folder, info.file_size, partial(_open_entry, file, info), problem)


def _open_entry(file: Path, info: zipfile.ZipInfo) -> IO[bytes]:
    """Open an entry; it gives no more than the archive announced, and checks its CRC at the end."""
    with zipfile.ZipFile(file) as archive:  # the entry keeps the file open for itself
        stream = archive.open(info)
    if info.file_size > IN_MEMORY:
        return stream
    with stream:  # to go back in a compressed entry is to begin anew
        return BytesIO(stream.read())


@contextmanager
def opened(found: Found) -> Iterator[IO[bytes]]:
    """Open a file for a block; whatever is broken about its archive becomes an OSError.

    Raises
    ------
    OSError
        If it cannot be read, or only in part.
    """
    try:
        with found.open() as stream:
            yield stream
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise OSError(f"it cannot be unpacked: {error}") from error
