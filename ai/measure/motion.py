"""How far a registration moves what is in the body, and how much of it a field turns inside out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.contract import Registration
from ai.measure.plausible import look_at
from ai.measure.region import spacing_of

_SAMPLED_MM = 4.0
_SLAB = 8

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """The body in an image, on every n-th voxel."""

    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    steps: tuple[int, int, int] = (1, 1, 1)

    def values_of(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values of an image on the grid of the one that the body was found in; of all of it, where there is none."""
        sampled = array[:: self.steps[0], :: self.steps[1], :: self.steps[2]]
        return sampled[self.mask] if self.mask.any() else sampled.ravel()

    def at(self, places: Points) -> NDArray[np.bool_]:
        """Whether places of the patient, shape (..., 3), LPS in mm, are in it."""
        inverse = np.linalg.inv(self.affine)
        index = np.rint(places @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.int64)
        within = ((index >= 0) & (index < self.mask.shape)).all(axis=-1)
        k, j, i = np.moveaxis(np.where(within[..., None], index, 0), -1, 0)
        return np.asarray(within & self.mask[k, j, i], np.bool_)


@dataclass(frozen=True, slots=True)
class Motion:
    """How far what is in the body moves; `folded_percent` is None for a matrix, which folds nothing."""

    mean_mm: float
    largest_mm: float
    folded_percent: float | None


def body_in(array: NDArray[np.float32], affine: NDArray[np.float64], *, is_ct: bool) -> Inside:
    """Find the body: in CT all but the air around it, else what is brighter than the image on the whole.

    Parameters
    ----------
    array : numpy.ndarray of float32, shape (slices, rows, columns)
    affine : numpy.ndarray of float64, shape (4, 4)
        Index to LPS, mm.
    """
    k, j, i = (max(1, round(_SAMPLED_MM / spacing)) for spacing in spacing_of(affine))
    steps = k, j, i
    sampled = array[:: steps[0], :: steps[1], :: steps[2]]
    mask = look_at(array, affine).inside if is_ct else sampled > sampled.mean()
    return Inside(mask, affine @ np.diag([*steps, 1]), steps)


def motion_of(registration: Registration, body: Inside) -> Motion:
    """Measure a registration at the points of its field that lie in the body, or all over the body for a matrix.

    Where no point of a field is in the body, all of them count.
    """
    if registration.vectors is None or registration.affine is None:
        places = np.argwhere(body.mask) @ body.affine[:3, :3].T + body.affine[:3, 3]
        apart = _lengths(places, np.zeros(3), registration)
        return Motion(float(apart.mean()), float(apart.max(initial=0)), None) if len(apart) else Motion(0, 0, None)
    lengths, folds, inside = (np.concatenate(part) for part in zip(*_slabs(registration, body), strict=True))
    counted = inside if inside.any() else np.ones_like(inside)
    apart = lengths[counted]
    return Motion(float(apart.mean()), float(apart.max()), 100 * float(folds[counted].mean()))


def _slabs(
    registration: Registration, body: Inside
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]]:
    """Of a few slices of the field at once: how far, whether it folds there, and whether that is in the body."""
    vectors, affine = registration.vectors, registration.affine
    assert vectors is not None
    assert affine is not None
    rows, columns = np.indices(vectors.shape[1:3])
    for first in range(0, len(vectors), _SLAB):
        slab = vectors[first : first + _SLAB]
        index = np.stack([np.broadcast_arrays(n, rows, columns) for n in range(first, first + len(slab))])
        places = np.moveaxis(index, 1, -1) @ affine[:3, :3].T + affine[:3, 3]
        folds = _turned(vectors, first, first + len(slab), registration) <= 0
        yield _lengths(places, slab, registration).ravel(), folds.ravel(), body.at(places).ravel()


def _lengths(places: Points, vectors: NDArray[np.floating], registration: Registration) -> NDArray[np.float64]:
    matrix = registration.matrix
    found = (places + vectors) @ matrix[:3, :3].T + matrix[:3, 3]
    return np.asarray(np.linalg.norm(found - places, axis=-1), np.float64)


def _turned(vectors: NDArray[np.float32], start: int, end: int, registration: Registration) -> NDArray[np.float64]:
    """Determinant of the Jacobian at each point of some slices: 1 keeps volumes, 0 and less turns them inside out."""
    assert registration.affine is not None
    low, high = max(start - 1, 0), min(end + 1, len(vectors))
    some = vectors[low:high].astype(np.float64)
    steps = [np.gradient(some, axis=axis) if some.shape[axis] > 1 else np.zeros_like(some) for axis in range(3)]
    by_index = np.stack(steps, axis=-1)[start - low : end - low]  # (…, component, axis of the grid)
    jacobian = np.eye(3) + by_index @ np.linalg.inv(registration.affine[:3, :3])
    return np.asarray(np.linalg.det(jacobian) * np.linalg.det(registration.matrix[:3, :3]), np.float64)
