"""Vessel and airway trees that fill a lobe: each branch grows towards the middle of the space that it has to supply.

After Tawhai et al., "Generation of an anatomically based three-dimensional model of the conducting airways", Ann Biomed
Eng 2000: the supplied points are halved at every bifurcation. Radii follow Murray's law from the tips upwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.phantom.fields import Points, Tubes

_MOST_GENERATIONS = 40
_PIECES = 3  # straight pieces of one curved branch


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """Branches; a parent stands before its children.

    Parameters
    ----------
    start, end : numpy.ndarray of float64, shape (n, 3)
        LPS mm.
    heading : numpy.ndarray of float64, shape (n, 3)
        Direction of the parent, which the branch leaves tangentially.
    parent : numpy.ndarray of int64, shape (n,)
        Index of the parent; -1 for the first.
    radius_mm : numpy.ndarray of float64, shape (n,)
        Radius at the far end of each branch.
    generation : numpy.ndarray of int64, shape (n,)
        0 for the first.
    """

    start: Points
    end: Points
    heading: Points
    parent: NDArray[np.int64]
    radius_mm: NDArray[np.float64]
    generation: NDArray[np.int64]

    def near_radius_mm(self) -> NDArray[np.float64]:
        """Radius where each branch leaves its parent: between both, so that side branches do not start bulky."""
        above = np.where(self.parent >= 0, self.radius_mm[self.parent], self.radius_mm)
        return np.asarray(np.minimum(above, 1.25 * self.radius_mm))

    def tubes(self) -> Tubes:
        """The branches as short straight pieces of curves."""
        return curved(self.start, self.end, self.heading, self.near_radius_mm(), self.radius_mm)


def curved(start: Points, end: Points, heading: Points, near: NDArray[np.float64], far: NDArray[np.float64]) -> Tubes:
    """Quadratic Bézier curves that leave their start along `heading`, cut into pieces."""
    length = np.linalg.norm(end - start, axis=1, keepdims=True)
    control = start + heading * length * 0.33
    at = np.linspace(0, 1, _PIECES + 1)
    points = [(1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end for t in at]
    radii = [near + t * (far - near) for t in at]
    return Tubes(
        np.concatenate(points[:-1]), np.concatenate(points[1:]), np.concatenate(radii[:-1]), np.concatenate(radii[1:])
    )


def grow(
    rng: np.random.Generator, root: Points, heading: Points, supplied: Points, tip_radius_mm: float, murray: float
) -> Tree:
    """Grow one tree.

    Parameters
    ----------
    rng : numpy.random.Generator
        Decides angles and lengths.
    root, heading : numpy.ndarray of float64, shape (3,)
        Where it starts and in which direction; LPS mm.
    supplied : numpy.ndarray of float64, shape (n, 3)
        Where its tips end.
    tip_radius_mm : float
        Radius of the tips.
    murray : float
        Exponent that joins radii at a bifurcation: 3 in theory, 2.5 to 3 measured.

    Returns
    -------
    Tree
    """
    starts, ends, headings, parents, counts = [], [], [], [], []
    start, direction = root[None], heading[None] / np.linalg.norm(heading)
    above = np.array([-1])
    owner = np.zeros(len(supplied), dtype=np.int64)
    points, made = supplied, 0
    for _ in range(_MOST_GENERATIONS):
        count = np.bincount(owner, minlength=len(start))
        middle = _mean(points, owner, count)
        end = _ends(rng, start, direction, middle, count)
        starts.append(start)
        ends.append(end)
        headings.append(direction)
        parents.append(above)
        counts.append(count)
        side = _halves(rng, points - middle[owner], owner, end - start, len(start))
        going_on = count[owner] > 1
        key, points = (owner * 2 + side)[going_on], points[going_on]
        if not len(points):
            break
        children, owner = np.unique(key, return_inverse=True)
        before = children // 2
        grown = end - start
        direction = (grown / np.maximum(np.linalg.norm(grown, axis=1, keepdims=True), 1e-6))[before]
        start, above = end[before], before + made
        made += len(count)
    return _with_radii(starts, ends, headings, parents, counts, tip_radius_mm, murray)


def _mean(points: Points, owner: NDArray[np.int64], count: NDArray[np.int64]) -> Points:
    sums = [np.bincount(owner, points[:, axis], minlength=len(count)) for axis in range(3)]
    return np.stack(sums, axis=1) / count[:, None]


def _ends(
    rng: np.random.Generator, start: Points, direction: Points, middle: Points, count: NDArray[np.int64]
) -> Points:
    """Some way towards the middle of what is supplied, without turning back; a tip goes all the way."""
    way = middle - start
    reach = np.linalg.norm(way, axis=1, keepdims=True)
    way = way / np.maximum(reach, 1e-6)
    forward = (way * direction).sum(axis=1, keepdims=True)
    turned = way + direction * np.clip(0.35 - forward, 0, None) + rng.normal(0, 0.07, way.shape)
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    share = np.clip(rng.normal(0.36, 0.08, (len(start), 1)), 0.15, 0.6)
    return np.asarray(np.where(count[:, None] > 1, start + turned * reach * share, middle))


def _halves(
    rng: np.random.Generator, away: Points, owner: NDArray[np.int64], grown: Points, nodes: int
) -> NDArray[np.int64]:
    """Which side of the bifurcation each point is on: cut across its widest extent, seldom through the middle."""
    axis = grown / np.maximum(np.linalg.norm(grown, axis=1, keepdims=True), 1e-6)
    flat = away - (away * axis[owner]).sum(axis=1, keepdims=True) * axis[owner]
    spread = np.empty((nodes, 3, 3))
    for row in range(3):
        for column in range(3):
            spread[:, row, column] = np.bincount(owner, flat[:, row] * flat[:, column], minlength=nodes)
    widest = np.linalg.eigh(spread + 1e-9 * np.eye(3))[1][:, :, 2]
    largest = np.take_along_axis(widest, np.abs(widest).argmax(axis=1)[:, None], axis=1)
    widest = widest * np.sign(largest) + rng.normal(0, 0.25, (nodes, 3))  # solvers differ in the sign
    widest /= np.linalg.norm(widest, axis=1, keepdims=True)
    along = (flat * widest[owner]).sum(axis=1)
    deviation = np.sqrt(
        np.bincount(owner, along**2, minlength=nodes) / np.maximum(np.bincount(owner, minlength=nodes), 1)
    )
    cut = rng.choice([-1.0, 1.0], nodes) * rng.gamma(4.0, 0.2, nodes) * deviation  # a trunk and a side branch
    side = along > cut[owner]
    uneven = np.bincount(owner, side, minlength=nodes)
    bad = (uneven == 0) | (uneven == np.bincount(owner, minlength=nodes))
    return np.asarray(np.where(bad[owner], along > 0, side), dtype=np.int64)


def _with_radii(
    starts: list[Points],
    ends: list[Points],
    headings: list[Points],
    parents: list[NDArray[np.int64]],
    counts: list[NDArray[np.int64]],
    tip: float,
    murray: float,
) -> Tree:
    count = np.concatenate(counts)
    generation = np.repeat(np.arange(len(counts)), [len(each) for each in counts])
    return Tree(
        np.concatenate(starts),
        np.concatenate(ends),
        np.concatenate(headings),
        np.concatenate(parents),
        np.asarray(tip * count ** (1 / murray), dtype=np.float64),
        generation,
    )
