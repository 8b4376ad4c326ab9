"""Reads nodules off the maps of the fine network: a peak for each centre, the voxels that belong to it, its classes.

How likely a candidate is a nodule is said by all that the maps say of it, not by its centre alone: a small or faint
nodule has an unsure centre and a sure body, a crossing of vessels the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from .network import ATTENUATION, CENTRE, INSIDE, SPICULATED

MOST = 100  # nodules of one scan
LARGEST_MM = 60.0
APART_MM = 4.0
FAR_MM = 15.0  # from `region` to the centre of the largest
LEAST_CENTRE = 0.02  # a peak below it is none
_AROUND = 2  # voxels around a candidate
_LUNG = 0.36  # of the network's window: -500 HU
KINDS = ("solid", "part-solid", "ground-glass")
_FAINT = KINDS.index("ground-glass")
_FAINT_EDGE = 1.1  # the logit of 0.75


@dataclass(frozen=True)
class Candidate:
    """One nodule: where its centre lies in the maps, how sure the network is, and what kind it is.

    Attributes
    ----------
    traits : tuple of float
        What the maps say of it, in the order of `network.TRAITS`: the logit at its centre; of the logits of lying
        inside a nodule the mean and the largest over its voxels; the natural logarithm of its size in mm (diameter of
        the sphere of its volume), and this squared; the mean probability of lying inside, in the two voxels around it.
    """

    centre: tuple[int, int, int]
    score: float
    traits: tuple[float, ...]
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
    maps: torch.Tensor,
    region: torch.Tensor,
    spacing_mm: float,
    min_score: float,
    judge: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
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
        The least score.
    judge : callable
        `network.ChestNet.judge`.

    Returns
    -------
    candidates : list of Candidate
        Surest first.
    instances : torch.Tensor of uint8, shape (1, 1, x, y, z)
        n where the n-th candidate is.
    membership : torch.Tensor of float16, shape (1, 1, x, y, z)
        Probability of lying in a nodule; zero outside of all candidates and the voxels around them.
    """
    candidates, instances = candidates_of(maps, region, spacing_mm)
    membership = torch.zeros(instances.shape, dtype=torch.float16, device=instances.device)
    if not candidates:
        return [], instances, membership
    traits = torch.tensor([one.traits for one in candidates], device=maps.device)
    judged = judge(traits, torch.tensor([one.attenuation for one in candidates], device=maps.device))
    scores, kinds = judged[0].tolist(), judged[1].tolist()
    order = sorted(range(len(scores)), key=lambda n: (-scores[n], candidates[n].centre))
    order = [n for n in order if scores[n] >= min_score]
    numbers = torch.zeros(len(scores) + 1, dtype=torch.uint8, device=instances.device)
    for number, n in enumerate(order, start=1):
        numbers[n + 1] = number
    instances = numbers[instances.long()]
    found = [replace(candidates[n], score=scores[n], attenuation=tuple(kinds[n])) for n in order]
    _outline(found, maps[:, INSIDE : INSIDE + 1].float(), instances, membership)
    return found, instances, membership


def candidates_of(maps: torch.Tensor, region: torch.Tensor, spacing_mm: float) -> tuple[list[Candidate], torch.Tensor]:
    """Every centre that has a body, and where that is; the surest centre first, its probability as the score."""
    heat = torch.sigmoid(maps[:, CENTRE : CENTRE + 1].float()) * dilated(region, round(FAR_MM / spacing_mm))
    instances = torch.zeros(heat.shape, dtype=torch.uint8, device=heat.device)
    candidates: list[Candidate] = []
    reach = round(LARGEST_MM / 2 / spacing_mm)
    for score, centre in peaks(heat, spacing_mm, LEAST_CENTRE):
        if len(candidates) == MOST:
            break
        box = tuple(
            slice(max(0, c - reach), min(n, c + reach + 1)) for c, n in zip(centre, heat.shape[2:], strict=True)
        )
        at = _first(box)
        here = tuple(c - s.start for c, s in zip(centre, box, strict=True))
        x, y, z = box
        logits = maps[0, :, x, y, z].float()
        mask = _part_at((logits[INSIDE] > 0) & (instances[at] == 0), here)
        if mask is None or not (mask & region[at]).any():  # no body, or a surer nodule's, or one away from the lungs
            continue
        instances[at][mask] = len(candidates) + 1
        of_body = logits[:, mask].mean(dim=1)
        kinds = torch.softmax(of_body[ATTENUATION], dim=0).tolist()
        candidates.append(
            Candidate(
                centre,
                score,
                _traits(logits, mask, here, spacing_mm),
                (kinds[0], kinds[1], kinds[2]),
                float(torch.sigmoid(of_body[SPICULATED])),
            )
        )
    return candidates, instances


def _traits(logits: torch.Tensor, body: torch.Tensor, centre: tuple[int, ...], spacing_mm: float) -> tuple[float, ...]:
    inside = logits[INSIDE]
    around = _grown(body, _AROUND) & ~body
    size = math.log((6 / math.pi * float(body.sum())) ** (1 / 3) * spacing_mm)
    return (
        float(logits[(CENTRE, *centre)]),
        float(inside[body].mean()),
        float(inside[body].max()),
        size,
        size**2,
        float(torch.sigmoid(inside[around]).mean()) if around.any() else 0.0,
    )


def _outline(found: list[Candidate], inside: torch.Tensor, instances: torch.Tensor, membership: torch.Tensor) -> None:
    """Fill in the probabilities of each nodule, and of the voxels next to it that are no other's.

    What is ground-glass is marked where the network is surer than elsewhere, and its probabilities are shifted so that
    they are a half there: at a half of its own its outlines were a fifth too large.
    """
    for number, candidate in enumerate(found, start=1):
        marked = torch.nonzero(instances[0, 0] == number)
        low, high = marked.min(dim=0).values - 1, marked.max(dim=0).values + 2
        at = _first(tuple(slice(max(0, int(a)), int(b)) for a, b in zip(low, high, strict=True)))
        mask, logits = instances[at] == number, inside[at]
        if candidate.attenuation[_FAINT] == max(candidate.attenuation):
            tighter = mask & (logits > _FAINT_EDGE)
            if tighter.any():
                instances[at][mask & ~tighter] = 0
                mask, logits = tighter, logits - _FAINT_EDGE
        keep = _grown(mask, 1) & (mask | (instances[at] == 0))
        membership[at][keep] = torch.sigmoid(logits)[keep].half()


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
        near = _grown(mask, 3)
        lung = here[near & ~mask & (instances[at] == 0) & (here < _LUNG)]
        core = here[mask].topk(min(int(mask.sum()), max(3, int(mask.sum()) // 4))).values
        if len(lung) < 20 or len(core) < 3 or float(core.median() - lung.median()) < 0.2:
            continue
        contrast = core.median() - lung.median()
        share = ((here - lung.median()) / contrast).clamp(0, 1).half()
        kept = mask & (share > 0.5)
        if not kept.any():
            continue
        instances[at][mask & ~kept] = 0
        own = _grown(kept, 1)
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


def _grown(mask: torch.Tensor, steps: int) -> torch.Tensor:
    """Grow a mask of shape (x, y, z) by a box of so many voxels to each side."""
    return functional.max_pool3d(mask[None, None].float(), 2 * steps + 1, stride=1, padding=steps)[0, 0] > 0


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
            part = _grown(part, 1) & mask
    return part
