"""Reads MetaImage files (``.mhd`` with ``.raw`` or ``.zraw``, ``.mha``), the format of LUNA16: LPS, like ITK."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from ai.contract import Volume

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_metaimage(path: Path) -> Volume:
    """Read a three-dimensional image.

    Parameters
    ----------
    path : pathlib.Path
        The header (``.mhd``), or header and voxels in one (``.mha``).

    Returns
    -------
    Volume
        Its last dimension as slices, its first as columns.

    Raises
    ------
    ValueError
        If it has other than three dimensions or one channel, an unknown type, or too few voxels.
    """
    fields, rest = _header(path)
    kind = _TYPES.get(fields.get("ElementType", ""))
    if fields.get("NDims") != "3" or kind is None or fields.get("ElementNumberOfChannels", "1") != "1":
        raise ValueError(f"{path.name} is not a three-dimensional MetaImage of one channel that can be read here.")
    columns, rows, slices = (int(size) for size in fields["DimSize"].split())
    data = rest if fields["ElementDataFile"] == "LOCAL" else (path.parent / fields["ElementDataFile"]).read_bytes()
    if fields.get("CompressedData", "False").lower() == "true":
        data = zlib.decompress(data)
    order = ">" if fields.get("BinaryDataByteOrderMSB", "False").lower() == "true" else "<"
    if len(data) < columns * rows * slices * np.dtype(kind).itemsize:
        raise ValueError(f"{path.name} has fewer voxels than its header says.")
    voxels = np.frombuffer(data, dtype=order + kind, count=columns * rows * slices).reshape(slices, rows, columns)
    spacing = np.array([float(value) for value in fields["ElementSpacing"].split()])
    # The matrix lists the direction of the first, second and third index one after the other.
    directions = np.array([float(v) for v in fields.get("TransformMatrix", "1 0 0 0 1 0 0 0 1").split()]).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = (directions * spacing[:, None])[::-1].T
    affine[:3, 3] = [float(value) for value in (fields.get("Offset") or fields.get("Position") or "0 0 0").split()]
    return Volume(voxels.astype(np.float32), affine)


def _header(path: Path) -> tuple[dict[str, str], bytes]:
    """Lines of ``key = value`` up to ElementDataFile, which is the last, and what follows it."""
    fields: dict[str, str] = {}
    rest = path.read_bytes()
    while rest and "ElementDataFile" not in fields:
        line, _, rest = rest.partition(b"\n")
        key, _, value = line.decode("ascii", "replace").partition("=")
        fields[key.strip()] = value.strip()
    if "ElementDataFile" not in fields:
        raise ValueError(f"{path.name} is not a MetaImage header.")
    return fields, rest
