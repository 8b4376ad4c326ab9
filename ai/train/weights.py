"""Weights to begin with: those of a bundle or of another run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def read_weights(network: torch.nn.Module, path: Path) -> list[str]:
    """Load what fits, by name and shape.

    Parameters
    ----------
    network : torch.nn.Module
    path : pathlib.Path
        A file of `torch.save`: a state dict, or one under ``model`` or ``state_dict``. Only tensors are read, no code.

    Returns
    -------
    list of str
        Names of the weights that keep their random start: those of a last layer for other outputs, for example.

    Raises
    ------
    ValueError
        If less than half of the network's weights would be loaded.
    """
    found: Any = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("model", "state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    own = network.state_dict()
    fitting = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if sum(value.numel() for value in fitting.values()) < 0.5 * sum(value.numel() for value in own.values()):
        raise ValueError(f"{path} holds the weights of another network: {len(fitting)} of {len(own)} fit.")
    network.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))
