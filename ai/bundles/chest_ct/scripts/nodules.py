"""Reads nodules off the maps of the fine network: a peak for each centre, the voxels that belong to it, its classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from .network import ATTENUATION, CENTRE, INSIDE, SPICULATED

MOST = 100  # nodules of one scan
LARGEST_MM = 60.0
APART_MM = 4.0
FAR_MM = 15.0  # from `region` to the centre of the largest
_LUNG = 0.36  # of the network's window: -500 HU
KINDS = ("solid", "part-solid", "ground-glass")


@dataclass(frozen=True)
class Candidate:
    """One nodule: where its centre lies in the maps, how sure the network is, and what kind it is."""

    centre: tuple[int, int, int]
    score: float
    attenuation: tuple[float, float, float]
    spiculated: float

    def described(self) -> dict[str, Any]:
        """In the words that the node's card uses."""
        kinds = dict(zip(KINDS, self.attenuation, strict=True))
        return {
            "output": "nodule",
            "score": self.score,
            "classes": {
                "attenuation": kinds,
                "margin": {"smooth": 1 - self.spiculated, "spiculated": self.spiculated},
            },
        }


def find_nodules(
    maps: torch.Tensor, region: torch.Tensor, spacing_mm: float, min_score: float
) -> tuple[list[Candidate], torch.Tensor, torch.Tensor]:
    """Find nodules.

    Parameters
    ----------
    maps : torch.Tensor, shape (1, CHANNELS, x, y, z)
        Logits.
    region : torch.Tensor of bool, shape (1, 1, x, y, z)
        The lungs and what is next to them: a nodule has to reach into it. The centre of a large one may lie farther
        out, for the outline of a lung leaves large nodules at its border out.
    spacing_mm : float
        Voxel size.
    min_score : float
        The least probability of a centre.

    Returns
    -------
    candidates : list of Candidate
        Surest first.
    instances : torch.Tensor of uint8, shape (1, 1, x, y, z)
        n where the n-th candidate is.
    membership : torch.Tensor of float16, shape (1, 1, x, y, z)
        Probability of lying in a nodule; zero outside of all candidates and the voxels around them.
    """
    heat = torch.sigmoid(maps[:, CENTRE : CENTRE + 1].float()) * dilated(region, round(FAR_MM / spacing_mm))
    inside = torch.sigmoid(maps[:, INSIDE : INSIDE + 1].float())
    instances = torch.zeros(heat.shape, dtype=torch.uint8, device=heat.device)
    membership = torch.zeros(heat.shape, dtype=torch.float16, device=heat.device)
    candidates: list[Candidate] = []
    reach = round(LARGEST_MM / 2 / spacing_mm)
    for score, centre in peaks(heat, spacing_mm, min_score):
        if len(candidates) == MOST:
            break
        box = tuple(
            slice(max(0, c - reach), min(n, c + reach + 1)) for c, n in zip(centre, heat.shape[2:], strict=True)
        )
        at = _first(box)
        here = tuple(c - s.start for c, s in zip(centre, box, strict=True))
        free = instances[at] == 0
        mask = _part_at((inside[at] > 0.5) & free, here)
        if mask is None or not (mask & region[at]).any():  # no body, or a surer nodule's, or one away from the lungs
            continue
        number = len(candidates) + 1
        instances[at][mask] = number
        around = functional.max_pool3d(mask[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
        keep = around & (free | mask)
        membership[at][keep] = inside[at][keep].half()
        x, y, z = box
        logits = maps[0, :, x, y, z][:, mask].float().mean(dim=1)
        kinds = torch.softmax(logits[ATTENUATION], dim=0).tolist()
        candidates.append(
            Candidate(centre, score, (kinds[0], kinds[1], kinds[2]), float(torch.sigmoid(logits[SPICULATED])))
        )
    return candidates, instances, membership


def at_half_contrast(
    image: torch.Tensor, candidates: list[Candidate], instances: torch.Tensor, membership: torch.Tensor
) -> None:
    """Move the outline of solid nodules to where the image lies halfway between nodule and lung.

    What the network learnt as the edge depends on how its training scans were blurred; the half of the contrast does
    not (full width at half maximum). A nodule without lung around it keeps the network's outline.

    Parameters
    ----------
    image : torch.Tensor, shape (1, 1, x, y, z)
        What the network was given: linear in Hounsfield units.
    candidates, instances, membership
        From `find_nodules`; the two maps are changed in place.
    """
    for number, candidate in enumerate(candidates, start=1):
        marked = torch.nonzero(instances[0, 0] == number)
        if candidate.attenuation[0] < max(candidate.attenuation[1:]) or not len(marked):
            continue
        low, high = marked.min(dim=0).values - 4, marked.max(dim=0).values + 5
        box = tuple(slice(max(0, int(a)), int(b)) for a, b in zip(low, high, strict=True))
        at = _first(box)
        here, mask, sure = image[at], instances[at] == number, membership[at]
        near = functional.max_pool3d(mask[None, None].float(), 7, stride=1, padding=3)[0, 0] > 0
        lung = here[near & ~mask & (instances[at] == 0) & (here < _LUNG)]
        core = here[mask & (sure > 0.9)]
        if len(lung) < 20 or len(core) < 3 or float(core.median() - lung.median()) < 0.2:
            continue
        contrast = core.median() - lung.median()
        share = ((here - lung.median()) / contrast).clamp(0, 1).half()
        kept = mask & (share > 0.5)
        if not kept.any():
            continue
        instances[at][mask & ~kept] = 0
        own = functional.max_pool3d(kept[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
        sure[own] = torch.minimum(sure[own], share[own])
        sure[mask & ~own] = 0


def dilated(mask: torch.Tensor, steps: int) -> torch.Tensor:
    """Grow a mask of shape (1, 1, x, y, z) by a box of so many voxels to each side."""
    grown = mask.to(torch.float16) if mask.is_cuda else mask.to(torch.float32)
    for axis in range(3):  # one axis after the other
        size = [1, 1, 1]
        size[axis] = 2 * steps + 1
        grown = functional.max_pool3d(grown, size, stride=1, padding=[n // 2 for n in size])
    return grown > 0


def peaks(heat: torch.Tensor, spacing_mm: float, min_score: float) -> list[tuple[float, tuple[int, int, int]]]:
    """Local maxima of a map of shape (1, 1, x, y, z) that reach `min_score`: values and voxels, highest first."""
    size = 2 * max(1, round(APART_MM / spacing_mm / 2)) + 1
    highest = functional.max_pool3d(heat, size, stride=1, padding=size // 2)
    places = torch.nonzero((heat == highest) & (heat >= min_score))
    scores = heat[tuple(places.T)].tolist()
    return sorted(
        ((score, (int(x), int(y), int(z))) for score, (_, _, x, y, z) in zip(scores, places.tolist(), strict=True)),
        key=lambda peak: (-peak[0], peak[1]),
    )


def _first(box: tuple[slice, ...]) -> tuple[int | slice, ...]:
    """Index of a box in the first channel of the first image."""
    return (0, 0, *box)


def _part_at(mask: torch.Tensor, start: tuple[int, ...]) -> torch.Tensor | None:
    """The connected part of `mask` that holds `start` or touches it; None if there is none."""
    near = tuple(slice(max(0, c - 1), c + 2) for c in start)
    if not mask[near].any():
        return None
    part = torch.zeros_like(mask)
    part[near] = mask[near]
    count = -1
    while int(part.sum()) != count:  # grows by several voxels a round; a nodule is small
        count = int(part.sum())
        for _ in range(4):
            part = (functional.max_pool3d(part[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0) & mask
    return part
