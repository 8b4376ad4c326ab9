"""Grows vessels and airways into the lobes and paints the lungs with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ai.phantom.anatomy import LEFT, RIGHT, Chest
from ai.phantom.fields import Grid, Points, SmoothField, Tubes, bounds, paint
from ai.phantom.trees import Tree, curved, grow

_SURVEY_MM = 4.0
_WALL_MM = 0.45


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """The lungs on a coarse grid on the CPU: where to let things grow. The same for every spacing and device.

    Parameters
    ----------
    grid : Grid
        Isotropic.
    depth_mm : numpy.ndarray of float32, shape (slices, rows, columns)
        Depth below the pleura.
    lobe : numpy.ndarray of uint8, shape (slices, rows, columns)
        See `ai.phantom.anatomy.LOBES`.
    crossing_mm : numpy.ndarray of float32, shape (slices, rows, columns)
        Distance from the nearest fissure.
    """

    grid: Grid
    depth_mm: NDArray[np.float32]
    lobe: NDArray[np.uint8]
    crossing_mm: NDArray[np.float32]

    @classmethod
    def of(cls, chest: Chest) -> Survey:
        """Look at a chest."""
        grid = Grid.covering(*chest.extent_mm(), (_SURVEY_MM,) * 3, "cpu")
        depth, left = chest.lungs(grid)
        lobe, crossing = chest.lobes(grid, depth, left)
        return cls(grid, depth.numpy(), lobe.numpy(), crossing.numpy())

    def points(self, rng: np.random.Generator, where: NDArray[np.bool_], count: int) -> Points:
        """Random LPS points in some of its voxels."""
        index = np.argwhere(where)
        chosen = index[rng.integers(0, len(index), count)] + rng.uniform(-0.5, 0.5, (count, 3))
        return np.asarray(chosen @ self.grid.affine[:3, :3].T + self.grid.affine[:3, 3])

    def spread(self, rng: np.random.Generator, where: NDArray[np.bool_], each_mm3: float) -> Points:
        """Points of which each has about the same space, not quite regularly."""
        index = np.argwhere(where)
        step = max(each_mm3 ** (1 / 3) / _SURVEY_MM, 1.0)
        cell = np.floor(index / step + rng.uniform(0, 1, 3)).astype(np.int64)
        key = (cell[:, 0] * 4096 + cell[:, 1]) * 4096 + cell[:, 2]
        order = rng.permutation(len(index))
        _, first = np.unique(key[order], return_index=True)
        chosen = index[order[first]] + rng.uniform(-0.5, 0.5, (len(first), 3))
        return np.asarray(chosen @ self.grid.affine[:3, :3].T + self.grid.affine[:3, 3])


@dataclass(frozen=True, slots=True, eq=False)
class Plumbing:
    """Vessels and airways of both lungs, and the findings among the airways.

    Parameters
    ----------
    vessels : Tubes
        Arteries and veins.
    airways : Tubes
        Their lumen.
    wall_mm : numpy.ndarray of float64, shape (len(airways),)
        Thickness of each airway's wall.
    plugged : numpy.ndarray of bool, shape (len(airways),)
        Filled with mucus.
    """

    vessels: Tubes
    airways: Tubes
    wall_mm: NDArray[np.float64]
    plugged: NDArray[np.bool_]


def grow_plumbing(chest: Chest, survey: Survey, rng: np.random.Generator) -> Plumbing:
    """Grow the trees of all five lobes.

    Parameters
    ----------
    chest : Chest
        Where the hila are.
    survey : Survey
        Where the lobes are.
    rng : numpy.random.Generator
        Decides all.

    Returns
    -------
    Plumbing
    """
    finest, tip, calibre = rng.uniform(700, 1500), rng.uniform(0.28, 0.42), rng.uniform(2.6, 3.0)
    vessels, airways, walls, plugged = [], [], [], []
    sick = rng.integers(1, 6) if rng.random() < 0.12 else 0  # the lobe with bronchiectasis
    mucus = rng.uniform(0.02, 0.12) if rng.random() < 0.2 else 0.0
    thick = rng.uniform(0.55, 1.3)
    for lobe in range(1, 6):
        room = (survey.lobe == lobe) & (survey.depth_mm > 2.5) & (survey.crossing_mm > 2)
        if room.sum() < 50:
            continue
        middle = survey.points(rng, room, 400).mean(axis=0)
        root = _root(chest, lobe)
        arteries = grow(rng, root, middle - root, survey.spread(rng, room, finest), tip, calibre)
        vein_root = root + np.array([0.0, -9, -7 if lobe in (2, 4, 5) else 3]) + rng.normal(0, 2, 3)
        veins = grow(rng, vein_root, middle - vein_root, survey.spread(rng, room, finest), tip, calibre)
        vessels += [arteries.tubes(), veins.tubes()]
        beside, wall = _bronchi(arteries, rng, 2.1 if lobe == sick else 1.0, thick)
        airways.append(beside)
        walls.append(wall)
        small = beside.end_radius_mm < 2.2
        plugged.append(small & (np.tile(rng.random(len(beside) // 3), 3) < mucus))
    trunk = _trunk(chest)
    return Plumbing(
        Tubes.joined(*vessels),
        Tubes.joined(trunk, *airways),
        np.concatenate([np.full(len(trunk), 1.3), *walls]),
        np.concatenate([np.zeros(len(trunk), dtype=np.bool_), *plugged]),
    )


def _root(chest: Chest, lobe: int) -> Points:
    """Where a lobe's artery and bronchus leave the hilum."""
    left, right = chest.hilum(LEFT), chest.hilum(RIGHT)
    roots = {
        1: left + np.array([4.0, -7, 8]),
        2: left + np.array([5.0, 4, -15]),
        3: right + np.array([-5.0, -4, 12]),
        4: right + np.array([-5.0, -10, -20]),
        5: right + np.array([-4.0, 2, -24]),
    }
    return np.asarray(roots[lobe])


