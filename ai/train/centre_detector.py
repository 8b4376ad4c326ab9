"""Finds things one by one: a peak of the centre map for each, and the voxels around it that belong to it.

Zhou et al., "Objects as Points", arXiv:1904.07850. Training judges with this file, and every bundle of a detector holds
a copy of it, so it imports nothing but torch and MONAI.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers.inferer import SlidingWindowInferer
from torch.nn import functional

MOST = 100
CENTRE, INSIDE = 0, 1
_GROWS = 24


class CentreInferer:
    """Runs a network that gives two maps, centre and inside, over an image and reads the findings off them.

    Parameters
    ----------
    roi_size : sequence of int
        Window of the network.
    name : str
        What is found.
    min_score : float
        Peaks below it are not reported.
    apart : int
        No two peaks lie closer than so many voxels.
    overlap : float
        Share of a window that the next one covers again.

    Attributes
    ----------
    without : collection of str
        Set by the node to what is not to be run.
    """

    def __init__(
        self, roi_size: Sequence[int], name: str, min_score: float = 0.1, apart: int = 5, overlap: float = 0.25
    ) -> None:
        self._windows = SlidingWindowInferer(roi_size, sw_batch_size=1, overlap=overlap, mode="gaussian")
        self._name, self._min_score, self._apart = name, min_score, apart
        self.without: frozenset[str] = frozenset()

    def __call__(self, image: torch.Tensor, network: torch.nn.Module) -> dict[str, Any]:
        """Find.

        Parameters
        ----------
        image : torch.Tensor, shape (1, channels, x, y, z)
        network : torch.nn.Module
            Two logits for each voxel.

        Returns
        -------
        dict
            ``marked``: uint8 of shape (1, 1, x, y, z), 1 where anything was found. ``instances``: n where the n-th is.
            ``instances_found``: for each its name, score and place, surest first.
        """
        maps = torch.as_tensor(self._windows(image, network)).float()
        found, instances = read_maps(maps[0], self._min_score, self._apart)
        if self._name in self.without:
            found, instances = [], torch.zeros_like(instances)
        described = [{"output": self._name, "score": score, "centre": centre} for score, centre in found]
        whole = instances[None, None]
        return {"marked": (whole > 0).to(torch.uint8), "instances": whole, "instances_found": described}


def read_maps(
    maps: torch.Tensor, min_score: float, apart: int
) -> tuple[list[tuple[float, tuple[int, int, int]]], torch.Tensor]:
    """Read findings off two maps.

    Parameters
    ----------
    maps : torch.Tensor, shape (2, x, y, z)
        Logits of being a centre and of lying inside.
    min_score : float
    apart : int

    Returns
    -------
    found : list of (float, (int, int, int))
        Score and voxel of each, surest first.
    instances : torch.Tensor of uint8, shape (x, y, z)
        n where the n-th is: at least its own peak.
    """
    heat, inside = torch.sigmoid(maps[CENTRE]), torch.sigmoid(maps[INSIDE]) > 0.5
    size = 2 * (apart // 2) + 1
    highest = functional.max_pool3d(heat[None, None], size, stride=1, padding=size // 2)[0, 0]
    places = torch.nonzero((heat == highest) & (heat >= min_score))
    scores = heat[tuple(places.T)].tolist()
    peaks = sorted(zip(scores, (tuple(place) for place in places.tolist()), strict=True), key=lambda p: (-p[0], p[1]))
    instances = torch.zeros(heat.shape, dtype=torch.uint8, device=heat.device)
    found: list[tuple[float, tuple[int, int, int]]] = []
    for score, (x, y, z) in peaks:
        if len(found) == MOST:
            break
        if instances[x, y, z]:  # inside a surer one
            continue
        found.append((score, (x, y, z)))
        _grow(instances, inside, (x, y, z), len(found))
    return found, instances


def _grow(instances: torch.Tensor, inside: torch.Tensor, centre: tuple[int, int, int], number: int) -> None:
    """Mark the connected part of `inside` that holds the centre, where nothing is marked yet."""
    box = tuple(slice(max(0, c - _GROWS), c + _GROWS + 1) for c in centre)
    here = tuple(c - s.start for c, s in zip(centre, box, strict=True))
    free = (inside[box] & (instances[box] == 0)).float()[None, None]
    part = torch.zeros_like(free)
    part[(0, 0, *here)] = 1
    for _ in range(_GROWS):
        grown = functional.max_pool3d(part, 3, stride=1, padding=1) * free
        grown[(0, 0, *here)] = 1
        if torch.equal(grown, part):
            break
        part = grown
    instances[box][part[0, 0] > 0] = number
