"""What in the image spoke for a nodule: SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825) of its centre's logit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.visualize.gradient_based import SmoothGrad
from torch.nn import functional

from .network import CENTRE, ChestNet
from .nodules import Candidate

SAMPLES = 4
SPREAD = 0.05
PATCH = 48


def saliency(
    image: torch.Tensor, network: ChestNet, candidates: Sequence[Candidate], roi: Sequence[int]
) -> torch.Tensor:
    """Saliency of each candidate in the patch around it.

    Parameters
    ----------
    image : torch.Tensor, shape (1, 1, x, y, z)
        What the fine network was given.
    network : ChestNet
        With its weights.
    candidates : sequence of Candidate
        Their centres are voxels of `image`.
    roi : (int, int, int)
        The window of the fine network: no patch is larger.

    Returns
    -------
    torch.Tensor of float16, shape (1, 1, x, y, z)
        0 to 1: for each candidate its own largest value is 1. Where patches meet, the larger value.
    """
    spoke = torch.zeros(image.shape, dtype=torch.float16, device=image.device)
    for candidate in candidates:
        box = []
        for centre, size, most in zip(candidate.centre, image.shape[2:], roi, strict=True):
            length = min(PATCH, size, most)
            low = min(max(0, centre - length // 2), size - length)
            box.append(slice(low, low + length))
        here = tuple(c - s.start for c, s in zip(candidate.centre, box, strict=True))
        patch = _smooth_grad(image[(slice(None), slice(None), *box)], network, here)
        part = spoke[(slice(None), slice(None), *box)]
        torch.maximum(part, patch.half(), out=part)
    return spoke


def _smooth_grad(patch: torch.Tensor, network: ChestNet, centre: tuple[int, ...]) -> torch.Tensor:
    with torch.inference_mode(mode=False), torch.enable_grad():
        whole = [min(16 * -(-n // 16), PATCH) for n in patch.shape[2:]]
        image = patch.clone()
        if tuple(whole) != tuple(patch.shape[2:]):
            pads = [(0, w - n) for w, n in zip(reversed(whole), reversed(patch.shape[2:]), strict=True)]
            image = functional.pad(image, [side for pad in pads for side in pad])
        torch.manual_seed(0)  # the same image gives the same map
        logit = _CentreLogit(network, centre).eval()  # MONAI puts it, and the network in it, back into this mode
        explain = SmoothGrad(logit, SPREAD, SAMPLES, magnitude=True, verbose=False)
        map_ = torch.as_tensor(explain(image, index=0)).detach()
    map_ = map_[:, :, : patch.shape[2], : patch.shape[3], : patch.shape[4]]
    map_ = functional.avg_pool3d(map_, 3, stride=1, padding=1)
    return map_ / map_.max().clamp(min=1e-12)


class _CentreLogit(torch.nn.Module):
    """The network as a classifier of one question: whether the centre of a nodule lies at this voxel."""

    def __init__(self, network: ChestNet, centre: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self._centre = network, centre

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The centre's logit, shape (batch, 1)."""
        x, y, z = self._centre
        return torch.as_tensor(self.network(image)[:, CENTRE, x, y, z])[:, None]
