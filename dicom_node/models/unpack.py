"""Copies a bundle out of a zip or a folder; nothing lands outside, whatever its names and links say."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from dicom_node.card import CARD
from dicom_node.errors import ConfigurationError
from dicom_node.program import is_program

_MOST_BYTES = 20 * 1024**3
_MOST_FILES = 20_000
_LEFT_OUT = ("__pycache__", ".git", "__MACOSX")


def unpack(source: Path, target: Path) -> Path:
    """Copy a bundle.

    Parameters
    ----------
    source : pathlib.Path
        A folder or a zip file with a model, or with one folder that is a model: a bundle, or the card of a program.
    target : pathlib.Path
        An empty folder.

    Returns
    -------
    pathlib.Path
        The bundle's root inside `target`.

    Raises
    ------
    ConfigurationError
        If there is no bundle in it, if it is larger than a bundle can be, or if a name or a link in it points outside.
    """
    if source.is_dir():
        _copy(source, target)
    elif zipfile.is_zipfile(source):
        _extract(source, target)
    else:
        raise ConfigurationError(f"{source}: is neither a folder nor a zip file")
    return _root(target, source)


def _copy(source: Path, target: Path) -> None:
    files = [path for path in source.rglob("*") if not set(_LEFT_OUT) & set(path.relative_to(source).parts)]
    for path in files:
        if path.is_symlink():
            raise ConfigurationError(f"{source}: {path.relative_to(source)} is a link; a bundle holds files alone")
    _check_amount(source, len(files), sum(path.stat().st_size for path in files if path.is_file()))
    for path in files:
        place = target / path.relative_to(source)
        if path.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            _make_runnable(place, path.stat().st_mode)


def _extract(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        entries = [
            entry
            for entry in archive.infolist()
            if not entry.is_dir() and not set(_LEFT_OUT) & set(PurePosixPath(entry.filename).parts)
        ]
        _check_amount(source, len(entries), sum(entry.file_size for entry in entries))
        for entry in entries:
            place = target.joinpath(*_parts(entry, source))
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(entry) as packed, place.open("xb") as file:
                    _copy_exactly(packed, file, entry, source)
                _make_runnable(place, entry.external_attr >> 16)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, FileExistsError, EOFError) as error:
                raise ConfigurationError(f"{source}: {entry.filename!r} cannot be unpacked: {error}") from error


def _make_runnable(file: Path, mode: int) -> None:
    """A script of a model stays one that can be started; what else its mode allowed is left behind."""
    if mode & stat.S_IXUSR:
        file.chmod(0o755)


def _parts(entry: zipfile.ZipInfo, source: Path) -> tuple[str, ...]:
    """Where an entry belongs, part by part; refuses what is no plain file below the archive's root."""
    name = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    outside = name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename
    if outside or not name.parts:
        raise ConfigurationError(f"{source}: {entry.filename!r} would be unpacked outside of the bundle")
    if kind not in (0, stat.S_IFREG):
        raise ConfigurationError(f"{source}: {entry.filename!r} is a link or a device; a bundle holds files alone")
    return name.parts


def _copy_exactly(packed: IO[bytes], file: IO[bytes], entry: zipfile.ZipInfo, source: Path) -> None:
    """Copy no more than the archive announced: the limit was checked against that."""
    left = entry.file_size
    while chunk := packed.read(1 << 20):
        left -= len(chunk)
        if left < 0:
            raise ConfigurationError(f"{source}: {entry.filename!r} is larger than the archive says")
        file.write(chunk)


def _check_amount(source: Path, files: int, size: int) -> None:
    if files > _MOST_FILES or size > _MOST_BYTES:
        raise ConfigurationError(
            f"{source}: holds {files} files of {size / 2**30:.1f} GiB in all; a bundle may have {_MOST_FILES} files "
            f"and {_MOST_BYTES >> 30} GiB"
        )


def _is_model(folder: Path) -> bool:
    return (folder / "configs" / "metadata.json").is_file() or is_program(folder, CARD)


def _root(target: Path, source: Path) -> Path:
    folders = [target, *sorted(path for path in target.iterdir() if path.is_dir())]
    found = [folder for folder in folders if _is_model(folder)]
    if not found:
        raise ConfigurationError(f"{source}: is no MONAI bundle: there is no configs/metadata.json in it")
    if len(found) > 1:
        raise ConfigurationError(f"{source}: holds {len(found)} bundles; add them one by one")
    return found[0]
