"""Puts nodule patches into lungs, with a soft edge: the lung's own vessels and noise go on around the nodule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.synthesise.patches import ATTENUATIONS, PatchSet

_EDGE_MM = 1.5


@dataclass(frozen=True, slots=True)
class Pasted:
    """One nodule that was put into a scan.

    Parameters
    ----------
    label : int
        Its value in the label map.
    attenuation : str
        One of `ai.synthesise.patches.ATTENUATIONS`.
    diameter_mm : float
        Diameter of the ball of its volume.
    centre : (float, float, float)
        Middle of its mask, as (slice, row, column) index.
    """

    label: int
    attenuation: str
    diameter_mm: float
    centre: tuple[float, float, float]


def paste_nodules(
    hu: NDArray[np.float32],
    lungs: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    patches: PatchSet,
    count: int,
    rng: np.random.Generator,
    *,
    occupied: NDArray[np.integer] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8], list[Pasted]]:
    """Put nodules where there is lung and no nodule yet.

    Parameters
    ----------
    hu : numpy.ndarray of float32, shape (slices, rows, columns)
        The scan, in Hounsfield units. Not changed.
    lungs : numpy.ndarray of bool, same shape
        Where lung is.
    spacing_mm : (float, float, float)
        Distances between voxel centres along the three axes.
    patches : PatchSet
        Taken at random, each turned by one of the cube's 48 symmetries.
    count : int
        Nodules wanted.
    rng : numpy.random.Generator
        Decides everything.
    occupied : numpy.ndarray of int, same shape, optional
        Not 0 where nodules are already: their values are kept and new ones counted on from the largest.

    Returns
    -------
    hu : numpy.ndarray of float32
    labels : numpy.ndarray of uint8
        n in the n-th nodule.
    pasted : list of Pasted
        Fewer than `count` where the lungs have no more room.
    """
    scan = hu.copy()
    labels = np.zeros(hu.shape, dtype=np.uint8) if occupied is None else occupied.astype(np.uint8)
    depth_mm = ndimage.distance_transform_edt(lungs & (labels == 0), sampling=spacing_mm).astype(np.float32)
    pasted: list[Pasted] = []
    for _ in range(count if len(patches) else 0):
        patch = patches.only([int(rng.integers(len(patches)))])
        cube, mask = _turned(patch.hu[0], patch.masks[0], rng)
        cube, mask = _resampled(cube, mask, patch.spacing_mm, spacing_mm)
        radius_mm = float(patch.diameters_mm[0]) / 2
        deep = np.flatnonzero(depth_mm > radius_mm + _EDGE_MM)
        if not len(deep) or not mask.any() or labels.max() == 255:
            continue
        at = np.unravel_index(int(deep[rng.integers(len(deep))]), hu.shape)
        where, of_cube = _overlap(at, mask, hu.shape)
        value = int(labels.max()) + 1
        if _blend(scan, labels, lungs, where, cube[of_cube], mask[of_cube], spacing_mm, value):
            centre = np.argwhere(labels == value).mean(axis=0)
            voxel_mm3 = float(np.prod(spacing_mm))
            diameter = float(np.cbrt(6 / np.pi * (labels == value).sum() * voxel_mm3))
            name = ATTENUATIONS[int(patch.attenuation[0])]
            pasted.append(Pasted(value, name, diameter, (float(centre[0]), float(centre[1]), float(centre[2]))))
            gone = ndimage.distance_transform_edt(labels != value, sampling=spacing_mm)
            depth_mm = np.minimum(depth_mm, gone.astype(np.float32))
    return scan, labels, pasted


def _turned(
    cube: NDArray[np.float16], mask: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    order = rng.permutation(3)
    mirrored = tuple(axis for axis in range(3) if rng.random() < 0.5)
    turned = np.flip(cube.transpose(order), mirrored).astype(np.float32)
    return turned, np.flip(mask.transpose(order), mirrored) > 0


def _resampled(
    cube: NDArray[np.float32], mask: NDArray[np.bool_], own_mm: float, spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Bring a patch to the scan's voxels."""
    zoom = [own_mm / step for step in spacing_mm]
    if np.allclose(zoom, 1.0, atol=1e-3):
        return cube, mask
    fine = ndimage.zoom(cube, zoom, order=1, mode="nearest", grid_mode=True)
    inside = ndimage.zoom(mask.astype(np.float32), zoom, order=1, mode="nearest", grid_mode=True) > 0.5
    return fine.astype(np.float32), inside


def _overlap(
    at: tuple[np.intp, ...], mask: NDArray[np.bool_], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where the patch lies in the scan when the middle of its mask is put at `at`, and which part of it does."""
    found = np.argwhere(mask)
    middle = np.rint((found.min(axis=0) + found.max(axis=0)) / 2).astype(int)
    where, of_cube = [], []
    for axis in range(3):
        first = int(at[axis]) - int(middle[axis])
        begin, end = max(0, first), min(shape[axis], first + mask.shape[axis])
        where.append(slice(begin, end))
        of_cube.append(slice(begin - first, end - first))
    return tuple(where), tuple(of_cube)


def _blend(
    scan: NDArray[np.float32],
    labels: NDArray[np.uint8],
    lungs: NDArray[np.bool_],
    where: tuple[slice, ...],
    cube: NDArray[np.float32],
    mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    value: int,
) -> bool:
    """Mix the patch into the scan: all of it in the nodule, none of it from `_EDGE_MM` outside on.

    Only lung is changed. In the edge the denser of patch and lung is taken, so that a vessel that runs into the nodule
    still does.
    """
    inside = mask & lungs[where] & (labels[where] == 0)
    if not inside.any():
        return False
    away_mm = ndimage.distance_transform_edt(~inside, sampling=spacing_mm)
    share = np.clip(1 - away_mm / _EDGE_MM, 0, 1) * (lungs[where] & (labels[where] == 0))
    old = scan[where]
    mixed = old * (1 - share) + cube * share
    scan[where] = np.where(inside, mixed, np.maximum(old, mixed)).astype(np.float32)
    labels[where][inside] = value
    return True
