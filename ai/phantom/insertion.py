"""Puts nodules into a real lung: cut at its pleura, beside its vessels, with its noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from ai.phantom.fields import Grid, Points
from ai.phantom.nodules import (
    Attenuation,
    Drawn,
    Margin,
    Nodule,
    Place,
    draw_diameter,
    draw_kind,
    draw_nodule,
    paint_nodule,
)
from ai.phantom.scanner import blurred

_SURVEY_MM = 2.5
_VESSEL_HU = -600.0
_TRIES = 80
_PLACES: tuple[Place, ...] = ("parenchymal", "juxta-pleural", "juxta-vascular")


def insert_nodules(
    hu: torch.Tensor,
    affine: NDArray[np.float64],
    lungs: torch.Tensor,
    rng: np.random.Generator,
    count: int,
    *,
    diameters_mm: tuple[float, float] = (3.2, 30.0),
    kinds: tuple[tuple[Attenuation, Margin], ...] | None = None,
    blur_mm: float = 0.9,
) -> tuple[torch.Tensor, torch.Tensor, tuple[Nodule, ...]]:
    """Put synthetic nodules into a scan.

    Parameters
    ----------
    hu : torch.Tensor of float32, shape (slices, rows, columns)
        Hounsfield units; left as it is.
    affine : numpy.ndarray of float64, shape (4, 4)
        (slice, row, column, 1) to LPS mm.
    lungs : torch.Tensor of uint8, shape (slices, rows, columns)
        1 in the left lung, 2 in the right. Holes and notches, such as vessels that were left out, are filled.
    rng : numpy.random.Generator
        Decides all.
    count : int
        How many; fewer are placed where there is no room.
    diameters_mm : (float, float)
        Smallest and largest.
    kinds : tuple of (str, str), optional
        Attenuation and margin of each, instead of drawn ones.
    blur_mm : float
        How wide the scanner makes sharp edges, beyond the size of a voxel.

    Returns
    -------
    hu : torch.Tensor of float32, shape (slices, rows, columns)
        The scan with nodules, equal to the given one away from them.
    instances : torch.Tensor of uint8, shape (slices, rows, columns)
        n in the n-th nodule.
    nodules : tuple of Nodule
        The truth about each; their lobe is 0, unknown.
    """
    lung = _Lung.of(hu, affine, lungs)
    changed, instances = hu.clone(), torch.zeros(hu.shape, dtype=torch.uint8, device=hu.device)
    depth, residue = lung.depth_on(hu), _noise_of(hu)
    placed: list[Drawn] = []
    for attempt in range(count * 4):
        if len(placed) == count:
            break
        diameter = draw_diameter(rng, *diameters_mm)
        place = _PLACES[int(rng.choice(3, p=[0.5, 0.28, 0.22]))]
        attenuation, margin = draw_kind(rng, diameter) if kinds is None else kinds[attempt % len(kinds)]
        place = "parenchymal" if attenuation != "solid" and place == "juxta-vascular" else place
        centre = lung.find(rng, diameter / 2, place, placed)
        if centre is None:
            continue
        side = "left" if lung.side_at(centre) == 1 else "right"
        drawn = draw_nodule(rng, centre, diameter, attenuation, margin, place, side, 0, lung.depth)
        if drawn.nodule.diameter_mm < 3:
            continue
        painted = paint_nodule(changed, affine, drawn, depth, blur_mm, residue)
        if painted is not None:
            placed.append(drawn)
            instances[painted[0]][painted[1]] = len(placed)
    return changed, instances, tuple(drawn.nodule for drawn in placed)


@dataclass(frozen=True, slots=True, eq=False)
class _Lung:
    """The lungs of a real scan on a coarse grid on the CPU.

    `signed` is the depth below the pleura in mm, negative outside; `vessel` the distance from the nearest vessel.
    """

    affine: NDArray[np.float64]
    whole: NDArray[np.float64]
    signed: NDArray[np.float32]
    side: NDArray[np.uint8]
    vessel: NDArray[np.float32]
    clear: NDArray[np.float32]

    @classmethod
    def of(cls, hu: torch.Tensor, affine: NDArray[np.float64], lungs: torch.Tensor) -> _Lung:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        counts = np.maximum(np.ceil(np.array(hu.shape) * spacing / _SURVEY_MM), 4).astype(int)
        size = (int(counts[0]), int(counts[1]), int(counts[2]))
        factor = np.array(hu.shape) / counts  # a coarse voxel in fine ones
        coarse = affine.copy()
        coarse[:3, :3] = affine[:3, :3] * factor
        coarse[:3, 3] = affine[:3, 3] + affine[:3, :3] @ (factor / 2 - 0.5)
        step = spacing * factor
        shares = [
            functional.interpolate((lungs == side)[None, None].float(), size=size, mode="trilinear") for side in (1, 2)
        ]
        masks = [_filled((share[0, 0] > 0.5).cpu().numpy(), step) for share in shares]
        inside = masks[0] | masks[1]
        signed = ndimage.distance_transform_edt(inside, step) - ndimage.distance_transform_edt(~inside, step)
        vessels = ((hu > _VESSEL_HU) & (lungs > 0))[None, None].float()
        dense = functional.adaptive_max_pool3d(vessels, size)[0, 0].cpu().numpy() > 0
        near = ndimage.distance_transform_edt(~(dense & inside), step).astype(np.float32)
        return cls(
            coarse,
            affine,
            (signed - np.sign(signed) * step.mean() / 2).astype(np.float32),
            np.where(masks[0], 1, np.where(masks[1], 2, 0)).astype(np.uint8),
            near,
            ndimage.distance_transform_edt(inside, step).astype(np.float32),
        )

    def depth(self, grid: Grid) -> torch.Tensor:
        """Depth below the pleura at every point of a grid."""
        points = grid.points()
        inverse = np.linalg.inv(self.affine)
        index = points @ torch.from_numpy(inverse[:3, :3].T.astype(np.float32)) + torch.from_numpy(
            inverse[:3, 3].astype(np.float32)
        )
        last = torch.tensor(self.signed.shape, dtype=torch.float32) - 1
        at = (index / last * 2 - 1).flip(-1).reshape(1, -1, 1, 1, 3)
        found = functional.grid_sample(
            torch.from_numpy(self.signed)[None, None], at, padding_mode="border", align_corners=True
        )
        return found.reshape(points.shape[:-1])

    def depth_on(self, hu: torch.Tensor) -> torch.Tensor:
        """Depth below the pleura at every voxel of the scan, on its device."""
        signed = torch.from_numpy(self.signed).to(hu.device)[None, None]
        return functional.interpolate(signed, size=hu.shape, mode="trilinear", align_corners=False)[0, 0]

    def side_at(self, point: Points) -> int:
        nearest = self._index(point)
        z, y, x = nearest
        around = self.side[max(z - 2, 0) : z + 3, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
        return 1 if (around == 1).sum() >= (around == 2).sum() else 2

    def find(self, rng: np.random.Generator, radius: float, place: Place, placed: list[Drawn]) -> Points | None:
        """A centre, or None when there was no room."""
        step = float(np.linalg.norm(self.affine[:3, 0]))
        if place == "juxta-pleural":
            low = max(radius * 0.35, 1.0)
            where = (self.clear >= low) & (self.clear <= max(radius * 0.9, low + step))
        elif place == "juxta-vascular":
            where = (self.clear > radius + 3) & (self.vessel > radius * 0.4) & (self.vessel < radius * 0.9 + 1.5)
        else:
            apart = min(radius * 0.6 + 1.5, 5.0)
            where = (self.clear > radius * 1.3 + 2.5) & (self.vessel > apart)
        index = np.argwhere(where)
        if not len(index):
            return None
        chosen = index[rng.integers(0, len(index), _TRIES)] + rng.uniform(-0.4, 0.4, (_TRIES, 3))
        for centre in chosen @ self.affine[:3, :3].T + self.affine[:3, 3]:
            if all(
                np.linalg.norm(centre - other.shape.centre_mm) > 1.4 * (radius + other.shape.radius_mm) + 6
                for other in placed
            ):
                return np.asarray(centre)
        return None

    def _index(self, point: Points) -> NDArray[np.int64]:
        index = np.round(np.linalg.inv(self.affine)[:3] @ np.append(point, 1)).astype(np.int64)
        return np.asarray(np.clip(index, 0, np.array(self.signed.shape) - 1))


def _filled(mask: NDArray[np.bool_], step: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The lung with its vessels and the notches that they and nodules leave in its outline."""
    if not mask.any():
        return mask
    reach = int(np.ceil(8.0 / step.mean()))
    padded = np.pad(mask, reach)
    outside = ndimage.distance_transform_edt(~padded, step)
    closed = ndimage.distance_transform_edt(outside < 8.0, step) > 8.0
    filled = ndimage.binary_fill_holes(closed | padded)
    return np.asarray(filled[tuple(slice(reach, -reach) for _ in range(3))])


def _noise_of(hu: torch.Tensor) -> torch.Tensor:
    """What is left of the image without its structure: its noise, also where edges and vessels are."""
    smooth = hu
    for axis in range(3):
        smooth = blurred(smooth, 0.8, axis)
    residue = hu - smooth
    limit = 2.5 * 1.4826 * residue[::3, ::3, ::3].abs().median()
    return torch.clamp(residue, -limit, limit)
