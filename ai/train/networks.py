"""Networks of `monai.networks.nets` by name, as the configuration that a bundle holds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from monai.networks import nets

from ai.train.recipe import Recipe

_DEFAULT = {"segmentation": "UNet", "detection": "UNet", "classification": "DenseNet121"}
# Where a network has no default of its own, or one that is too large to begin with.
_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "UNet": {"channels": [16, 32, 64, 128, 256], "strides": [2, 2, 2, 2], "num_res_units": 2, "norm": "instance"},
    "AttentionUnet": {"channels": [16, 32, 64, 128, 256], "strides": [2, 2, 2, 2]},
    "SegResNet": {"init_filters": 16, "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1]},
    "BasicUNet": {},
    "ResNet": {"block": "basic", "layers": [2, 2, 2, 2], "block_inplanes": [32, 64, 128, 256], "conv1_t_stride": 2},
}
# Weights of the encoder begin so.
_ENCODERS = {
    "UNet": r"model\.(1\.submodule\.)*(0\.|1\.submodule\.(conv|residual|adn))",
    "AttentionUnet": r"model\.(0\.|1\.(submodule\.)?)",
    "DynUNet": r"input_block|downsamples|bottleneck",
    "SegResNet": r"convInit|down_layers",
    "BasicUNet": r"conv_0|down_",
    "DenseNet": r"features",
    "ResNet": r"conv1|bn1|layer",
}
_INPUTS = ("in_channels", "n_input_channels", "img_channels")
_OUTPUTS = ("out_channels", "num_classes", "n_classes")


def network_config(recipe: Recipe, inputs: int, outputs: int) -> dict[str, Any]:
    """The network of a recipe as a MONAI configuration.

    Parameters
    ----------
    recipe : Recipe
    inputs, outputs : int
        Channels of the image and of the answer.

    Returns
    -------
    dict
        With ``_target_``.

    Raises
    ------
    ValueError
        If MONAI has no network of that name, or it does not take an argument that was given.
    """
    name = recipe.network.name or _DEFAULT[recipe.task]
    kind = getattr(nets, name, None)
    if not inspect.isclass(kind) or not issubclass(kind, torch.nn.Module):
        raise ValueError(f"network.name: monai.networks.nets has no network {name!r}.")
    taken = _parameters(kind)
    made: dict[str, Any] = {"_target_": name, **_ARGUMENTS.get(name, {})}
    if name == "DynUNet":
        made |= _dynamic(recipe)
    for key, value in (("spatial_dims", len(recipe.data.patch)), ("img_size", list(recipe.data.patch))):
        if key in taken:
            made[key] = value
    for keys, channels in ((_INPUTS, inputs), (_OUTPUTS, outputs)):
        made |= {key: channels for key in keys if key in taken}
    made |= recipe.network.arguments
    if unknown := [key for key in recipe.network.arguments if key not in taken]:
        raise ValueError(f"network.{unknown[0]}: {name} takes no such argument; it takes {', '.join(taken)}.")
    return made


def build(config: Mapping[str, Any]) -> torch.nn.Module:
    """Make the network of a configuration.

    Raises
    ------
    ValueError
        With MONAI's own reason, if the arguments do not fit together.
    """
    try:
        network = ConfigParser({"network": dict(config)}).get_parsed_content("network")
    except RuntimeError as error:
        cause = error.__cause__ or error
        raise ValueError(f"network: {config['_target_']} cannot be made: {cause}") from error
    assert isinstance(network, torch.nn.Module)
    return network


def freeze(network: torch.nn.Module, patterns: Sequence[str]) -> list[str]:
    """Keep weights from being trained.

    Parameters
    ----------
    network : torch.nn.Module
    patterns : sequence of str
        As `ai.train.recipe.Training.freeze`.

    Returns
    -------
    list of str
        Names of the weights that are frozen.

    Raises
    ------
    ValueError
        If a pattern matches nothing, or everything.
    """
    names = [name for name, _ in network.named_parameters()]
    frozen: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if re.match(_encoder(network) if pattern == "encoder" else pattern, name)}
        if not matched:
            raise ValueError(f"training.freeze: no weight's name begins with {pattern!r}; the first is {names[0]!r}.")
        frozen |= matched
    if len(frozen) == len(names):
        raise ValueError("training.freeze: nothing is left to train.")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return sorted(frozen)


def hold_frozen(network: torch.nn.Module) -> None:
    """Keep the running statistics of frozen layers as they are; to be called after ``network.train()``."""
    for module in network.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def _encoder(network: torch.nn.Module) -> str:
    for kind in type(network).__mro__:
        if kind.__name__ in _ENCODERS:
            return _ENCODERS[kind.__name__]
    raise ValueError(f"training.freeze: the encoder of {type(network).__name__} is not known; name its weights.")


def _parameters(kind: type) -> list[str]:
    """Names of the arguments, those of the classes above it included where it passes them on."""
    names: list[str] = []
    for each in kind.__mro__:
        if each is torch.nn.Module:
            break
        own = inspect.signature(each).parameters.values()
        names += [p.name for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in names]
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return names


def _dynamic(recipe: Recipe) -> dict[str, Any]:
    """Kernels and strides as nnU-Net chooses them: halve an axis while it is long and its voxels are not coarse."""
    sizes = [float(size) for size in recipe.data.patch]
    spacing = list(recipe.data.spacing_mm or (1.0,) * len(sizes))
    kernels: list[list[int]] = []
    strides: list[list[int]] = []
    halved = [1] * len(sizes)
    while len(strides) < 6:
        fine = [step / min(spacing) < 2 for step in spacing]
        kernels.append([3 if near else 1 for near in fine])
        strides.append(halved)
        halved = [2 if near and size >= 8 else 1 for near, size in zip(fine, sizes, strict=True)]
        sizes = [size / step for size, step in zip(sizes, halved, strict=True)]
        spacing = [size * step for size, step in zip(spacing, halved, strict=True)]
        if max(halved) == 1:
            break
    return {"kernel_size": kernels, "strides": strides, "upsample_kernel_size": strides[1:], "norm_name": "instance"}
