"""How much of a lung is opacified: ground glass dense enough, consolidation, atelectasis; vessels are taken out.

Attenuation from -500 to 100 HU, the "compromised" (poorly and non-aerated) lung of Lanza et al., Eur Radiol
2020;30:6770-8. Everything thinner than 6 mm is left out: vessels, walls of bronchi, fissures, the rim of the mask.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.measure.diameter import axial_axis
from ai.measure.region import box_of, spacing_of

OPACITY_HU = (-500.0, 100.0)
THICKNESS_MM = 6.0
_SAMPLED_MM = 1.5  # every n-th voxel is enough for a share


def opacified_percent(
    array: NDArray[np.float32],
    lung: NDArray[np.bool_],
    affine: NDArray[np.float64],
    without: NDArray[np.bool_] | None = None,
) -> float | None:
    """Measure the share of a lung that is opacified, in %.

    Parameters
    ----------
    array : numpy.ndarray of float32, shape (a, b, c)
        Hounsfield units.
    lung : numpy.ndarray of bool, shape (a, b, c)
        One lung. What it encloses on an axial slice is filled: an island of consolidation that the segmentation left
        out belongs to the lung. Consolidation that it left out at the chest wall is not found again.
    affine : numpy.ndarray of float64, shape (4, 4)
        Index to LPS, mm.
    without : numpy.ndarray of bool, shape (a, b, c), optional
        Not to be counted as opacified: nodules.

    Returns
    -------
    float or None
        None for an empty lung.
    """
    box = box_of(lung)
    if box is None:
        return None
    spacing_mm = spacing_of(affine)
    steps = [max(1, round(_SAMPLED_MM / spacing)) for spacing in spacing_mm]
    sampled = tuple(slice(part.start, part.stop, step) for part, step in zip(box, steps, strict=True))
    sampled_mm = tuple(spacing * step for spacing, step in zip(spacing_mm, steps, strict=True))
    filled = _filled(lung[sampled], axial_axis(affine))
    if not filled.any():
        return None
    values = array[sampled]
    dense = filled & (values >= OPACITY_HU[0]) & (values <= OPACITY_HU[1])
    if without is not None:
        dense &= ~without[sampled]
    thick = _opened(dense, sampled_mm, THICKNESS_MM / 2)
    return 100.0 * float(np.count_nonzero(thick)) / float(np.count_nonzero(filled))


def _filled(lung: NDArray[np.bool_], axis: int | None) -> NDArray[np.bool_]:
    if axis is None:
        return np.asarray(ndimage.binary_fill_holes(lung), np.bool_)
    planes = np.moveaxis(lung, axis, 0)
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in planes])
    return np.asarray(np.moveaxis(filled, 0, axis), np.bool_)


def _opened(mask: NDArray[np.bool_], spacing_mm: tuple[float, ...], radius_mm: float) -> NDArray[np.bool_]:
    """Take away what a ball of that radius does not fit into (morphological opening)."""
    core = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm) > radius_mm
    if not core.any():
        return np.zeros(mask.shape, np.bool_)
    near = ndimage.distance_transform_edt(~core, sampling=spacing_mm) <= radius_mm
    return np.asarray(near[1:-1, 1:-1, 1:-1] & mask, np.bool_)
