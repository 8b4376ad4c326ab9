"""A new bundle to begin with: complete in form, with an untrained network, and marks where something is to be said."""

from __future__ import annotations

from pathlib import Path

import torch

from ai.codes import UNKNOWN
from ai.export.bundle import write_bundle
from ai.train.detection import start_rare
from ai.train.networks import build, network_config
from ai.train.recipe import Data, Recipe
from ai.train.run import Record

_OUTPUTS = {
    "segmentation": ["background", UNKNOWN],
    "detection": ["background", "nodule"],
    "classification": ["no", "yes"],
}


def new_bundle(name: str, folder: Path, task: str, modality: str = "CT") -> Path:
    """Write a bundle with random weights.

    Parameters
    ----------
    name : str
        Of the bundle and of its folder.
    folder : pathlib.Path
        Where to make it.
    task : str
        One of `ai.train.recipe.TASKS`.
    modality : str
        DICOM Modality.

    Returns
    -------
    pathlib.Path
        The bundle.

    Raises
    ------
    ValueError
        If the folder is not empty.
    """
    window = (-1000.0, 400.0) if modality == "CT" else None
    recipe = Recipe(task, data=Data(spacing_mm=(1.5, 1.5, 1.5), window=window, patch=(64, 64, 64)))
    outputs = _OUTPUTS[task]
    network = network_config(recipe, 1, 2 if task == "detection" else len(outputs))
    record = Record.untrained(recipe, network, name, modality, outputs)
    torch.manual_seed(0)
    untrained = build(record.network)
    if task == "detection":
        start_rare(untrained)
    write_bundle(record, untrained.state_dict(), folder / name, name=name, version="0.0.1")
    return folder / name
