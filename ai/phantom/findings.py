"""What a chest CT shows that is no nodule: opacities, bands, plaques, fluid, specks too small to report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ai.phantom.anatomy import LEFT, RIGHT, Chest
from ai.phantom.fields import Grid, Points, SmoothField, Tubes, ellipsoid, paint, soft
from ai.phantom.lungs import Survey

_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Opacity:
    """Ground glass or consolidation: larger than any nodule, with a ragged edge."""

    centre_mm: Points
    radius_mm: float
    hu: float
    edge_mm: float
    ragged: SmoothField
    patchy: SmoothField

    def share(self, grid: Grid) -> torch.Tensor:
        """How much of each voxel's air it has replaced."""
        x, y, z = grid.open()
        away = torch.sqrt(
            (x - self.centre_mm[0]) ** 2 + (y - self.centre_mm[1]) ** 2 + ((z - self.centre_mm[2]) / 1.2) ** 2
        )
        depth = self.radius_mm * (1 + 0.22 * self.ragged.on(grid)) - away
        share = soft(depth, self.edge_mm)
        return torch.clamp(share + share * (1 - share) * 1.6 * self.patchy.on(grid), 0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A flat thing: a pleural plaque, a scar in the lung."""

    centre_mm: Points
    radii_mm: Points
    axes: Points
    hu: float

    def depth(self, grid: Grid) -> torch.Tensor:
        """Depth in mm inside it, negative outside."""
        return ellipsoid(grid, self.centre_mm, self.radii_mm, self.axes)

    def box(self, grid: Grid) -> tuple[slice, slice, slice] | None:
        """The voxels around it."""
        reach = float(self.radii_mm.max()) + 4
        return grid.box(self.centre_mm - reach, self.centre_mm + reach)


@dataclass(frozen=True, slots=True, eq=False)
class OtherFindings:
    """Everything of one chest that is there to be taken for a nodule and is none.

    Parameters
    ----------
    opacities : tuple of Opacity
        In the lung, below its vessels.
    plaques, scars : tuple of Patch
        On the pleura, outside the lung; in the lung.
    bands : Tubes
        Linear scars and atelectases.
    specks : tuple of Patch
        Below 3 mm, many of them calcified.
    fluid : tuple of (int, float, float)
        Side, height at y = 0 and slope of the surface of a pleural effusion, which is no lung any more.
    collapsed : int
        Lobe without air; 0 for none.
    """

    opacities: tuple[Opacity, ...]
    plaques: tuple[Patch, ...]
    scars: tuple[Patch, ...]
    specks: tuple[Patch, ...]
    bands: Tubes
    band_hu: float
    fluid: tuple[tuple[int, float, float], ...]
    collapsed: int

    def cut(self, grid: Grid, chest: Chest, depth: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
        """Depth below the pleura once plaques, fluid and a collapsed lobe have taken their room."""
        depth = depth.clone()
        _, y, z = grid.open()
        for side, height, slope in self.fluid:
            affected = left if side == LEFT else ~left
            depth = torch.where(affected, torch.minimum(depth, (z - height - slope * y) * 0.75), depth)
        for plaque in self.plaques:
            box = plaque.box(grid)
            if box is not None:
                depth[box] = torch.minimum(depth[box], -plaque.depth(grid.part(box)))
        if self.collapsed:
            over, flat = chest.fissures(grid, left)
            outside = {1: -over, 2: over, 3: torch.maximum(-over, -flat), 5: over}[self.collapsed]
            affected = left if self.collapsed < 3 else ~left
            depth = torch.where(affected, torch.minimum(depth, outside), depth)
        return depth

    def paint_lung(self, grid: Grid, aerated: torch.Tensor) -> None:
        """Paint opacities into lung that has no vessels yet, in place."""
        for opacity in self.opacities:
            paint(aerated, opacity.share(grid), torch.clamp(aerated, min=opacity.hu))

    def paint_over(self, grid: Grid, hu: torch.Tensor, depth: torch.Tensor) -> None:
        """Paint scars, bands, specks and plaques, in place; `depth` is what `cut` gave."""
        lung = torch.clamp(1 + depth, 0, 1)
        paint(hu, self.bands.on(grid) * lung, torch.clamp(hu, min=self.band_hu))
        for patch in (*self.scars, *self.specks):
            box = patch.box(grid)
            if box is not None:
                share = soft(patch.depth(grid.part(box)), grid.edge_mm) * _volume_kept(patch, grid) * lung[box]
                paint(hu[box], share, torch.clamp(hu[box], min=patch.hu))
        for plaque in self.plaques:
            box = plaque.box(grid)
            if box is not None:
                paint(hu[box], soft(plaque.depth(grid.part(box)), grid.edge_mm) * (hu[box] < plaque.hu), plaque.hu)


def _volume_kept(patch: Patch, grid: Grid) -> float:
    """A thing thinner than a voxel is seen fainter, not thicker."""
    return float(np.clip(2 * patch.radii_mm.min() / grid.edge_mm, 0, 1))


def draw_findings(chest: Chest, survey: Survey, rng: np.random.Generator) -> OtherFindings:
    """Draw those of one chest.

    Parameters
    ----------
    chest : Chest
        The body.
    survey : Survey
        Where its lungs are.
    rng : numpy.random.Generator
        Decides all.

    Returns
    -------
    OtherFindings
    """
    lung = survey.depth_mm > 3
    rind = (survey.depth_mm > 0) & (survey.depth_mm < 6)
    opacities = [_opacity(chest, survey, lung, rng) for _ in range(_few(rng, 0.22, 3))]
    plaques = [_plaque(chest, survey, rng) for _ in range(_few(rng, 0.2, 7))]
    scars = [_scar(survey, lung if rng.random() < 0.4 else rind, rng) for _ in range(_few(rng, 0.5, 5))]
    specks = [_speck(survey, lung, rng) for _ in range(_few(rng, 0.6, 8))]
    bands = [_band(survey, rind, rng) for _ in range(_few(rng, 0.5, 5))]
    nothing = Tubes(np.empty((0, 3)), np.empty((0, 3)), np.empty(0), np.empty(0))
    fluid = [
        (side, chest.dome[side - 1] - chest.drop[side - 1] + rng.uniform(5, 60), rng.uniform(0.4, 1.0))
        for side in (LEFT, RIGHT)
        if rng.random() < 0.07
    ]
    return OtherFindings(
        opacities=tuple(opacities),
        plaques=tuple(plaques),
        scars=tuple(scars),
        specks=tuple(specks),
        bands=Tubes.joined(nothing, *bands),
        band_hu=float(rng.uniform(-250, 30)),
        fluid=tuple(fluid),
        collapsed=int(rng.choice([1, 2, 3, 5])) if rng.random() < 0.04 else 0,
    )


def _few(rng: np.random.Generator, chance: float, most: int) -> int:
    return int(rng.integers(1, most + 1)) if rng.random() < chance else 0


def _opacity(chest: Chest, survey: Survey, lung: _Mask, rng: np.random.Generator) -> Opacity:
    dense = rng.random() < 0.4
    return Opacity(
        survey.points(rng, lung, 1)[0],
        rng.uniform(26, 50),
        float(rng.uniform(-120, 30) if dense else rng.uniform(-760, -500)),
        float(rng.uniform(12, 26)),
        SmoothField.draw(rng, *chest.extent_mm(), rng.uniform(10, 18)),
        SmoothField.draw(rng, *chest.extent_mm(), rng.uniform(3, 5)),
    )


def _towards_pleura(survey: Survey, point: Points) -> Points:
    """Unit vector along which the lung gets deeper, from the survey's depths."""
    index = np.clip(
        np.round(np.linalg.inv(survey.grid.affine)[:3] @ np.append(point, 1)).astype(int),
        1,
        np.array(survey.depth_mm.shape) - 2,
    )
    z, y, x = index
    depth = survey.depth_mm
    slope = np.array(
        [
            depth[z, y, x + 1] - depth[z, y, x - 1],
            depth[z, y + 1, x] - depth[z, y - 1, x],
            depth[z + 1, y, x] - depth[z - 1, y, x],
        ],
        dtype=np.float64,
    )
    return slope / max(float(np.linalg.norm(slope)), 1e-3)


def _frame(first: Points, rng: np.random.Generator) -> Points:
    """Three directions at right angles, the first one given."""
    second = np.cross(first, rng.normal(0, 1, 3))
    second /= max(float(np.linalg.norm(second)), 1e-6)
    return np.stack([first, second, np.cross(first, second)])


def _plaque(chest: Chest, survey: Survey, rng: np.random.Generator) -> Patch:
    costal = (survey.depth_mm > -2) & (survey.depth_mm < 2) & (chest.cage_depth(survey.grid).numpy() < 4)
    point = survey.points(rng, costal, 1)[0]
    inwards = _towards_pleura(survey, point)
    thick = rng.uniform(1.2, 3.2)
    radii = np.array([thick, rng.uniform(4, 8) * thick, rng.uniform(4, 9) * thick])
    value = rng.uniform(150, 600) if rng.random() < 0.4 else rng.uniform(20, 70)
    return Patch(point, radii, _frame(inwards, rng), float(value))


def _scar(survey: Survey, where: _Mask, rng: np.random.Generator) -> Patch:
    direction = rng.normal(0, 1, 3)
    thick = rng.uniform(0.5, 1.4)
    radii = np.array([thick, rng.uniform(4, 14), rng.uniform(8, 26)])
    frame = _frame(direction / np.linalg.norm(direction), rng)
    return Patch(survey.points(rng, where, 1)[0], radii, frame, float(rng.uniform(-300, 40)))


def _speck(survey: Survey, lung: _Mask, rng: np.random.Generator) -> Patch:
    radius = rng.uniform(0.6, 1.35)
    value = rng.uniform(100, 700) if rng.random() < 0.45 else rng.uniform(-80, 60)
    return Patch(survey.points(rng, lung, 1)[0], np.full(3, radius), np.eye(3), float(value))


def _band(survey: Survey, rind: _Mask, rng: np.random.Generator) -> Tubes:
    start = survey.points(rng, rind, 1)[0]
    inwards = _towards_pleura(survey, start) + rng.normal(0, 0.7, 3)
    inwards /= np.linalg.norm(inwards)
    along = np.linspace(0, rng.uniform(10, 55), 8)
    points = start + along[:, None] * inwards + np.cumsum(rng.normal(0, 0.8, (8, 3)), axis=0)
    return Tubes.along(points, np.linspace(rng.uniform(0.7, 1.8), 0.4, 8))
