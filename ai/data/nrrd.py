"""Reads the plain NRRD files of the Chest Imaging Platform: three dimensions, raw or gzip, LPS."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TYPES = {"short": "i2", "unsigned short": "u2", "unsigned char": "u1", "uchar": "u1", "int": "i4", "float": "f4"}


def read_nrrd(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read one attached-header NRRD file.

    Parameters
    ----------
    path : pathlib.Path
        A file of NRRD0001 to NRRD0005 with three spatial axes in left-posterior-superior space.

    Returns
    -------
    array : numpy.ndarray of float32, shape (slices, rows, columns)
        NRRD lists its fastest axis first, so the axes are those of the file in reverse.
    affine : numpy.ndarray of float64, shape (4, 4)
        (slice, row, column) index to LPS mm at the voxel centre.

    Raises
    ------
    ValueError
        If the file uses a feature outside this small subset.
    """
    header, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(
        line.split(": ", 1) for line in header.decode("ascii").splitlines() if ": " in line and line[0] != "#"
    )
    if fields.get("space") != "left-posterior-superior" or fields.get("dimension") != "3":
        raise ValueError(f"{path.name}: not a three-dimensional LPS image.")
    if fields["type"] not in _TYPES or fields["encoding"] not in ("raw", "gzip"):
        raise ValueError(f"{path.name}: unsupported type {fields['type']!r} or encoding {fields['encoding']!r}.")
    columns, rows, slices = (int(size) for size in fields["sizes"].split())
    order = "<" if fields.get("endian", "little") == "little" else ">"
    raw = gzip.decompress(data) if fields["encoding"] == "gzip" else data
    array = np.frombuffer(raw, dtype=order + _TYPES[fields["type"]]).reshape(slices, rows, columns).astype(np.float32)
    along_columns, along_rows, along_slices = (_vector(text) for text in fields["space directions"].split())
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along_slices, along_rows, along_columns], axis=1)
    affine[:3, 3] = _vector(fields["space origin"])
    return array, affine


def _vector(text: str) -> NDArray[np.float64]:
    return np.array([float(part) for part in text.strip("()").split(",")])