def _bronchi(
    arteries: Tree, rng: np.random.Generator, widening: float, thick: float
) -> tuple[Tubes, NDArray[np.float64]]:
    """The airways that run beside the larger arteries."""
    seen = arteries.radius_mm > 0.95 * (0.8 if widening > 1 else 1.0)
    seen &= (arteries.parent < 0) | seen[np.maximum(arteries.parent, 0)]
    aside = rng.normal(0, 1, 3) * np.array([0.6, 1, 0.6])
    aside /= np.linalg.norm(aside)
    scale = np.where(arteries.generation > 2, widening, 1.0) * 0.78
    far = arteries.radius_mm * scale
    near = np.where(arteries.parent >= 0, far[np.maximum(arteries.parent, 0)], far)
    near = np.minimum(near, 1.3 * far)

    def shift(radius: NDArray[np.float64]) -> Points:
        return np.asarray(aside * (radius[:, None] * (1 + scale[:, None]) + 0.5))

    above = np.where(arteries.parent >= 0, arteries.radius_mm[np.maximum(arteries.parent, 0)], arteries.radius_mm)
    tubes = curved(
        (arteries.start + shift(above))[seen], (arteries.end + shift(arteries.radius_mm))[seen],
        arteries.heading[seen], near[seen], far[seen],
    )  # fmt: skip
    return tubes, thick * (_WALL_MM + 0.16 * tubes.end_radius_mm)


