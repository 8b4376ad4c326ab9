"""Fine-tuning: a bundle's network and its preprocessing, trained on a few cases of one's own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle.config_parser import ConfigParser

from ai.train.recipe import Data, Network, Recipe, Training
from ai.train.run import Record, train
from ai.train.task import Say

STEPS, LEARNING_RATE = 500, 1e-4
_SIZES = ("in_channels", "n_input_channels", "out_channels", "num_classes", "spatial_dims")


def finetune(
    bundle: Path,
    data: Path,
    run: Path,
    recipe: Recipe,
    *,
    fold: int = 0,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    say: Say = print,
) -> Record:
    """Go on training a bundle's network.

    Parameters
    ----------
    bundle : pathlib.Path
        A bundle with its weights.
    data : pathlib.Path
        A folder with a ``dataset.json``. Where its labels are others than the bundle's, the last layer begins anew.
    run : pathlib.Path
        Folder to write; ``python -m ai export`` makes a bundle of it.
    recipe : Recipe
        From `recipe_of`.
    fold, seed, device, resume, say
        As `ai.train.run.train`.

    Raises
    ------
    ValueError
        If the bundle's weights do not fit the network that its configuration describes.
    """
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return train(
        recipe,
        data,
        run,
        fold=fold,
        seed=seed,
        device=device,
        resume=resume,
        weights=bundle / "models" / "model.pt",
        started_from=f"{metadata.get('name', bundle.name)} {metadata.get('version', '')}".strip(),
        say=say,
    )


def recipe_of(bundle: Path, changed: Recipe | None = None, *, freeze_encoder: bool = False) -> Recipe:
    """How a bundle prepares its images and what its network is, as a recipe with gentle training.

    Parameters
    ----------
    bundle : pathlib.Path
    changed : Recipe, optional
        Its training and augmentation are taken in place of the gentle ones.
    freeze_encoder : bool
        Train the decoder alone: for a handful of cases.

    Raises
    ------
    ValueError
        If the bundle's configuration lacks a network of MONAI's or a window to cut patches with.
    """
    parser = _parser(bundle)
    network = parser.get("network_def")
    if not isinstance(network, Mapping) or "." in str(network.get("_target_", ".")):
        raise ValueError(f"{bundle}/configs/inference.json: network_def: only a network of monai.networks.nets can be.")
    arguments = {key: parser.get_parsed_content(f"network_def::{key}") for key in network if key != "_target_"}
    recipe = changed or Recipe("segmentation", training=Training(steps=STEPS, learning_rate=LEARNING_RATE))
    kept = {key: value for key, value in arguments.items() if key not in _SIZES}
    training = recipe.training
    if freeze_encoder and "encoder" not in training.freeze:
        training = dataclasses.replace(training, freeze=(*training.freeze, "encoder"))
    return dataclasses.replace(
        recipe,
        data=_data(parser, bundle, recipe.data),
        network=Network(str(network["_target_"]), kept),
        training=training,
    )


def _parser(bundle: Path) -> ConfigParser:
    file = bundle / "configs" / "inference.json"
    if not file.is_file():
        raise ValueError(f"{bundle} is no bundle: there is no configs/inference.json.")
    parser = ConfigParser()
    parser.read_config(str(file))
    parser["bundle_root"] = str(bundle)
    return parser


def _data(parser: ConfigParser, bundle: Path, given: Data) -> Data:
    """Spacing, window and patch size as the bundle's own transforms and inferer have them."""
    listed: Any = parser.get("preprocessing")
    steps = listed.get("transforms", []) if isinstance(listed, Mapping) else listed or []
    spacing, window, patch = given.spacing_mm, given.window, given.patch
    for number, step in enumerate(steps):
        where, name = f"preprocessing::transforms::{number}", str(step.get("_target_", "")).split(".")[-1]
        if name == "Spacingd":
            spacing = tuple(float(size) for size in parser.get_parsed_content(f"{where}::pixdim"))
        elif name == "ScaleIntensityRanged":
            window = tuple(float(parser.get_parsed_content(f"{where}::{key}")) for key in ("a_min", "a_max"))
        elif name == "NormalizeIntensityd":
            window = None
        elif name == "Resized":
            patch = tuple(int(size) for size in parser.get_parsed_content(f"{where}::spatial_size"))
    if isinstance(parser.get("inferer"), Mapping) and "roi_size" in parser["inferer"]:
        patch = tuple(int(size) for size in parser.get_parsed_content("inferer::roi_size"))
    return dataclasses.replace(given, spacing_mm=spacing, window=window, patch=patch)
