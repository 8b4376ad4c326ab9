"""Draws a whole chest with nodules, and the truth about it, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ai.contract import Volume
from ai.phantom.anatomy import LEFT, RIGHT, Chest
from ai.phantom.body import paint_body
from ai.phantom.fields import Grid, bounds, paint, soft
from ai.phantom.findings import OtherFindings, draw_findings
from ai.phantom.lungs import Plumbing, Survey, grow_plumbing, paint_airways, parenchyma
from ai.phantom.nodules import Drawn, Nodule, paint_nodule
from ai.phantom.placing import place_nodules
from ai.phantom.scanner import ScannerPlan, scan

_RIND_MM = 3.0  # so far outside the lungs their vessels are still seen
_BODY, _TREES, _PAINT, _FINDINGS, _NODULES, _SCANNER = range(1, 7)


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """One synthetic chest CT. All tensors have the shape (slices, rows, columns) and lie on one device.

    Parameters
    ----------
    hu : torch.Tensor of float32
        Hounsfield units.
    affine : numpy.ndarray of float64, shape (4, 4)
        (slice, row, column, 1) to LPS mm; slices from below upwards.
    lungs : torch.Tensor of uint8
        1 in the left lung, 2 in the right, with their vessels, airways and nodules; 0 elsewhere and at the hila.
    lobes : torch.Tensor of uint8
        See `ai.phantom.anatomy.LOBES`; 0 outside the lungs.
    instances : torch.Tensor of uint8
        n in the n-th nodule, counted from 1.
    nodules : tuple of Nodule
        The truth about each.
    plan : ScannerPlan
        How it was scanned.
    sex : str
        ``F`` or ``M``.
    """

    hu: torch.Tensor
    affine: NDArray[np.float64]
    lungs: torch.Tensor
    lobes: torch.Tensor
    instances: torch.Tensor
    nodules: tuple[Nodule, ...]
    plan: ScannerPlan
    sex: str

    def to_volume(self) -> Volume:
        """The image as a model is given it."""
        return Volume(self.hu.cpu().numpy(), self.affine)


def make_phantom(
    seed: int,
    spacing_mm: tuple[float, float, float] = (1.25, 1.25, 1.25),
    *,
    device: torch.device | str = "cpu",
    nodules: int | None = None,
    plan: ScannerPlan | None = None,
) -> Phantom:
    """Draw one chest.

    Parameters
    ----------
    seed : int
        The same seed draws the same body with the same nodules, whatever the spacing and the device.
    spacing_mm : (float, float, float)
        Between slices, rows and columns.
    device : torch.device or str
        Where to draw.
    nodules : int, optional
        How many; drawn by default, none in about a quarter of all bodies. Fewer may be placed where lungs are small.
    plan : ScannerPlan, optional
        How to scan it; drawn by default.

    Returns
    -------
    Phantom
    """
    (phantom,) = scan_phantom(seed, [plan or drawn_plan(seed)], spacing_mm, device=device, nodules=nodules)
    return phantom


def scan_phantom(
    seed: int,
    plans: Iterable[ScannerPlan],
    spacing_mm: tuple[float, float, float] = (1.25, 1.25, 1.25),
    *,
    device: torch.device | str = "cpu",
    nodules: int | None = None,
) -> Iterator[Phantom]:
    """Draw one chest, and scan it once for each plan: drawing takes longer than scanning.

    Parameters
    ----------
    seed, spacing_mm, device, nodules
        As `make_phantom` takes them.
    plans : iterable of ScannerPlan
        How to scan it.

    Yields
    ------
    Phantom
        The same body with the same truth for each plan.
    """
    chest = Chest.draw(np.random.default_rng([seed, _BODY]))
    survey = Survey.of(chest)
    plumbing = grow_plumbing(chest, survey, np.random.default_rng([seed, _TREES]))
    others = draw_findings(chest, survey, np.random.default_rng([seed, _FINDINGS]))
    rng = np.random.default_rng([seed, _NODULES])
    count = int(rng.choice([0, 1, 2, 3, 4, 5, 6, 8], p=[0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.04]))
    left_over = _without(survey, chest, others)
    placed = place_nodules(chest, left_over, plumbing.vessels, others, rng, count if nodules is None else nodules)

    grid = Grid.covering(*chest.extent_mm(), spacing_mm, device)
    hu, lungs, lobes, instances = _drawn(grid, seed, chest, plumbing, others, placed)
    for plan in plans:
        yield Phantom(
            hu=scan(hu, spacing_mm, plan),
            affine=grid.affine,
            lungs=lungs,
            lobes=lobes,
            instances=instances,
            nodules=tuple(drawn.nodule for drawn in placed),
            plan=plan,
            sex="F" if chest.female else "M",
        )


def _drawn(
    grid: Grid, seed: int, chest: Chest, plumbing: Plumbing, others: OtherFindings, placed: Sequence[Drawn]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The image before it is scanned, lungs, lobes and nodules: a few slices at a time, which the caches hold."""
    hu = torch.empty(grid.shape, device=grid.x.device)
    lungs, lobes, instances = (torch.zeros(grid.shape, dtype=torch.uint8, device=grid.x.device) for _ in range(3))
    for slab in grid.slabs():
        part = grid.part((slab, slice(None), slice(None)))
        rng = np.random.default_rng([seed, _PAINT])  # the same body in each
        blood = float(rng.uniform(35, 60) if rng.random() < 0.6 else rng.uniform(100, 280))
        hu[slab] = paint_body(part, chest, rng, blood)
        whole, left = chest.lungs(part)
        depth = others.cut(part, chest, whole, left)
        box = bounds(whole > -_RIND_MM - grid.edge_mm)
        near, image, whole, left = part.part(box), hu[slab][box], whole[box], left.expand(part.shape)[box]
        lobe, crossing = chest.lobes(near, whole, left)
        aerated = parenchyma(near, chest, whole, crossing, rng)
        others.paint_lung(near, aerated)
        paint(image, soft(whole, grid.edge_mm), float(rng.uniform(0, 45)))
        paint(image, soft(depth[box], grid.edge_mm), aerated)
        share = plumbing.vessels.on(part)[box] * torch.clamp(1.5 + whole / 2, 0, 1)
        paint(image, share, torch.clamp(image, min=blood))
        paint_airways(part, hu[slab], plumbing, rng)
        others.paint_over(part, hu[slab], depth)
        for number, drawn in enumerate(placed, start=1):
            painted = paint_nodule(hu[slab], part.affine, drawn, depth)
            if painted is not None:
                instances[slab][painted[0]][painted[1]] = number
        inside = depth[box] > 0
        lungs[slab][box] = torch.where(inside, torch.where(left, LEFT, RIGHT), 0).to(torch.uint8)
        lobes[slab][box] = torch.where(inside, lobe, 0)
    return hu, lungs, lobes, instances


def drawn_plan(seed: int) -> ScannerPlan:
    """How the chest of this seed is scanned if nobody says how."""
    return ScannerPlan.draw(np.random.default_rng([seed, _SCANNER]))


def _without(survey: Survey, chest: Chest, others: OtherFindings) -> Survey:
    """The lungs without what plaques, fluid and a collapsed lobe take of them."""
    left = chest.lungs(survey.grid)[1]
    depth = others.cut(survey.grid, chest, torch.from_numpy(survey.depth_mm), left)
    return replace(survey, depth_mm=depth.numpy())
