"""The two networks of the bundle in one module, so that one file of weights holds both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.unet import UNet

# Channels of the nodule network, in order.
CENTRE, INSIDE = 0, 1
ATTENUATION = slice(2, 5)
SPICULATED = 5
CHANNELS = 6


class ChestNet(torch.nn.Module):
    """A coarse network for the lungs and a fine one, with several heads, for the nodules in them.

    The fine one scales its features by what was usual in training (batch normalisation), not by what is in the window
    at hand: a nodule looks the same beside the diaphragm and in the middle of a lung.

    Parameters
    ----------
    lungs_channels, nodules_channels : sequence of int
        Features of each level of the two U-Nets.
    nodules_units : int
        Residual units of each level of the fine one.
    """

    def __init__(
        self,
        lungs_channels: Sequence[int],
        nodules_channels: Sequence[int],
        nodules_units: int = 2,
        heads: int = CHANNELS,
    ) -> None:
        super().__init__()
        self.lungs = _unet(lungs_channels, 3, 1, "instance")
        self.nodules = _unet(nodules_channels, heads, nodules_units, "batch")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps of the nodule network: logits, shape (batch, CHANNELS, x, y, z); `lungs` is called by name."""
        return torch.as_tensor(self.nodules(image))


def _unet(channels: Sequence[int], out_channels: int, units: int, norm: str) -> UNet:
    return UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=out_channels,
        channels=channels,
        strides=[2] * (len(channels) - 1),
        num_res_units=units,
        norm=norm,
    )
