"""Second opinions: decoders and readers that share no code with ours."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import highdicom as hd
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.peers.missing import need

_DCMTK = {  # transfer syntax -> the program of dcmtk that undoes it
    "1.2.840.10008.1.2.5": "dcmdrle",
    **dict.fromkeys(("50", "51", "53", "55", "57", "70"), "dcmdjpeg"),
    **dict.fromkeys(("80", "81"), "dcmdjpls"),
}
_WAVELETS = {"90", "91", "201", "202", "203"}


def second_values(path: Path) -> tuple[str, NDArray[Any]]:
    """Decode the first frame of a file; the name of who did it, and the stored values.

    Raises
    ------
    Exception
        If nobody can.
    """
    ds = dcmread(path)
    syntax = str(ds.file_meta.TransferSyntaxUID)
    short = syntax.removeprefix("1.2.840.10008.1.2.4.")
    if short in _WAVELETS:
        frame = next(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1)))
        decode = imagecodecs.jpeg2k_decode if short in ("90", "91") else imagecodecs.htj2k_decode
        return "imagecodecs", _typed(decode(frame), ds)
    if syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        several = int(ds.get("NumberOfFrames") or 1) > 1
        return "pydicom", _typed(pixel_array(ds, raw=True, index=0 if several else None), ds)
    with TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.dcm"
        program = _DCMTK.get(syntax) or _DCMTK.get(short) or "dcmconv"
        options = ["+te"] if program == "dcmconv" else []
        done = subprocess.run([need(program), *options, path, plain], capture_output=True, check=False, timeout=60)
        if done.returncode:
            told = done.stderr.decode(errors="replace").strip().splitlines()
            raise ValueError(f"dcmtk: {told[-1] if told else done.returncode}")
        return "dcmtk", _raw(dcmread(plain))


def _raw(ds: Dataset) -> NDArray[Any]:
    """Read little-endian stored values as they stand in the file."""
    size, samples = int(ds.BitsAllocated) // 8, int(ds.SamplesPerPixel)
    count = int(ds.Rows) * int(ds.Columns) * samples
    values = np.frombuffer(ds.PixelData, f"<u{size}", count)
    shape = (int(ds.Rows), int(ds.Columns), samples)[: 3 if samples > 1 else 2]
    if samples > 1 and ds.get("PlanarConfiguration") == 1:
        return np.moveaxis(values.reshape(samples, *shape[:2]), 0, -1)
    return _typed(values.reshape(shape), ds)


def _typed(values: NDArray[Any], ds: Dataset) -> NDArray[Any]:
    stored = min(int(ds.BitsStored), values.dtype.itemsize * 8)
    wide = values.astype(np.int64) & ((1 << stored) - 1)
    return np.where(wide >> (stored - 1) & 1, wide - (1 << stored), wide) if ds.PixelRepresentation else wide


def second_volume(paths: Sequence[Path]) -> hd.Volume:
    """Read a volume with highdicom: rescaled values, and where they lie (LPS, mm)."""
    datasets = [dcmread(path) for path in paths]
    if len(datasets) == 1:
        return hd.Image.from_dataset(datasets[0]).get_volume(atol=0.1, apply_real_world_transform=False)
    return hd.get_volume_from_series(datasets, atol=0.1, apply_real_world_transform=False)
