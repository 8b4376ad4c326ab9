"""Finds places for nodules in a drawn chest: free in the lung, on the pleura, on a vessel."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from ai.phantom.anatomy import LEFT, RIGHT, Chest
from ai.phantom.fields import Grid, Points, Tubes
from ai.phantom.findings import OtherFindings
from ai.phantom.lungs import Survey
from ai.phantom.nodules import Drawn, Place, draw_diameter, draw_kind, draw_nodule

_SMALLEST_MM = 3.0
_TRIES = 60
_PLACES: tuple[Place, ...] = ("parenchymal", "juxta-pleural", "juxta-vascular")


def place_nodules(
    chest: Chest,
    survey: Survey,
    vessels: Tubes,
    others: OtherFindings,
    rng: np.random.Generator,
    count: int,
) -> list[Drawn]:
    """Draw nodules and places for them.

    Parameters
    ----------
    chest : Chest
        The body.
    survey : Survey
        Its lungs, without what `others` takes of them.
    vessels : Tubes
        What a juxta-vascular nodule sits on.
    others : OtherFindings
        What would hide a nodule, or cut it off.
    rng : numpy.random.Generator
        Decides all.
    count : int
        How many to place; fewer where the lungs have no room.

    Returns
    -------
    list of Drawn
    """
    room = _Room.of(chest, survey, vessels, others)

    def lung_depth(grid: Grid) -> torch.Tensor:
        depth, left = chest.lungs(grid)
        return others.cut(grid, chest, depth, left)

    placed: list[Drawn] = []
    for _ in range(count * 4):
        if len(placed) == count:
            break
        diameter = draw_diameter(rng)
        place = _PLACES[int(rng.choice(3, p=[0.5, 0.28, 0.22]))]
        attenuation, margin = draw_kind(rng, diameter)
        if attenuation != "solid" and place == "juxta-vascular":
            place = "parenchymal"
        centre = room.find(rng, diameter / 2, place, placed)
        if centre is None:
            continue
        lobe, side = room.lobe_at(centre), "left" if centre[0] > chest.midline + 0.02 * centre[2] else "right"
        drawn = draw_nodule(rng, centre, diameter, attenuation, margin, place, side, lobe, lung_depth)
        if drawn.nodule.diameter_mm >= _SMALLEST_MM:
            placed.append(drawn)
    return placed


class _Room:
    """Where in the lungs a nodule of some size has its place."""

    def __init__(self, survey: Survey, clear_mm: Points, vessels: Tubes) -> None:
        self._survey = survey
        self._clear = clear_mm  # distance from the pleura; 0 where none may be
        self._middles = (vessels.start + vessels.end) / 2
        self._radius = (vessels.start_radius_mm + vessels.end_radius_mm) / 2
        self._large = cKDTree(self._middles[self._radius > 1.6])
        self._carriers = np.flatnonzero((self._radius > 0.7) & (self._radius < 2.6))

    @classmethod
    def of(cls, chest: Chest, survey: Survey, vessels: Tubes, others: OtherFindings) -> _Room:
        clear = distance_transform_edt(survey.depth_mm > 0) * survey.grid.spacing_mm[0]
        points = np.argwhere(survey.depth_mm > 0) @ survey.grid.affine[:3, :3].T + survey.grid.affine[:3, 3]
        free = np.ones(len(points), dtype=np.bool_)
        for opacity in others.opacities:
            free &= np.linalg.norm(points - opacity.centre_mm, axis=1) > 1.5 * opacity.radius_mm + opacity.edge_mm
        for patch in (*others.plaques, *others.scars):
            free &= np.linalg.norm(points - patch.centre_mm, axis=1) > patch.radii_mm.max() + 3
        for side in (LEFT, RIGHT):
            free &= np.linalg.norm(points - chest.hilum(side), axis=1) > 34
        clear[survey.depth_mm > 0] *= free
        return cls(survey, clear, vessels)

    def lobe_at(self, point: Points) -> int:
        return int(self._at(self._survey.lobe, point))

    def find(self, rng: np.random.Generator, radius: float, place: Place, placed: list[Drawn]) -> Points | None:
        """A centre, or None when there was no room."""
        if place == "juxta-vascular":
            candidates = self._beside_vessels(rng, radius)
        elif place == "juxta-pleural":
            low = max(radius * 0.35, 1.0)
            candidates = self._between(rng, low, max(radius * 0.85, low + self._survey.grid.spacing_mm[0]))
        else:
            candidates = self._between(rng, radius * 1.3 + 2.5, np.inf)
        for centre in candidates:
            apart = all(
                np.linalg.norm(centre - other.shape.centre_mm) > 1.4 * (radius + other.shape.radius_mm) + 6
                for other in placed
            )
            near_large = self._large.query(centre)[0] < min(radius, 6) + 2.5 and place == "parenchymal"
            if apart and (not near_large or radius > 9) and self._at(self._clear, centre) > 0:
                return np.asarray(centre)
        return None

    def _between(self, rng: np.random.Generator, low: float, high: float) -> Points:
        where = (self._clear >= low) & (self._clear <= high)
        return self._survey.points(rng, where, _TRIES) if where.any() else np.empty((0, 3))

    def _beside_vessels(self, rng: np.random.Generator, radius: float) -> Points:
        chosen = self._carriers[rng.integers(0, len(self._carriers), _TRIES)]
        away = rng.normal(0, 1, (_TRIES, 3))
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        reach = radius * rng.uniform(0.3, 0.95, (_TRIES, 1)) + self._radius[chosen][:, None]
        centres = self._middles[chosen] + away * reach
        deep = [float(self._at(self._clear, centre)) > radius + 2.5 for centre in centres]
        return np.asarray(centres[np.array(deep)])

    def _at(self, values: NDArray[np.generic], point: Points) -> float:
        index = np.round(np.linalg.inv(self._survey.grid.affine)[:3] @ np.append(point, 1)).astype(int)
        index = np.clip(index, 0, np.array(values.shape) - 1)
        return float(values[tuple(index)])
