"""Brings a case to another grid: axes along the body, another voxel size, a box cut out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.contract import Volume
from ai.data.case import Case
from ai.data.classical import classical_lungs
from ai.regrid import to_grid

CROPS = ("none", "body", "lung")
_MARGIN_MM = 10.0
_COARSE_MM = 2.5
_BODY_HU = -500.0
_Spacing = tuple[float, float, float]


def straighten(case: Case) -> Case:
    """Permute and flip axes, no more, so that slices go up, rows to posterior and columns to left."""
    directions = case.volume.affine[:3, :3] / np.array(case.volume.spacing_mm)
    order = _nearest_axes(directions)
    flips = tuple(axis for axis in range(3) if directions[2 - axis, order[axis]] < 0)
    turn = np.eye(4)[:, [*order, 3]]
    for axis in flips:
        turn[:3, 3] += turn[:3, axis] * (case.volume.array.shape[order[axis]] - 1)
        turn[:3, axis] *= -1
    return _mapped(case, case.volume.affine @ turn, lambda array, _: np.flip(array.transpose(order), flips).copy())


def resample(case: Case, spacing_mm: _Spacing) -> Case:
    """Another voxel size over the same extent: images by linear interpolation, labels by the nearest voxel.

    MONAI's ``Spacingd``, with which bundles do it, does not smooth either before it takes fewer voxels; so training and
    inference see the same.
    """
    old = case.volume.array.shape
    scale = np.array(spacing_mm) / np.array(case.volume.spacing_mm)
    shape = tuple(max(1, round(n / s)) for n, s in zip(old, scale, strict=True))
    offset = (scale - 1) / 2  # the outer faces of both grids coincide
    step = np.eye(4)
    step[:3, :3] = np.diag(scale)
    step[:3, 3] = offset
    affine = case.volume.affine @ step

    def sampled(array: NDArray[np.generic], is_image: bool) -> NDArray[np.generic]:
        if is_image:
            return np.asarray(
                ndimage.affine_transform(array, scale, offset, output_shape=shape, order=1, mode="nearest")
            )
        labels: NDArray[np.generic] = to_grid(array[None], case.volume.affine, affine, shape)[0].copy()
        return labels

    return _mapped(case, affine, sampled)


def crop(case: Case, to: str, margin_mm: float = _MARGIN_MM) -> Case:
    """Cut out the box around the body or the lungs.

    Parameters
    ----------
    case : Case
        Straightened; for ``lung`` a CT of the chest.
    to : str
        One of `CROPS`.
    margin_mm : float
        Left on every side.

    Raises
    ------
    ValueError
        If the case has none, or there is no such way to crop.
    """
    if to not in CROPS:
        raise ValueError(f"There is no crop named {to!r}.")
    if to == "none":
        return case
    coarse = resample(replace(case, labels=None, instances=None), (_COARSE_MM,) * 3)
    inside = _body(coarse.volume) if to == "body" else classical_lungs(coarse.volume) > 0
    if not inside.any():
        raise ValueError(f"No {to} was found to crop {case.id} to.")
    spacing = np.array(case.volume.spacing_mm)
    corners = np.argwhere(inside)
    low = np.floor((corners.min(axis=0) * _COARSE_MM - margin_mm) / spacing).astype(int)
    high = np.ceil(((corners.max(axis=0) + 1) * _COARSE_MM + margin_mm) / spacing).astype(int)
    low, high = np.maximum(low, 0), np.minimum(high, case.volume.array.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    shift = np.eye(4)
    shift[:3, 3] = low
    return _mapped(case, case.volume.affine @ shift, lambda array, _: array[box].copy())


def _mapped(
    case: Case, affine: NDArray[np.float64], change: Callable[[NDArray[np.generic], bool], NDArray[np.generic]]
) -> Case:
    images = {
        name: Volume(np.asarray(change(volume.array, True), dtype=np.float32), affine, volume.modality)
        for name, volume in case.images.items()
    }
    labels, instances = (
        None if array is None else np.asarray(change(array, False), dtype=np.uint8)
        for array in (case.labels, case.instances)
    )
    return replace(case, images=images, labels=labels, instances=instances)


def _nearest_axes(directions: NDArray[np.float64]) -> tuple[int, int, int]:
    """Which array axis runs along z, y and x; the best fit is taken first, so that each is used once."""
    order = [-1, -1, -1]
    left = np.abs(directions[::-1]).copy()
    for _ in range(3):
        body, axis = np.unravel_index(int(np.argmax(left)), left.shape)
        order[int(body)] = int(axis)
        left[body, :] = left[:, axis] = -1
    return order[0], order[1], order[2]


def _body(volume: Volume) -> NDArray[np.bool_]:
    parts, count = ndimage.label(volume.array > (_BODY_HU if volume.modality == "CT" else 0))
    if not count:
        return np.zeros(volume.array.shape, dtype=np.bool_)
    return np.asarray(parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1, dtype=np.bool_)