def _trunk(chest: Chest) -> Tubes:
    """Trachea, main bronchi and their way to the lobes."""
    left, right, carina = chest.hilum(LEFT), chest.hilum(RIGHT), chest.carina
    top = np.array([chest.midline - 1, chest.spine_y - 50, 200.0])
    rows = [(top, carina, 8.8, 8.3), (carina, left, 6.3, 5.2), (carina, right, 7.0, 5.8)]
    rows.append((right, right + np.array([-2.0, -2, -22]), 5.2, 4.6))
    rows += [(left if n < 3 else right, _root(chest, n), 4.6, 3.6) for n in (1, 2, 3)]
    low = right + np.array([-2.0, -2, -22])
    rows += [(low, _root(chest, n), 4.2, 3.4) for n in (4, 5)]
    return Tubes(
        np.stack([row[0] for row in rows]),
        np.stack([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
        np.array([row[3] for row in rows]),
    )


def parenchyma(
    grid: Grid, chest: Chest, depth: torch.Tensor, crossing: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """Density of aerated lung with its texture, emphysema, dependent density and fissures, in Hounsfield units."""
    _, y, z = grid.open()
    extent = chest.extent_mm()
    base, gravity = rng.uniform(-905, -825), rng.uniform(0.1, 0.7)
    hu = base + gravity * y + 14 * SmoothField.draw(rng, *extent, 30.0).on(grid)
    hu = hu + rng.uniform(5, 12) * SmoothField.draw(rng, *extent, 7.0).on(grid)
    fine = SmoothField.draw(rng, *extent, 2.6).on(grid)
    hu = hu + rng.uniform(6, 16) * fine + rng.uniform(0, 14) * torch.clamp(fine - 0.8, min=0) ** 2
    if rng.random() < 0.3:
        hu = _emphysema(grid, extent, z, hu, fine, rng)
    if rng.random() < 0.5:  # dependent density, and atelectasis at the very back
        width, more = rng.uniform(4, 16), rng.uniform(60, 380)
        behind = torch.clamp(y / chest.half_depth - 0.1, 0, 1) * (1 + 0.5 * chest.folds.on(grid)).clamp(min=0)
        hu = hu + more * behind * torch.exp(-depth.clamp(min=0) / width)
    return _with_fissures(grid, chest, hu, depth, crossing, rng)


def _emphysema(
    grid: Grid,
    extent: tuple[Points, Points],
    z: torch.Tensor,
    hu: torch.Tensor,
    fine: torch.Tensor,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Centrilobular holes, more of them above."""
    size, level, upper = rng.uniform(3.0, 7.0), rng.uniform(0.7, 1.9), rng.uniform(0, 0.012)
    holes = SmoothField.draw(rng, *extent, size).on(grid) + SmoothField.draw(rng, *extent, 26.0).on(grid) * 0.5
    share = torch.clamp((holes - level + upper * z) * 2.2, 0, 1)
    return hu + share * (-975 + 6 * fine - hu)


def _with_fissures(
    grid: Grid, chest: Chest, hu: torch.Tensor, depth: torch.Tensor, crossing: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """Thin sheets, incomplete here and there, thickened or holding fluid now and then."""
    folds = chest.relief.on(grid)
    half = rng.uniform(0.15, 0.45) * torch.clamp(1.1 + 0.5 * folds, 0.2, 2)
    if rng.random() < 0.2:
        half = half + rng.uniform(1.0, 4.0) * torch.clamp(
            SmoothField.draw(rng, *chest.extent_mm(), 16.0).on(grid) - 1, 0, 1
        )
    share = torch.clamp(2 * half / grid.edge_mm, max=1) * torch.clamp(
        0.5 + (torch.clamp(half, min=grid.edge_mm / 2) - crossing) / grid.edge_mm, 0, 1
    )
    missing = torch.clamp(1.6 + 1.5 * SmoothField.draw(rng, *chest.extent_mm(), 28.0).on(grid), 0, 1)
    paint(hu, share * missing * (depth > 0), rng.uniform(-250, 20))
    return hu


def paint_airways(grid: Grid, hu: torch.Tensor, plumbing: Plumbing, rng: np.random.Generator) -> None:
    """Paint their walls and their lumen, in place."""
    airways, walls = plumbing.airways, plumbing.wall_mm
    outer = Tubes(airways.start, airways.end, airways.start_radius_mm + walls, airways.end_radius_mm + walls)
    share = outer.on(grid)
    box = bounds(share > 0)
    image = hu[box]
    paint(image, share[box], torch.clamp(image, min=rng.uniform(-60, 50)))
    paint(image, airways.where(~plumbing.plugged).on(grid)[box], -990.0)
    if plumbing.plugged.any():
        paint(image, outer.where(plumbing.plugged).on(grid)[box], rng.uniform(-20, 60))
