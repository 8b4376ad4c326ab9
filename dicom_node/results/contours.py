"""Masks as outlines, and outlines as masks, in the pixels of one slice.

An outline runs half-way between the centres of marked and unmarked pixels (marching squares), clockwise around what is
marked. Centres lie at whole numbers and never on an outline: whoever asks which centres it encloses gets the mask back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.measure import find_contours

from dicom_node.results.analysis import Crop

Ring = NDArray[np.float64]  # shape (points, 2): row and column; closed, the first point is not repeated

_BRIDGE = 0.25  # of a pixel below the row of a hole's rightmost point: a bridge touches no centre of a pixel


def rings(mask: NDArray[np.bool_]) -> list[Ring]:
    """Outline every island and every hole of a mask.

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (rows, columns)
        Pixels that touch at a corner alone belong to different islands.

    Returns
    -------
    list of numpy.ndarray of float64, shape (points, 2)
        Row and column of each point. Islands and holes turn in opposite ways, see `is_hole`.
    """
    padded = np.pad(mask, 1).astype(np.float64)
    return [ring[:-1] - 1 for ring in _found(padded)]


def _found(padded: NDArray[np.float64]) -> list[Ring]:
    found: list[Ring] = find_contours(padded, 0.5, fully_connected="low")  # type: ignore[no-untyped-call]
    return found


def slices(crop: Crop) -> Iterator[tuple[int, list[Ring]]]:
    """Outline what is marked, slice by slice, in rows and columns of the whole grid; slices without are left out."""
    first, *corner = crop.start
    for number, mask in enumerate(crop.voxels, start=first):
        if mask.any():
            yield number, [ring + corner for ring in rings(mask)]


def is_hole(ring: Ring) -> bool:
    """Whether an outline of `rings` surrounds what is not marked."""
    return _doubled_area(ring) > 0


def keyholes(outlines: Sequence[Ring]) -> list[Ring]:
    """Join each hole to what surrounds it by a bridge of no width, so that one closed line describes both.

    A reader that adds up the outlines of one slice and one that takes what lies in an odd number of them then agree
    (PS3.3 C.8.8.6.3).

    Parameters
    ----------
    outlines : sequence of numpy.ndarray
        All outlines of one slice, as `rings` gives them.
    """
    holes = [number for number, ring in enumerate(outlines) if is_hole(ring)]
    if not holes:
        return list(outlines)
    points = np.concatenate(outlines)
    starts = np.cumsum([0, *map(len, outlines)])
    following = np.arange(1, len(points) + 1)
    following[starts[1:] - 1] = starts[:-1]
    before = np.empty_like(following)
    before[following] = np.arange(len(points))
    new: list[tuple[float, float]] = []
    links = following.tolist()
    crossings = _crossings(points)
    for number in holes:
        start, end = int(starts[number]), int(starts[number + 1])
        hole = start + int(np.lexsort((points[start:end, 0], points[start:end, 1]))[-1])
        target = crossings[_next_crossing(crossings, points, hole)]
        row = points[hole, 0] + _BRIDGE
        near = (row, _column_at(row, points[before[hole]], points[hole]))
        far = (row, _column_at(row, points[target], points[following[target]]))
        there, back = len(points) + len(new), len(points) + len(new) + 2
        new += [far, near, near, far]
        links += [there + 1, hole, back + 1, links[target]]
        links[target], links[int(before[hole])] = there, back
    every = np.concatenate([points, np.array(new)])
    return [_walk(every, links, int(starts[n])) for n in range(len(outlines)) if n not in set(holes)]


def straightened(ring: Ring) -> Ring:
    """Leave out points that lie on the line between their neighbours."""
    one, other = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    goes_on = (one * other).sum(axis=1) > 0
    kept: Ring = ring[(np.abs(turn) > 1e-9) | ~goes_on]
    return kept


def halved(ring: Ring, shape: tuple[int, int], fits: Callable[[Ring], bool]) -> Iterator[Ring]:
    """Yield an outline as it is if it fits, else those of its upper and lower part: they enclose the same pixels."""
    if fits(ring):
        yield ring
        return
    mask = filled(ring, shape)
    for rows in np.array_split(np.flatnonzero(mask.any(axis=1)), 2):
        half = np.zeros_like(mask)
        half[rows] = mask[rows]
        for part in keyholes(rings(half)):
            yield from halved(straightened(part), shape, fits)


def filled(outline: Ring, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mark the pixels whose centre lies within a closed line, whatever way it turns: in an odd number of its loops.

    Parameters
    ----------
    outline : numpy.ndarray, shape (points, 2)
        Row and column of each point.
    shape : (int, int)
        Rows and columns of the slice.
    """
    ends = np.roll(outline, -1, axis=0)
    low, high = np.minimum(outline[:, 0], ends[:, 0]), np.maximum(outline[:, 0], ends[:, 0])
    first, last = np.ceil(low).astype(int), np.ceil(high).astype(int)  # rows with low <= row < high
    counts = last - first
    edge = np.repeat(np.arange(len(outline)), counts)
    row = first[edge] + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    (y0, x0), (y1, x1) = outline[edge].T, ends[edge].T
    column = np.ceil(x0 + (row - y0) / (y1 - y0) * (x1 - x0)).astype(int).clip(0, shape[1])
    inside = (row >= 0) & (row < shape[0])
    row, column = row[inside], column[inside]
    mask = np.zeros(shape, np.bool_)
    if row.size:
        top, left = row.min(), column.min()
        flips = np.zeros((row.max() - top + 1, column.max() - left + 1), np.int32)
        np.add.at(flips, (row - top, column - left), 1)
        box = mask[top : row.max() + 1, left : column.max() + 1]
        box[:] = (np.cumsum(flips, axis=1) % 2 == 1)[:, : box.shape[1]]
    return mask


def _doubled_area(ring: Ring) -> float:
    following = np.roll(ring, -1, axis=0)
    return float((ring[:, 0] * following[:, 1] - ring[:, 1] * following[:, 0]).sum())


def _crossings(points: Ring) -> NDArray[np.intp]:
    """Give the points that lie in a row of pixels' centres, from row to row, from left to right."""
    on_row = np.flatnonzero(points[:, 0] == np.rint(points[:, 0]))
    return on_row[np.lexsort((points[on_row, 1], points[on_row, 0]))]


def _next_crossing(crossings: NDArray[np.intp], points: Ring, hole: int) -> int:
    """Where in `crossings` the outline stands that comes next on the right of a hole's rightmost point."""
    row, column = points[hole]
    rows = points[crossings, 0]
    first, last = np.searchsorted(rows, row, "left"), np.searchsorted(rows, row, "right")
    return int(first + np.searchsorted(points[crossings[first:last], 1], column, "right"))


def _column_at(row: float, one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(one[1] + (row - one[0]) / (other[0] - one[0]) * (other[1] - one[1]))


def _walk(points: Ring, links: Sequence[int], start: int) -> Ring:
    return points[list(_followed(links, start))]


def _followed(links: Sequence[int], start: int) -> Iterator[int]:
    at = start
    while True:
        yield at
        at = links[at]
        if at == start:
            return
