"""Attenuation of what was marked: means, extremes, the solid part of a part-solid nodule, the density of a lung."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SOLID_HU = -300.0  # Scholten et al., Eur Radiol 2015;25:488-96: sensitivity 90 %, specificity 88 % for a solid part
EMPHYSEMA_HU = -950.0  # Gevenois et al., Am J Respir Crit Care Med 1996;154:187-92
_ANY_NEIGHBOUR = np.ones((3, 3, 3), np.bool_)


@dataclass(frozen=True, slots=True)
class LungDensity:
    """Density of one lung.

    Attributes
    ----------
    mean_hu : float
        Mean attenuation.
    emphysema_percent : float
        LAA-950: share of the voxels below -950 HU, in %.
    percentile_15_hu : float
        PD15: 15 % of the voxels lie below it. In g/l it is this plus 1000.
    """

    mean_hu: float
    emphysema_percent: float
    percentile_15_hu: float


def lung_density(values: NDArray[np.float32]) -> LungDensity | None:
    """Measure the density of a lung.

    Parameters
    ----------
    values : numpy.ndarray of float32, shape (n,)
        Hounsfield units of every voxel that counts as lung. Air in bronchi counts, nodules should not: leave them out.

    Returns
    -------
    LungDensity or None
        None without voxels.
    """
    if not values.size:
        return None
    return LungDensity(
        mean_hu=float(values.mean(dtype=np.float64)),
        emphysema_percent=100.0 * float(np.count_nonzero(values < EMPHYSEMA_HU)) / values.size,
        percentile_15_hu=float(np.percentile(values, 15)),
    )


def solid_part(
    array: NDArray[np.float32], mask: NDArray[np.bool_], threshold_hu: float = SOLID_HU
) -> NDArray[np.bool_]:
    """Find the solid part of a nodule: its largest connected piece of at least `threshold_hu`.

    Parameters
    ----------
    array : numpy.ndarray of float32, shape (a, b, c)
        Hounsfield units; a crop around the nodule is enough.
    mask : numpy.ndarray of bool, shape (a, b, c)
        The nodule.
    threshold_hu : float
        Where solid begins.

    Returns
    -------
    numpy.ndarray of bool, shape (a, b, c)
        All False when nothing of the nodule is solid. A vessel through a ground-glass nodule counts as solid.
    """
    labels, count = ndimage.label(mask & (array >= threshold_hu), _ANY_NEIGHBOUR)
    if not count:
        return np.zeros(mask.shape, np.bool_)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == int(sizes.argmax()), np.bool_)
