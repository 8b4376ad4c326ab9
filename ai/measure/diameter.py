"""Diameters of a nodule on the axial plane, as radiologists measure them.

The longest diameter is the longest distance between two points of the outline on any one axial slice; the short one is
the longest distance perpendicular to it, on the same slice (Bankier et al., Radiology 2017;285:584-600).

The outline is the level of one half in the mask of the slice, slightly smoothed. The corners of voxels would make a
disc about one voxel too large, the voxels' centres about half a voxel too small; a smoothed outline is off by 0.1 to
0.3 of a voxel on average for discs of 2 to 20 voxels in diameter (tests/unit/ai/test_measure.py holds it to that).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform
from skimage.measure import find_contours

AXIAL_DEGREES = 20.0  # how far the normal of a plane may lean from head-feet to count as axial
_SMOOTHING = 0.7  # voxels
_SMOOTHING_SMALL = 0.5
_SMALL, _TINY = 20, 5  # voxels on the slice: below them the smoothing, or any, would eat the nodule
_MANY = 400  # points of an outline, beyond which its convex hull is taken first

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Diameters:
    """The longest diameter on an axial slice and the longest one across it.

    Attributes
    ----------
    long_mm, short_mm : float
        Not rounded.
    plane : int
        Index of the slice, along the axis of the mask that runs head-feet.
    long_ends_mm, short_ends_mm : two points
        Where callipers would be set: LPS, mm.
    """

    long_mm: float
    short_mm: float
    plane: int
    long_ends_mm: tuple[Point, Point]
    short_ends_mm: tuple[Point, Point]

    @property
    def mean_mm(self) -> float:
        """Mean of both, not rounded."""
        return (self.long_mm + self.short_mm) / 2


def axial_axis(affine: NDArray[np.float64]) -> int | None:
    """Find the array axis that runs head-feet: planes across it are axial.

    Parameters
    ----------
    affine : numpy.ndarray of float64, shape (4, 4)
        Maps an index to LPS patient coordinates in mm.

    Returns
    -------
    int or None
        None when no axis lies within `AXIAL_DEGREES` of head-feet: an oblique volume has no axial slices.
    """
    steps = affine[:3, :3]
    leaning = np.abs(steps[2]) / np.linalg.norm(steps, axis=0)
    axis = int(np.argmax(leaning))
    return axis if leaning[axis] >= np.cos(np.radians(AXIAL_DEGREES)) else None


def axial_diameters(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> Diameters | None:
    """Measure the longest diameter on any axial slice, and the longest across it on that slice.

    Parts of a mask that do not touch on a slice are measured apart: a diameter never spans lung between two of them.

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (a, b, c)
        True inside the nodule; a crop around it is enough.
    affine : numpy.ndarray of float64, shape (4, 4)
        Maps an index of `mask` to LPS patient coordinates in mm.

    Returns
    -------
    Diameters or None
        None for an empty mask, and for a volume without axial slices.
    """
    axis = axial_axis(affine)
    if axis is None or not mask.any():
        return None
    planes = np.moveaxis(mask, axis, 0)
    in_plane = [other for other in range(3) if other != axis]
    spacing_mm = np.linalg.norm(affine[:3, in_plane], axis=0)
    best_mm, best_plane, best = 0.0, 0, np.empty((0, 2))
    for plane in _largest_first(planes):
        if _extent_mm(planes[plane], spacing_mm) <= best_mm:
            continue
        for outline in _outlines(planes[plane]):
            longest_mm = _farthest(outline * spacing_mm)[0]
            if longest_mm > best_mm:
                best_mm, best_plane, best = longest_mm, plane, outline
    return _across(best, spacing_mm, _Plane(affine, axis, best_plane))


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """One slice of a volume."""

    affine: NDArray[np.float64]
    axis: int
    number: int

    def point(self, place: NDArray[np.float64]) -> Point:
        """Turn an index on the slice into patient coordinates."""
        index = np.insert(place, self.axis, self.number)
        x, y, z = self.affine[:3, :3] @ index + self.affine[:3, 3]
        return float(x), float(y), float(z)


def _largest_first(planes: NDArray[np.bool_]) -> list[int]:
    areas = np.count_nonzero(planes, axis=(1, 2))
    return [int(plane) for plane in np.argsort(-areas, kind="stable") if areas[plane]]


def _extent_mm(plane: NDArray[np.bool_], spacing_mm: NDArray[np.float64]) -> float:
    """Diagonal of the box around everything on a slice: no diameter on it is longer."""
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    box = np.array([rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1])
    return float(np.linalg.norm(box * spacing_mm))


def _outlines(plane: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed outlines on one slice, in index coordinates of the slice."""
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    margin, corner = 4, np.array([rows[0], columns[0]])
    drawn = np.pad(plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], margin).astype(np.float64)
    voxels = np.count_nonzero(plane)
    sigma = 0.0 if voxels < _TINY else _SMOOTHING_SMALL if voxels < _SMALL else _SMOOTHING
    found = _level(ndimage.gaussian_filter(drawn, sigma)) or _level(drawn)  # lone voxels vanish when smoothed
    return [outline - margin + corner for outline in found]


def _level(drawn: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    found: list[NDArray[np.float64]] = find_contours(drawn, 0.5)  # type: ignore[no-untyped-call]
    return found


def _farthest(points_mm: NDArray[np.float64]) -> tuple[float, int, int]:
    """Distance and indices of the two points that lie farthest apart."""
    kept = np.arange(len(points_mm))
    if len(points_mm) > _MANY:
        kept = np.sort(ConvexHull(points_mm).vertices)
    apart = squareform(pdist(points_mm[kept]))
    first, second = np.unravel_index(int(apart.argmax()), apart.shape)
    return float(apart[first, second]), int(kept[first]), int(kept[second])


def _across(outline: NDArray[np.float64], spacing_mm: NDArray[np.float64], plane: _Plane) -> Diameters:
    """Find the longest chord across the longest diameter of one outline."""
    points_mm = outline * spacing_mm
    long_mm, first, second = _farthest(points_mm)
    along = (points_mm[second] - points_mm[first]) / long_mm
    across = np.array([-along[1], along[0]])
    place, low, high = _widest(points_mm @ along, points_mm @ across)
    ends = [(place * along + side * across) / spacing_mm for side in (low, high)]
    return Diameters(
        long_mm=long_mm,
        short_mm=high - low,
        plane=plane.number,
        long_ends_mm=(plane.point(outline[first]), plane.point(outline[second])),
        short_ends_mm=(plane.point(ends[0]), plane.point(ends[1])),
    )


def _widest(along: NDArray[np.float64], across: NDArray[np.float64]) -> tuple[float, float, float]:
    """Where a closed outline is widest: the place along the long diameter, and the two ends across it.

    The width changes linearly between corners of the outline, so that the widest place is at one of them.
    """
    a0, a1, b0, b1 = along[:-1], along[1:], across[:-1], across[1:]
    places = np.unique(along)
    widest = (float(places[0]), 0.0, 0.0)
    for place in places:
        hit = (np.minimum(a0, a1) <= place) & (place <= np.maximum(a0, a1))
        step = a1[hit] - a0[hit]
        share = np.divide(place - a0[hit], step, out=np.zeros_like(step), where=step != 0)
        sides = np.concatenate([b0[hit] + share * (b1[hit] - b0[hit]), b1[hit][step == 0]])
        if float(np.ptp(sides)) > widest[2] - widest[1]:
            widest = (float(place), float(sides.min()), float(sides.max()))
    return widest
