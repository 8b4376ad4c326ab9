"""The transforms of training, as configuration: the part that use shares is written into the bundle word for word."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.bundle.config_parser import ConfigParser
from monai.transforms.compose import Compose

from ai.train.recipe import Augment, Data, Recipe

Config = dict[str, Any]


_NPZ = "ai.train.prepared.LoadPrepared"


def preprocessing(
    data: Data, keys: Sequence[str] = ("image",), *, whole: bool = False, npz: bool = False, label: str = "labels"
) -> list[Config]:
    """How a case is made ready, as a MONAI configuration.

    Parameters
    ----------
    data : Data
        Spacing and window.
    keys : sequence of str
        ``image``, and ``label`` where there is one.
    whole : bool
        Bring the whole image to the size of a patch, as classification needs it.
    npz : bool
        Cases are prepared ``.npz`` files.
    label : str
        The array in them that ``label`` is.

    Returns
    -------
    list of dict
        For ``image`` alone it is what a bundle's inference.json holds.
    """
    both: str | list[str] = list(keys) if len(keys) > 1 else keys[0]
    modes: Any = ["bilinear", "nearest"] if len(keys) > 1 else "bilinear"
    loader = [{"_target_": "LoadImaged", "keys": both}, {"_target_": "EnsureChannelFirstd", "keys": both}]
    steps: list[Config] = [
        *([{"_target_": _NPZ, "keys": both, "label": label}] if npz else loader),
        {"_target_": "Orientationd", "keys": both, "axcodes": "RAS", "labels": None},
    ]
    if data.spacing_mm is not None:
        steps.append({"_target_": "Spacingd", "keys": both, "pixdim": list(data.spacing_mm), "mode": modes})
    if data.window is not None:
        low, high = data.window
        scaled = {"a_min": low, "a_max": high, "b_min": 0.0, "b_max": 1.0, "clip": True}
        steps.append({"_target_": "ScaleIntensityRanged", "keys": "image", **scaled})
    else:
        steps.append({"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True})
    if whole:
        flat = len(data.patch) == 2
        size = [*data.patch, 1] if flat else list(data.patch)
        steps.append({"_target_": "Resized", "keys": "image", "spatial_size": size, "mode": "area"})
        steps += [{"_target_": "SqueezeDimd", "keys": "image", "dim": -1}] if flat else []
    steps.append({"_target_": "EnsureTyped", "keys": both})
    return steps


def patches(recipe: Recipe) -> list[Config]:
    """How one training patch with a label map is cut out of a prepared case."""
    size, share = list(recipe.data.patch), recipe.training.foreground
    crop: Config = {
        "_target_": "RandCropByPosNegLabeld",
        "keys": ["image", "label"],
        "label_key": "label",
        "spatial_size": size,
        "pos": share,
        "neg": 1 - share,
        "num_samples": 1,
        "fg_indices_key": "label_fg_indices",
        "bg_indices_key": "label_bg_indices",
    }
    return [{"_target_": "SpatialPadd", "keys": ["image", "label"], "spatial_size": size}, crop]


def augmentation(
    augment: Augment,
    names: Sequence[str],
    keys: Sequence[str] = ("image", "label"),
    *,
    axes: int = 3,
    exact: bool = False,
) -> list[Config]:
    """What is varied at random in a training patch.

    Parameters
    ----------
    augment : Augment
    names : sequence of str
        Names of the outputs: where one says left or right, nothing is mirrored from left to right by default.
    keys : sequence of str
    axes : int
        Of the image: 2 or 3.
    exact : bool
        Turn by right angles alone: nothing is interpolated.
    """
    sided = any(word in name.lower().replace("-", " ").split() for name in names for word in ("left", "right"))
    given = augment.flip_axes if augment.flip_axes is not None else tuple(range(int(sided), axes))
    both = {"keys": list(keys)}
    steps: list[Config] = [
        {"_target_": "RandFlipd", **both, "prob": augment.flip, "spatial_axis": axis} for axis in given if axis < axes
    ]
    if exact:
        turns = [(0, 1), (1, 2)] if not sided else [(1, 2)]
        steps += [{"_target_": "RandRotate90d", **both, "prob": augment.flip, "spatial_axes": pair} for pair in turns]
    else:
        steps.append(_affine(augment, keys, axes))
    image = {"keys": "image"}
    blur = {f"sigma_{axis}": [0.4, 1.2] for axis in "xyz"}
    return [
        *steps,
        {"_target_": "RandGaussianSmoothd", **image, "prob": augment.blur, **blur},
        {"_target_": "RandGaussianNoised", **image, "prob": augment.noise, "std": 0.05},
        {"_target_": "RandScaleIntensityd", **image, "prob": augment.intensity, "factors": 0.15},
        {"_target_": "RandShiftIntensityd", **image, "prob": augment.intensity, "offsets": 0.1},
    ]


def _affine(augment: Augment, keys: Sequence[str], axes: int) -> Config:
    turn = float(np.radians(augment.turn_degrees))
    return {
        "_target_": "RandAffined",
        "keys": list(keys),
        "prob": augment.affine,
        "rotate_range": [turn] * (3 if axes == 3 else 1),
        "scale_range": [augment.scale] * axes,
        "mode": ["bilinear", "nearest"][: len(keys)],
        "padding_mode": "border",
    }


def built(steps: Sequence[Mapping[str, Any]]) -> Compose:
    """The transforms of a configuration."""
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    parser = ConfigParser({"transforms": {"_target_": "Compose", "transforms": [dict(step) for step in steps]}})
    with warnings.catch_warnings():  # every loader makes every reader; one that cannot decode DICOM on a GPU says so
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        made = parser.get_parsed_content("transforms")
    assert isinstance(made, Compose)
    return made
