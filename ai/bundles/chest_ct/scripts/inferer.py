"""From a chest at the fine network's voxel size to lungs and nodules: coarse first, then fine, only where lung is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from monai.inferers.inferer import SlidingWindowInferer
from monai.transforms.post.array import KeepLargestConnectedComponent
from torch.nn import functional

from .explain import saliency
from .network import CHANNELS, ChestNet
from .nodules import Candidate, at_half_contrast, dilated, find_nodules

LUNGS_HU = (-1024.0, 600.0)
NODULES_HU = (-1000.0, 400.0)
LEFT, RIGHT = 1, 2
NODULE = "nodule"


class ChestInferer:
    """Runs `ChestNet` on one image in Hounsfield units.

    Parameters
    ----------
    spacing_mm : float
        Voxel size of the image, the same along all axes.
    lungs_spacing_mm : float
        Voxel size of the coarse network, a multiple of `spacing_mm`: it sees every n-th voxel as it is, as in training.
    lungs_roi, nodules_roi : (int, int, int)
        Window of each network, in its own voxels.
    overlap : float
        Share of the fine window that the next one covers again.
    min_score : float
        Candidates below it are not reported; the node's card sets the operating point above it.
    margin_mm : float
        How far outside the lungs' outline a nodule may begin: those at the pleura are often left out of it.
    explained : int
        How many nodules, the surest first, get a saliency map.
    explained_score : float
        Those below it get none: the card's operating point.

    Attributes
    ----------
    without : collection of str
        What is not to be run: ``"nodule"``. Set by the caller before a call.
    """

    def __init__(
        self,
        spacing_mm: float,
        lungs_spacing_mm: float,
        lungs_roi: Sequence[int],
        nodules_roi: Sequence[int],
        overlap: float = 0.25,
        min_score: float = 0.1,
        margin_mm: float = 5.0,
        explained: int = 8,
        explained_score: float = 0.5,
    ) -> None:
        self._spacing_mm, self._margin_mm, self._min_score = spacing_mm, margin_mm, min_score
        self._every = round(lungs_spacing_mm / spacing_mm)
        self._coarse = SlidingWindowInferer(
            lungs_roi, sw_batch_size=1, overlap=0.5, mode="gaussian", padding_mode="constant", cval=0
        )
        self._roi = tuple(nodules_roi)
        self._fine = SlidingWindowInferer(
            nodules_roi, sw_batch_size=1, overlap=overlap, mode="gaussian", with_coord=True, padding_mode="constant"
        )
        self._explained, self._explained_score = explained, explained_score
        self.without: Collection[str] = ()

    def __call__(self, image: torch.Tensor, network: ChestNet) -> dict[str, Any]:
        """Find lungs and nodules.

        Parameters
        ----------
        image : torch.Tensor, shape (1, 1, x, y, z)
            Hounsfield units.
        network : ChestNet
            With its weights.

        Returns
        -------
        dict
            ``lungs``: uint8, (1, 1, x, y, z), 1 left and 2 right. Unless left out: ``nodules``: uint8 of the same
            shape, n where the n-th nodule is; ``nodules_membership``: float16, how surely a voxel belongs to the nodule
            at hand; ``nodules_saliency``: float16, 0 to 1; ``nodules_found``: one mapping for each, surest first.
        """
        lungs = self._lungs(image, network)
        return {"lungs": lungs} if NODULE in self.without else {"lungs": lungs, **self.find(image, lungs, network)}

    def find(self, image: torch.Tensor, lungs: torch.Tensor, network: ChestNet) -> dict[str, Any]:
        """Find the nodules in lungs that are known: the second half of a call."""
        nodules = torch.zeros_like(lungs)
        membership = torch.zeros(lungs.shape, dtype=torch.float16, device=lungs.device)
        spoke = torch.zeros_like(membership)
        found: list[Candidate] = []
        if lungs.any():
            crop, region, inside = self.cropped(image, lungs)
            maps = self.maps(crop, region, network)
            found, outlines, sure = find_nodules(maps, region, self._spacing_mm, self._min_score, network.judge)
            at_half_contrast(crop, found, outlines, sure)
            nodules[inside], membership[inside] = outlines, sure
            sure_enough = [candidate for candidate in found if candidate.score >= self._explained_score]
            spoke[inside] = saliency(crop, network, sure_enough[: self._explained], self._roi)
        return {
            "nodules": nodules,
            "nodules_membership": membership,
            "nodules_saliency": spoke,
            "nodules_found": [candidate.described() for candidate in found],
        }

    def cropped(self, image: torch.Tensor, lungs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[slice, ...]]:
        """What the fine network sees: the image around the lungs, 0 to 1; lungs with their margin; its place."""
        region = dilated(lungs > 0, round(self._margin_mm / self._spacing_mm))
        inside = (slice(None), slice(None), *_box(region[0, 0], self._roi))
        return _scaled(image[inside], NODULES_HU), region[inside], inside

    def _lungs(self, image: torch.Tensor, network: ChestNet) -> torch.Tensor:
        """Left and right lung on the grid of `image`; each one connected part at the coarse voxel size."""
        coarse = image[..., :: self._every, :: self._every, :: self._every].contiguous()
        scores = torch.softmax(torch.as_tensor(self._coarse(_scaled(coarse, LUNGS_HU), network.lungs)).float(), dim=1)
        for value, apart in _apart(scores):  # taken for the wrong lung, most of it: what else is it likely to be?
            scores[:, value][apart] = 0
        for value, apart in _apart(scores):
            scores[:, value][apart] = 0
            scores[:, 0][apart] = 1
        answer = torch.zeros(image.shape, dtype=torch.uint8, device=image.device)
        best = _between(scores[:, :1], image.shape[2:], self._every)
        for value in (LEFT, RIGHT):
            fine = _between(scores[:, value : value + 1], image.shape[2:], self._every)
            answer[fine > best] = value
            best = torch.maximum(best, fine)
        return answer

    def maps(self, crop: torch.Tensor, region: torch.Tensor, network: ChestNet) -> torch.Tensor:
        """Logits of the fine network; windows without any lung are not computed."""
        padded = any(n < most for n, most in zip(crop.shape[2:], self._roi, strict=True))

        def windows(patch: torch.Tensor, coordinates: Sequence[Sequence[slice]]) -> torch.Tensor:
            if not padded and not region[tuple(coordinates[0])].any():  # one window at a time: sw_batch_size is 1
                return torch.full((1, CHANNELS, *patch.shape[2:]), -12.0, dtype=patch.dtype, device=patch.device)
            return torch.as_tensor(network(patch))

        return torch.as_tensor(self._fine(crop, windows))


def _scaled(hu: torch.Tensor, window: tuple[float, float]) -> torch.Tensor:
    low, high = window
    return hu.sub(low).div_(high - low).clamp_(0, 1)


def _apart(scores: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """For each lung, where it is likeliest and yet not connected to the most of it: bool, (1, x, y, z)."""
    labels = scores.argmax(dim=1)
    # MONAI changes what it is given, hence the copy.
    largest = KeepLargestConnectedComponent(applied_labels=[LEFT, RIGHT], independent=True)(labels.clone())
    apart = torch.as_tensor(largest) != labels
    return [(value, apart & (labels == value)) for value in (LEFT, RIGHT)]


def _between(coarse: torch.Tensor, shape: Sequence[int], every: int) -> torch.Tensor:
    """Values between those of every n-th voxel, on straight lines; behind the last of them, its own."""
    size = [every * (n - 1) + 1 for n in coarse.shape[2:]]
    fine = functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True)
    missing = [wanted - have for wanted, have in zip(shape, size, strict=True)]
    return functional.pad(fine, [0, missing[2], 0, missing[1], 0, missing[0]], mode="replicate")


def _box(mask: torch.Tensor, at_least: Sequence[int]) -> tuple[slice, ...]:
    """Bounds of `mask`, widened to at least one window where the image allows."""
    slices = []
    for axis in range(3):
        others = [n for n in range(3) if n != axis]
        marked = torch.nonzero(mask.any(dim=others[1]).any(dim=others[0]))
        low, high = (int(marked[0]), int(marked[-1]) + 1) if len(marked) else (0, 0)
        missing = max(0, at_least[axis] - (high - low))
        low = max(0, low - missing // 2)
        high = min(mask.shape[axis], max(high, low + at_least[axis]))
        low = max(0, min(low, high - at_least[axis]))
        slices.append(slice(low, high))
    return tuple(slices)
