"""Agreement of two masks: overlap, distance between their surfaces, volume. Distances are computed by MONAI."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

from ai.evaluate.bootstrap import RESAMPLES, Interval, bootstrap

TOLERANCE_MM = 2.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a mask agrees with its reference.

    Parameters
    ----------
    dice : float
        Twice the common volume over the sum of both; 1 if both are empty.
    iou : float
        The common volume over that of the union (Jaccard); 1 if both are empty.
    hd95_mm : float
        The larger of the two directions' 95th percentiles of surface distance; infinite if one mask is empty.
    surface_dice : float
        Share of both surfaces, by area, that lies within `tolerance_mm` of the other (Nikolov et al., J Med Internet
        Res 2021;23:e26151); 0 if one mask is empty.
    tolerance_mm : float
        That distance.
    volume_ml, reference_ml : float
        Volumes of the mask and of its reference.
    """

    dice: float
    iou: float
    hd95_mm: float
    surface_dice: float
    tolerance_mm: float
    volume_ml: float
    reference_ml: float


def agreement(
    mask: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float = TOLERANCE_MM,
) -> Agreement:
    """Compare a mask with its reference.

    Parameters
    ----------
    mask, reference : numpy.ndarray of bool, shape (slices, rows, columns)
        Both on one grid.
    spacing_mm : (float, float, float)
        Distances between voxel centres along the three axes.
    tolerance_mm : float
        For the surface Dice.

    Returns
    -------
    Agreement
    """
    first, second = int(mask.sum()), int(reference.sum())
    both = int((mask & reference).sum())
    hd95_mm, surface_dice = _surfaces(mask, reference, spacing_mm, tolerance_mm)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return Agreement(
        dice=2 * both / (first + second) if first + second else 1.0,
        iou=both / (first + second - both) if first + second else 1.0,
        hd95_mm=hd95_mm,
        surface_dice=surface_dice,
        tolerance_mm=tolerance_mm,
        volume_ml=first * voxel_ml,
        reference_ml=second * voxel_ml,
    )


def mean_over_scans(
    values: Sequence[float], scans: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean of figures, with a bootstrap interval in which the figures of one scan are drawn together.

    Parameters
    ----------
    values : sequence of float
        One for each mask that was judged.
    scans : sequence of str
        The scan that each belongs to.
    resamples, seed : int
        See `bootstrap`.
    """
    array = np.asarray(values, dtype=np.float64)
    which = np.unique(list(scans), return_inverse=True)[1]
    if not len(array):
        return Interval(np.nan, np.nan, np.nan)

    def mean(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([np.average(array, weights=drawn[which])])

    return bootstrap(mean, int(which.max()) + 1, resamples=resamples, seed=seed)[0]


def _surfaces(
    mask: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: tuple[float, float, float], tolerance_mm: float
) -> tuple[float, float]:
    if not mask.any() or not reference.any():
        return (0.0, 1.0) if mask.any() == reference.any() else (float("inf"), 0.0)
    box = ndimage.find_objects((mask | reference).astype(np.uint8))[0]
    one, other = (torch.from_numpy(part[box].copy())[None, None] for part in (mask, reference))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of an argument that it passes itself
        farthest = compute_hausdorff_distance(one, other, include_background=True, percentile=95, spacing=spacing_mm)
        near = compute_surface_dice(
            one, other, [tolerance_mm], include_background=True, spacing=spacing_mm, use_subvoxels=True
        )
    return float(farthest), float(near)
