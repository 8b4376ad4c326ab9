"""Where a nodule lies in the lungs: how far from their surface, at what height."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.measure.region import Box, grown, shifted, spacing_of

_CLOSING_MM = 5.0  # vessels and small gaps within a lung are no surface
_FIRST_LOOK_MM = 8.0
FARTHEST_MM = 80.0  # no point of a lung lies deeper in it
_MOST_VOXELS = 400_000  # looked at at once; farther than the first look every second or third voxel does


class Third(StrEnum):
    """A third of the height of a lung. It is no lobe: fissures run obliquely."""

    UPPER = "upper"
    MIDDLE = "middle"
    LOWER = "lower"


def third_of(height_mm: float, low_mm: float, high_mm: float) -> Third:
    """Say in which third of the height of a lung a point lies.

    Parameters
    ----------
    height_mm : float
        The third coordinate of the point, LPS.
    low_mm, high_mm : float
        Those of the lowest and the highest voxel of the lung.
    """
    share = (height_mm - low_mm) / max(high_mm - low_mm, 1e-6)
    return Third.LOWER if share < 1 / 3 else Third.MIDDLE if share < 2 / 3 else Third.UPPER


def heights_mm(shape: tuple[int, ...], affine: NDArray[np.float64]) -> tuple[float, float]:
    """Find the lowest and the highest voxel of a crop, along the third coordinate of LPS.

    Parameters
    ----------
    shape : (int, int, int)
        Of the crop, none of them 0.
    affine : numpy.ndarray of float64, shape (4, 4)
        Index of the crop to LPS, mm.
    """
    steps = affine[2, :3] * (np.array(shape) - 1)
    return float(affine[2, 3] + np.minimum(steps, 0).sum()), float(affine[2, 3] + np.maximum(steps, 0).sum())


def overlap(
    nodule: NDArray[np.bool_], organ: NDArray[np.bool_], affine: NDArray[np.float64], box: Box, reach_mm: float
) -> int:
    """Count the voxels of an organ in and within `reach_mm` around a nodule: segmentations often leave nodules out.

    Parameters
    ----------
    nodule, organ : numpy.ndarray of bool, shape (a, b, c)
        On one grid.
    affine : numpy.ndarray of float64, shape (4, 4)
        Index to LPS, mm.
    box : three slices
        Holds all of the nodule.
    reach_mm : float
    """
    spacing_mm = spacing_of(affine)
    around = grown(box, nodule.shape, spacing_mm, reach_mm)
    near = ndimage.distance_transform_edt(~nodule[around], sampling=spacing_mm) <= reach_mm
    return int(np.count_nonzero(near & organ[around]))


def surface_distance_mm(
    nodule: NDArray[np.bool_], lung: NDArray[np.bool_], affine: NDArray[np.float64], box: Box
) -> float | None:
    """Measure from the nodule to the surface of its lung: the least distance to what is neither.

    The surface is that of lung and nodule together, after closing gaps of up to 10 mm: the chest wall, the mediastinum,
    the diaphragm. Fissures are not seen. Exact to about a voxel up to 8 mm, to 2 mm beyond.

    Parameters
    ----------
    nodule, lung : numpy.ndarray of bool, shape (a, b, c)
        On one grid; the nodule is not empty.
    affine : numpy.ndarray of float64, shape (4, 4)
        Index to LPS, mm.
    box : three slices
        Holds all of the nodule.

    Returns
    -------
    float or None
        0 where the nodule touches the surface; None when the scan shows no surface near it.
    """
    spacing_mm = spacing_of(affine)
    margin_mm = _FIRST_LOOK_MM
    while True:
        around = grown(box, nodule.shape, spacing_mm, margin_mm + _CLOSING_MM)
        found = _distance_mm(nodule[around], lung[around], shifted(affine, around))
        whole = all(part.start == 0 and part.stop == size for part, size in zip(around, nodule.shape, strict=True))
        if (found is not None and found <= margin_mm) or whole:
            return found
        margin_mm *= 3


def _distance_mm(nodule: NDArray[np.bool_], lung: NDArray[np.bool_], affine: NDArray[np.float64]) -> float | None:
    step = max(1, int(np.ceil((nodule.size / _MOST_VOXELS) ** (1 / 3))))
    nodule, lung = _coarse(nodule, step), lung[::step, ::step, ::step]
    spacing_mm = tuple(step * spacing for spacing in spacing_of(affine))
    outside = ~closed(nodule | lung, spacing_mm, _CLOSING_MM)
    if not outside.any():
        return None
    to_outside = ndimage.distance_transform_edt(~outside, sampling=spacing_mm)
    return max(0.0, float(to_outside[nodule].min()) - min(spacing_mm))


def _coarse(mask: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    """Take every n-th voxel; what is too small to be hit by any keeps the ones it lies next to."""
    coarse = mask[::step, ::step, ::step].copy()
    if not coarse.any():
        coarse[tuple(np.argwhere(mask).T // step)] = True
    return coarse


def closed(mask: NDArray[np.bool_], spacing_mm: tuple[float, ...], radius_mm: float) -> NDArray[np.bool_]:
    """Close gaps and dents narrower than twice `radius_mm`, as a ball of that radius would (morphological closing).

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (a, b, c)
    spacing_mm : (float, float, float)
    radius_mm : float
        What reaches the border of the array is taken to go on beyond it.
    """
    pad = [(int(np.ceil(radius_mm / spacing)) + 1,) * 2 for spacing in spacing_mm]
    wide = np.pad(mask, pad, mode="edge")
    near = ndimage.distance_transform_edt(~wide, sampling=spacing_mm) <= radius_mm
    inside = ndimage.distance_transform_edt(near, sampling=spacing_mm) > radius_mm
    kept = tuple(slice(low, size - high) for (low, high), size in zip(pad, wide.shape, strict=True))
    return np.asarray(inside[kept] | mask, np.bool_)
