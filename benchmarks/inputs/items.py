"""The inputs: files, archives and folders, each laid out as a folder of files to be sent together."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from pydicom import dcmread

_TOGETHER = ("ct-3slice", "image", "source_images_CT2")  # folders that hold one series
_ENCODER = re.compile(r"CTImage\S*?_(?=1\.2\.840)")  # names of one slice in many transfer syntaxes: the UID says it
_NO_DICOM = (".json", ".xml", ".nrrd", ".txt", ".md", ".sha256", ".toml")


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the table: its name, its files, and the series that they belong to."""

    name: str
    files: tuple[Path, ...]
    series: frozenset[str]


def items_in(root: Path, parts: list[str], scratch: Path) -> Iterator[Item]:
    """Lay out everything below some folders of `root`."""
    for part in parts:
        seen: set[Path] = set()
        for path in sorted(p for p in (root / part).rglob("*") if p.is_file() and p.suffix not in _NO_DICOM):
            if path.parent.name in _TOGETHER:
                if path.parent in seen:
                    continue
                seen.add(path.parent)
                path = path.parent
            name = str(path.relative_to(root))
            files = tuple(_laid_out(path, scratch / name))
            yield Item(_ENCODER.sub("", name), files, frozenset(map(_series_of, files)))


def _laid_out(path: Path, place: Path) -> Iterator[Path]:
    place.mkdir(parents=True)
    if path.is_dir():
        for file in sorted(path.iterdir()):
            yield Path(shutil.copy(file, place / file.name))
    elif path.suffix == ".zip":
        with ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.endswith(_NO_DICOM)]
            for number, name in enumerate(names):
                target = place / f"{number:04d}.dcm"
                target.write_bytes(archive.read(name))
                yield target
    else:
        target = place / "0000.dcm"
        target.write_bytes(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
        yield target


def _series_of(path: Path) -> str:
    try:
        return str(dcmread(path, force=True, stop_before_pixels=True).SeriesInstanceUID)
    except Exception:  # noqa: BLE001 - what cannot be parsed here is sent all the same
        return str(path)
