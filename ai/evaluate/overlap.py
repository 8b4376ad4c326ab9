"""Agreement of two masks: overlap, distance between their surfaces, volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a mask agrees with its reference.

    Parameters
    ----------
    dice : float
        Twice the common volume over the sum of both; 1 if both are empty.
    hd95_mm : float
        95th percentile of the distances between the two surfaces, both directions pooled; infinite if one is empty.
    volume_ml, reference_ml : float
        Volumes of the mask and of its reference.
    """

    dice: float
    hd95_mm: float
    volume_ml: float
    reference_ml: float


def agreement(
    mask: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> Agreement:
    """Compare a mask with its reference.

    Parameters
    ----------
    mask, reference : numpy.ndarray of bool, shape (slices, rows, columns)
        Both on one grid.
    spacing_mm : (float, float, float)
        Distances between voxel centres along the three axes.

    Returns
    -------
    Agreement
    """
    both, total = int((mask & reference).sum()), int(mask.sum()) + int(reference.sum())
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return Agreement(
        dice=2 * both / total if total else 1.0,
        hd95_mm=_hd95_mm(mask, reference, spacing_mm),
        volume_ml=int(mask.sum()) * voxel_ml,
        reference_ml=int(reference.sum()) * voxel_ml,
    )


def _hd95_mm(mask: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> float:
    if not mask.any() or not reference.any():
        return 0.0 if mask.any() == reference.any() else float("inf")
    box = ndimage.find_objects((mask | reference).astype(np.uint8))[0]
    surfaces = [part[box] & ~ndimage.binary_erosion(part[box], border_value=0) for part in (mask, reference)]
    away = [ndimage.distance_transform_edt(~surface, sampling=spacing_mm) for surface in surfaces]
    distances = np.concatenate([away[1][surfaces[0]], away[0][surfaces[1]]])
    return float(np.percentile(distances, 95))
