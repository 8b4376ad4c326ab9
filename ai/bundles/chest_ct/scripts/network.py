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
# What is known of a candidate when its score is set, in order (nodules.py).
TRAITS = ("centre", "inside_mean", "inside_most", "size", "size_squared", "around")


class ChestNet(torch.nn.Module):
    """A coarse network for the lungs, a fine one with several heads for the nodules in them, and what ranks these.

    The fine one scales its features by what was usual in training (batch normalisation), not by what is in the window
    at hand: a nodule looks the same beside the diaphragm and in the middle of a lung.

    Two small layers, learnt after the maps, judge what was found: `ranking` makes one score of what the maps say of a
    whole candidate (logistic regression), `kinds` corrects what they say of its attenuation (matrix scaling). Until
    they have learnt anything, the score is the probability of the centre alone, and the attenuation stays as it is.

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
        self.ranking = torch.nn.Linear(len(TRAITS), 1)
        self.kinds = torch.nn.Linear(3, 3)
        with torch.no_grad():
            for layer in (self.ranking, self.kinds):
                layer.weight.copy_(torch.eye(*layer.weight.shape))
                layer.bias.zero_()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps of the nodule network: logits, shape (batch, CHANNELS, x, y, z); `lungs` is called by name."""
        return torch.as_tensor(self.nodules(image))

    def judge(self, traits: torch.Tensor, attenuation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Judge candidates, in single precision always.

        Parameters
        ----------
        traits : torch.Tensor, shape (candidates, traits)
            Their `TRAITS`.
        attenuation : torch.Tensor, shape (candidates, 3)
            Probabilities of each as the maps have them.

        Returns
        -------
        (torch.Tensor, torch.Tensor)
            Scores, 0 to 1, shape (candidates,); probabilities of each attenuation, shape (candidates, 3).
        """
        with torch.autocast(traits.device.type, enabled=False):
            scores = torch.sigmoid(self.ranking(traits.float()))[:, 0]
            return scores, torch.softmax(self.kinds(log_of(attenuation.float())), dim=1)


def log_of(probabilities: torch.Tensor) -> torch.Tensor:
    """Logarithms of probabilities; of what is all but impossible that of 1e-6."""
    return probabilities.clamp(min=1e-6).log()


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
