"""Read 300 slices into a volume of rescaled values, with ours and with others, in turn; docs/inputs.md has the figures.

    python -m benchmarks.reading

Ours checks the digest of every file and proves the geometry; pydicom and SimpleITK, which reads with GDCM, do neither.
Every volume has to be the same, voxel by voxel. What counts is the median of some rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import dcmread

from dicom_node.spool import Spool
from dicom_node.volume import load_volume
from tests.ct import small_ct
from tests.stored import spool_files

_PIXELS = 2 * 512 * 512
Read = Callable[[], NDArray[Any]]


def main() -> None:
    """Write a series, read it round after round, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        plain = small_ct(Path(folder) / "plain", slices=given.slices, rows=512, columns=512, spacing_mm=(1, 0.7, 0.7))
        lossless = [Path(folder) / "lossless" / path.name for path in plain]
        lossless[0].parent.mkdir()
        for source, target in zip(plain, lossless, strict=True):
            subprocess.run(["dcmcjpeg", "+e1", source, target], check=True)
        print(f"{os.cpu_count()} processors, {given.slices} slices of 512 x 512; seconds, and seconds of a processor")
        for name, paths in (("Explicit VR Little Endian", plain), ("JPEG Lossless, first-order prediction", lossless)):
            print(f"\n{name}")
            _compare(_readers(paths, Path(folder) / f"spool-{name[:4]}"), given.rounds)


def _readers(paths: list[Path], folder: Path) -> dict[str, Read]:
    spool = Spool(folder, reserve_mib=0)
    spool.prepare()
    instances = spool_files(spool, paths)
    is_plain = paths[0].stat().st_size > _PIXELS
    return ({"bytes alone": lambda: _bytes_alone(paths)} if is_plain else {}) | {
        "dicom-node": lambda: load_volume(spool, instances).array,
        "its slow way": lambda: load_volume(spool, instances, plain=False).array,
        "pydicom": lambda: np.stack([_rescaled(path) for path in paths]),
        "SimpleITK (GDCM)": lambda: _itk(paths),
    }


def _bytes_alone(paths: list[Path]) -> NDArray[np.float32]:
    """Do what cannot be left out of it: read files, find nothing, check nothing, and make numbers of the last bytes."""
    volume = np.empty((len(paths), 512, 512), np.float32)
    buffer = bytearray(2 * _PIXELS)  # the same for all: memory that is fresh each time costs more than the reading
    for place, path in zip(volume, paths, strict=True):
        with path.open("rb", buffering=0) as file:
            length = file.readinto(buffer)
        stored = np.frombuffer(buffer, "<u2", 512 * 512, length - _PIXELS).reshape(512, 512)
        np.add(stored, np.float32(-1024), out=place)
    return volume


def _rescaled(path: Path) -> NDArray[np.float32]:
    ds = dcmread(path)
    values: NDArray[np.float32] = ds.pixel_array.astype(np.float32)
    return values * np.float32(ds.RescaleSlope) + np.float32(ds.RescaleIntercept)


def _itk(paths: list[Path]) -> NDArray[Any]:
    itk: Any = sitk
    reader = itk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    return np.asarray(itk.GetArrayFromImage(reader.Execute()))


def _compare(readers: dict[str, Read], rounds: int) -> None:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(rounds):
        first: NDArray[Any] | None = None
        for name, read in readers.items():
            wall, processor = time.perf_counter(), time.process_time()
            volume = read()
            taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
            first = volume if first is None else first
            assert np.array_equal(volume, first), name
    for name, seconds in taken.items():
        wall, processor = (statistics.median(values) for values in zip(*seconds, strict=True))
        print(f"  {name:18} {wall:6.2f} {processor:6.2f}")


if __name__ == "__main__":
    main()
