"""Crops: most of a CT is not the nodule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """Find the smallest box that holds every marked voxel; None when there is none.

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (a, b, c)
    """
    marked = np.flatnonzero(mask.any(axis=(1, 2)))
    if not marked.size:
        return None
    first, last = int(marked[0]), int(marked[-1]) + 1
    flat = np.any(mask[first:last], axis=0)
    rows, columns = np.flatnonzero(np.any(flat, axis=1)), np.flatnonzero(np.any(flat, axis=0))
    return (
        slice(first, last),
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )


def grown(box: Box, shape: tuple[int, ...], spacing_mm: tuple[float, ...], margin_mm: float) -> Box:
    """Grow a box by a margin on every side, as far as the volume goes.

    Parameters
    ----------
    box : three slices
    shape : (int, int, int)
        Of the volume.
    spacing_mm : (float, float, float)
        Between voxel centres.
    margin_mm : float
    """
    steps = [int(np.ceil(margin_mm / spacing)) for spacing in spacing_mm]
    low = [max(0, part.start - step) for part, step in zip(box, steps, strict=True)]
    high = [min(size, part.stop + step) for part, step, size in zip(box, steps, shape, strict=True)]
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def shifted(affine: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    """Give the affine of a crop.

    Parameters
    ----------
    affine : numpy.ndarray of float64, shape (4, 4)
        Of the volume: index to LPS, mm.
    box : three slices
        The crop.
    """
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.array([part.start for part in box], np.float64)
    return moved


def spacing_of(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Distances between voxel centres along the three axes of an array, in mm."""
    a, b, c = np.linalg.norm(affine[:3, :3], axis=0)
    return float(a), float(b), float(c)


def centre_mm(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Centre of what is marked, LPS in mm.

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (a, b, c)
        Not empty.
    affine : numpy.ndarray of float64, shape (4, 4)
        Index to LPS, mm.
    """
    index = np.argwhere(mask).mean(axis=0)
    x, y, z = affine[:3, :3] @ index + affine[:3, 3]
    return float(x), float(y), float(z)
