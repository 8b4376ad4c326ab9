"""The ways to scan one chest among which a model should not mind the difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.contract import Volume
from ai.data.case import Case

_TURN_DEGREES = 15.0
_AIR_HU = -1000.0


def _as_it_is(case: Case) -> Case:
    return case


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to scan.

    Parameters
    ----------
    name : str
        As the table shows it.
    plan : mapping of str to Any
        What differs from the reference's `ai.phantom.scanner.ScannerPlan`.
    change : callable
        What becomes of the scan afterwards; truth and image change together.
    """

    name: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[Case], Case] = _as_it_is


def conditions() -> tuple[Condition, ...]:
    """The ways to scan; the first is the one that the others differ from."""
    return (
        Condition("reference: standard kernel, 1.25 mm, 20 HU"),
        Condition("noise 8 HU", {"noise_hu": 8.0}),
        Condition("noise 40 HU", {"noise_hu": 40.0}),
        Condition("noise 70 HU", {"noise_hu": 70.0}),
        Condition("soft kernel", {"kernel": "soft"}),
        Condition("sharp kernel", {"kernel": "sharp"}),
        Condition("slices of 2.5 mm", {"thickness_mm": 2.5}, lambda case: thinned(case, 2)),
        Condition("slices of 5 mm", {"thickness_mm": 5.0}, lambda case: thinned(case, 4)),
        Condition("breathing of 5 mm", {"breathing_mm": 5.0}),
        Condition("stored as coronal slices, feet last", change=coronal),
        Condition("patient turned by 15°", change=turned),
    )


def thinned(case: Case, every: int) -> Case:
    """Keep every n-th slice."""
    return _regridded(case, lambda array: array[::every], [every, 1, 1], [0, 0, 0])


def coronal(case: Case) -> Case:
    """The same voxels stored as coronal slices, from behind to the front, head first in each."""
    slices, rows, _ = case.volume.array.shape
    flipped = _regridded(case, lambda array: array[::-1, ::-1], [-1, -1, 1], [slices - 1, rows - 1, 0])
    volume = flipped.volume
    swapped = Volume(np.ascontiguousarray(volume.array.transpose(1, 0, 2)), volume.affine[:, [1, 0, 2, 3]])
    labels, instances = (
        None if array is None else np.ascontiguousarray(array.transpose(1, 0, 2))
        for array in (flipped.labels, flipped.instances)
    )
    return replace(flipped, images={"ct": swapped}, labels=labels, instances=instances)


def turned(case: Case) -> Case:
    """The patient rolled about the long axis: voxels interpolated linearly, which takes some noise away."""
    volume = case.volume
    angle = np.deg2rad(_TURN_DEGREES)
    roll = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (np.array(volume.array.shape[1:]) - 1) / 2
    matrix = np.eye(3)
    matrix[1:, 1:] = roll.T  # where a voxel of the turned image comes from
    offset = np.array([0.0, *(middle - roll.T @ middle)])

    def roll_of(array: NDArray[Any], order: int, outside: float) -> NDArray[Any]:
        return np.asarray(ndimage.affine_transform(array, matrix, offset, order=order, cval=outside))

    to_index = np.linalg.inv(volume.affine)

    def moved(centre_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        index = (to_index @ np.append(centre_mm, 1.0))[:3]
        index[1:] = roll @ (index[1:] - middle) + middle
        x, y, z = (volume.affine @ np.append(index, 1.0))[:3]
        return float(x), float(y), float(z)

    return replace(
        case,
        images={"ct": Volume(roll_of(volume.array, 1, _AIR_HU), volume.affine)},
        labels=None if case.labels is None else roll_of(case.labels, 0, 0),
        instances=None if case.instances is None else roll_of(case.instances, 0, 0),
        nodules=tuple(replace(nodule, centre_mm=moved(nodule.centre_mm)) for nodule in case.nodules),
    )


def _regridded(
    case: Case, cut: Callable[[NDArray[Any]], NDArray[Any]], steps: Sequence[int], first: Sequence[int]
) -> Case:
    """The voxels that `cut` takes: from index `first` on, `steps` apart along each axis."""
    affine = case.volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(first, dtype=np.float64)
    affine[:3, :3] *= np.array(steps, dtype=np.float64)
    labels, instances = (
        None if array is None else np.ascontiguousarray(cut(array)) for array in (case.labels, case.instances)
    )
    image = np.ascontiguousarray(cut(case.volume.array))
    return replace(case, images={"ct": Volume(image, affine)}, labels=labels, instances=instances)
