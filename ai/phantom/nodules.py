"""Nodules: what they look like, and how they are painted into a lung, drawn or real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from ai.phantom.fields import Grid, Points, soft

Attenuation = Literal["solid", "part-solid", "ground-glass"]
Margin = Literal["smooth", "spiculated"]
Place = Literal["parenchymal", "juxta-pleural", "juxta-vascular"]
_SPAN = 1.7  # the shape's noise is known out to so many radii
_SEAM_MM = 2.0  # so far beyond the pleura air is filled, lest a seam be left there
_TRUTH = 48  # voxels along each side of the grid on which volumes are measured
Depth = Callable[[Grid], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Nodule:
    """One nodule and the truth about it.

    Parameters
    ----------
    centre_mm : (float, float, float)
        LPS.
    diameter_mm : float
        Of the sphere that has its volume.
    attenuation, margin, place : str
        What a radiologist would call it.
    solid_diameter_mm : float
        Of the solid part, likewise; 0 for ground glass, equal to `diameter_mm` for a solid nodule.
    side : str
        ``left`` or ``right``.
    lobe : int
        See `ai.phantom.anatomy.LOBES`; 0 where it is not known.
    volume_mm3 : float
        Inside the lung, without spicules, measured on a grid much finer than any image.
    calcified : bool
        Brighter than soft tissue.
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    attenuation: Attenuation
    margin: Margin
    place: Place
    solid_diameter_mm: float
    side: str
    lobe: int
    volume_mm3: float
    calcified: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The form of one nodule: a ball, stretched, dented, and cut off at the pleura.

    Parameters
    ----------
    centre_mm : numpy.ndarray of float64, shape (3,)
        LPS.
    radius_mm : float
        Before stretching and denting.
    stretch : numpy.ndarray of float64, shape (3, 3)
        From millimetres to radii.
    dents : torch.Tensor of float32, shape (1, 1, n, n, n)
        Relative change of the radius in space, axes z, y, x.
    """

    centre_mm: Points
    radius_mm: float
    stretch: Points
    dents: torch.Tensor

    @classmethod
    def draw(cls, rng: np.random.Generator, centre_mm: Points, radius_mm: float, lobulation: float) -> Shape:
        """Draw one; `lobulation` is the standard deviation of its radius, as a share."""
        axes = np.linalg.qr(rng.normal(0, 1, (3, 3)))[0]
        stretch = np.exp(rng.normal(0, 0.13, 3))
        stretch /= np.prod(stretch) ** (1 / 3)
        coarse = rng.standard_normal((7, 7, 7))
        smooth = ndimage.zoom(coarse, 5, order=3, mode="nearest")
        smooth = (smooth - smooth.mean()) / smooth.std() * lobulation
        dents = torch.from_numpy(np.clip(smooth, -0.45, 0.6).astype(np.float32))[None, None]
        return cls(centre_mm, radius_mm, axes @ np.diag(1 / stretch) @ axes.T, dents)

    def depth(self, points: torch.Tensor) -> torch.Tensor:
        """Depth in mm below its surface, negative outside, at LPS points of shape (..., 3)."""
        device = points.device
        centre = torch.tensor(self.centre_mm, dtype=torch.float32, device=device)
        away = (points - centre) @ torch.tensor(self.stretch.T, dtype=torch.float32, device=device)
        at = (away / (self.radius_mm * _SPAN)).reshape(1, -1, 1, 1, 3)
        dent = functional.grid_sample(self.dents.to(device), at, padding_mode="border", align_corners=True)
        wide = self.radius_mm * (1 + dent.reshape(away.shape[:-1]))
        return torch.as_tensor(wide - torch.linalg.norm(away, dim=-1))

    def resized(self, factor: float) -> Shape:
        """The same form, larger or smaller."""
        return replace(self, radius_mm=self.radius_mm * factor)

    def volume_mm3(self, lung_depth: Depth | None = None) -> float:
        """Volume, or of it what lies in the lung."""
        reach = self.radius_mm * _SPAN * 1.1
        step = 2 * reach / _TRUTH
        grid = Grid.covering(self.centre_mm - reach, self.centre_mm + reach, (step, step, step), "cpu")
        inside = self.depth(grid.points())
        if lung_depth is not None:
            inside = torch.minimum(inside, lung_depth(grid))
        return float(soft(inside, step).sum()) * step**3


@dataclass(frozen=True, slots=True)
class Look:
    """Densities of one nodule in Hounsfield units, its edge and its spicules."""

    rim_hu: float
    core_hu: float
    edge_mm: float
    grain: float
    spicules: NDArray[np.float64]  # rows: start (3), end (3), radii (2), relative to the centre, in radii


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """All that it takes to paint one nodule: its truth, its form, its solid core if any, its look."""

    nodule: Nodule
    shape: Shape
    core: Shape | None
    look: Look


def draw_nodule(
    rng: np.random.Generator,
    centre_mm: Points,
    diameter_mm: float,
    attenuation: Attenuation,
    margin: Margin,
    place: Place,
    side: str,
    lobe: int,
    lung_depth: Depth,
) -> Drawn:
    """Draw one nodule of a given kind and size; one that is cut off at the pleura gets smaller.

    Parameters
    ----------
    rng : numpy.random.Generator
        Decides its form and density.
    centre_mm : numpy.ndarray of float64, shape (3,)
        LPS.
    diameter_mm : float
        Of the sphere of its volume, were it not cut off.
    attenuation, margin, place, side, lobe
        As in `Nodule`.
    lung_depth : callable
        Depth in mm below the pleura on a grid on the CPU.

    Returns
    -------
    Drawn
    """
    radius = diameter_mm / 2
    shape = Shape.draw(rng, centre_mm, radius, rng.uniform(0.03, 0.12) + 0.06 * (margin == "spiculated"))
    shape = shape.resized((4 / 3 * np.pi * radius**3 / shape.volume_mm3()) ** (1 / 3))
    volume = shape.volume_mm3(lung_depth)
    core, solid = None, 0.0
    if attenuation == "part-solid":
        share = rng.uniform(0.35, 0.75)
        away = rng.normal(0, 0.12, 3) * radius * (1 - share)
        core = Shape.draw(rng, centre_mm + away, radius * share, 0.1)
        solid = _sphere_diameter(core.volume_mm3(lung_depth))
    calcified = attenuation == "solid" and rng.random() < (0.12 if diameter_mm < 10 else 0.03)
    diameter = _sphere_diameter(volume)
    nodule = Nodule(
        centre_mm=(float(centre_mm[0]), float(centre_mm[1]), float(centre_mm[2])),
        diameter_mm=diameter,
        attenuation=attenuation,
        margin=margin,
        place=place,
        solid_diameter_mm=diameter if attenuation == "solid" else min(solid, diameter),
        side=side,
        lobe=lobe,
        volume_mm3=volume,
        calcified=calcified,
    )
    return Drawn(nodule, shape, core, _look(rng, nodule))


def _look(rng: np.random.Generator, nodule: Nodule) -> Look:
    solid = rng.uniform(200, 700) if nodule.calcified else rng.uniform(-30, 80)
    glass = rng.uniform(-720, -480)
    count = int(rng.integers(9, 26)) if nodule.margin == "spiculated" else 0
    away = rng.normal(0, 1, (count, 3))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    radius = max(nodule.diameter_mm / 2, 1.0)  # one outside the lung has no volume; it is drawn and left out
    reach = 1.0 + np.clip(rng.gamma(2.0, 0.28, (count, 1)), 0.25, 1.6) * min(1.0, 9 / radius)
    bent = away * reach + rng.normal(0, 0.12, (count, 3))
    thick = rng.uniform(0.06, 0.16, (count, 1)) + 0.25 / radius
    spicules = np.concatenate([away * 0.75, bent, thick, np.full((count, 1), 0.2 / radius)], axis=1)
    if nodule.attenuation == "solid":
        return Look(solid, solid, 0.3, rng.uniform(5, 25), spicules)
    return Look(glass, rng.uniform(-30, 60), rng.uniform(0.8, 2.2), rng.uniform(15, 50), spicules)


def _sphere_diameter(volume_mm3: float) -> float:
    return float((6 * volume_mm3 / np.pi) ** (1 / 3))


def draw_kind(rng: np.random.Generator, diameter_mm: float) -> tuple[Attenuation, Margin]:
    """Kinds as often as a model has to learn them: less solid than in a clinic."""
    attenuation: Attenuation = "solid"
    if diameter_mm >= 4 and rng.random() < 0.42:
        attenuation = "part-solid" if diameter_mm >= 6 and rng.random() < 0.5 else "ground-glass"
    chance = {"solid": 0.35, "part-solid": 0.3, "ground-glass": 0.0}[attenuation] * (diameter_mm >= 5)
    return attenuation, "spiculated" if rng.random() < chance else "smooth"


def draw_diameter(rng: np.random.Generator, low_mm: float = 3.2, high_mm: float = 30.0) -> float:
    """As many per octave from the smallest to the largest."""
    return float(np.exp(rng.uniform(np.log(low_mm), np.log(high_mm))))


def paint_nodule(
    hu: torch.Tensor,
    affine: NDArray[np.float64],
    drawn: Drawn,
    lung_depth: torch.Tensor,
    blur_mm: float = 0.0,
    residue: torch.Tensor | None = None,
) -> tuple[tuple[slice, slice, slice], torch.Tensor] | None:
    """Paint one nodule into `hu`, in place.

    Parameters
    ----------
    hu : torch.Tensor of float32, shape (slices, rows, columns)
        The image.
    affine : numpy.ndarray of float64, shape (4, 4)
        (slice, row, column, 1) to LPS mm.
    drawn : Drawn
        The nodule.
    lung_depth : torch.Tensor of float32, shape (slices, rows, columns)
        Depth below the pleura in mm, negative outside: nothing is painted there.
    blur_mm : float
        How wide the scanner has made sharp edges; 0 in an image that has not been scanned yet.
    residue : torch.Tensor, optional
        Noise of the image, which the nodule gets too.

    Returns
    -------
    box : tuple of slice
        The voxels around it.
    inside : torch.Tensor of bool, shape of the box
        Voxels whose centre lies in it; spicules do not count.
    None if the nodule lies outside the image.
    """
    reach = drawn.shape.radius_mm * 2.8 + 3
    box = _box(hu.shape, affine, drawn.shape.centre_mm, reach)
    if box is None:
        return None
    points = _points(box, affine, hu.device)
    edge = float(np.hypot(abs(np.linalg.det(affine[:3, :3])) ** (1 / 3), blur_mm))
    part, look = hu[box], drawn.look
    lung = soft(lung_depth[box] + _SEAM_MM, edge)
    outside = lung_depth[box] < 0
    inside = drawn.shape.depth(points)
    body = soft(inside, float(np.hypot(edge, look.edge_mm)))
    spiky = _spicules(points, drawn, edge)
    noise = 0 if residue is None else residue[box]
    grain = _grain(drawn, points) * look.grain
    if drawn.nodule.attenuation == "solid":
        share = torch.maximum(body, spiky) * lung
        value = look.core_hu + grain + noise
        part += share * torch.where(outside, torch.clamp(value - part, min=0), value - part)
    else:
        share = torch.maximum(body, 0.8 * spiky) * lung
        part += share * torch.clamp(look.rim_hu + grain + noise - part, min=0)
        if drawn.core is not None:
            core = soft(drawn.core.depth(points), edge * 1.2) * lung
            part += core * torch.clamp(look.core_hu + grain / 3 + noise - part, min=0)
    return box, (inside > 0) & (lung_depth[box] > 0)


def _box(
    shape: torch.Size, affine: NDArray[np.float64], centre: Points, reach: float
) -> tuple[slice, slice, slice] | None:
    to_index = np.linalg.inv(affine)
    middle = to_index[:3, :3] @ centre + to_index[:3, 3]
    half = reach * np.linalg.norm(to_index[:3, :3], axis=1)
    low = np.maximum(np.floor(middle - half).astype(int), 0)
    high = np.minimum(np.ceil(middle + half).astype(int) + 1, np.array(shape))
    if (low >= high).any():
        return None
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def _points(box: tuple[slice, slice, slice], affine: NDArray[np.float64], device: torch.device) -> torch.Tensor:
    """LPS of every voxel in a box, shape (slices, rows, columns, 3)."""
    axes = [np.arange(each.start, each.stop)[:, None] * affine[:3, n] for n, each in enumerate(box)]
    z, y, x = (torch.from_numpy(axis.astype(np.float32)).to(device) for axis in axes)
    origin = torch.from_numpy(affine[:3, 3].astype(np.float32)).to(device)
    return z[:, None, None] + y[None, :, None] + x[None, None, :] + origin


def _spicules(points: torch.Tensor, drawn: Drawn, edge: float) -> torch.Tensor:
    share = torch.zeros(points.shape[:-1], device=points.device)
    radius = drawn.nodule.diameter_mm / 2
    centre = np.asarray(drawn.nodule.centre_mm)
    for row in drawn.look.spicules * radius:
        start = torch.tensor(centre + row[:3], dtype=torch.float32, device=points.device)
        step = torch.tensor(row[3:6] - row[:3], dtype=torch.float32, device=points.device)
        away = points - start
        along = torch.clamp((away @ step) / (step @ step).clamp(min=1e-6), 0, 1)
        thick = row[6] + along * (row[7] - row[6])
        wide = torch.clamp(thick, min=edge / 2)
        distance = torch.linalg.norm(away - along[..., None] * step, dim=-1)
        share = torch.maximum(share, soft(wide - distance, edge) * (thick / wide) ** 2)
    return share


def _grain(drawn: Drawn, points: torch.Tensor) -> torch.Tensor:
    """Uneven density, from the dents of the form read at another scale."""
    centre = torch.tensor(drawn.shape.centre_mm, dtype=torch.float32, device=points.device)
    at = ((points - centre) / (drawn.shape.radius_mm * 1.2)).flip(-1).reshape(1, -1, 1, 1, 3)
    dents = drawn.shape.dents.to(points.device)
    grain = functional.grid_sample(
        dents / dents.std().clamp(min=1e-3), at, padding_mode="reflection", align_corners=True
    )
    return torch.as_tensor(grain).reshape(points.shape[:-1])
