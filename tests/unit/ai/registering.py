"""Writes a bundle that finds how what is bright has moved, exactly: by its middle in either image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai.contract import Volume
from tests.unit.ai.bundles import INVERT, write_bundle

# Along the axes of the image; in RAS the first grows towards the patient's right.
STRETCH = (0.05, 0.0, -0.1)
FINDS = """
import torch
from monai.networks.utils import meshgrid_ij

class Finds(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        at = torch.stack(meshgrid_ij([torch.arange(n).double() for n in image.shape[2:]]))
        weights = (image[0] - self.threshold).clamp(min=0).double()
        middle, moved = ((at * each).flatten(1).sum(dim=1) / each.sum() for each in weights)
        stretch = torch.tensor(STRETCH).double()
        if FORM == "matrix":
            matrix = torch.eye(4).double()
            matrix[:3, :3] += torch.diag(stretch)
            matrix[:3, 3] = moved - middle - stretch * middle
            return matrix[None, :3].float()
        column = (slice(None), None, None, None)
        field = (moved - middle)[column] + stretch[column] * (at - middle[column])
        return FIELD
"""
BOTH = {"keys": ["moving", "fixed"]}  # the other way round than they are joined
TO_RAS = {"_target_": "Orientationd", "axcodes": "RAS", "labels": None, **BOTH}
JOIN = {"_target_": "ConcatItemsd", "keys": ["fixed", "moving"], "name": "image"}
IMAGE = {"num_channels": 1, "spatial_shape": [64, 64, 64], "channel_def": {"0": "image"}}
BACK = {**INVERT, "orig_keys": "fixed", "nearest_interp": False}


def finds_shift(
    folder: Path,
    *,
    form: str = "field",
    answer: str = "field[None].float()",
    between: list[dict[str, Any]] | None = None,
    after: list[dict[str, Any]] | None = None,
    stretch: tuple[float, float, float] = STRETCH,
    threshold: float = -500.0,
    **said: Any,
) -> Path:
    """Write the bundle; `between` comes before the images are joined, `said` is what metadata says of ``ddf``."""
    network = FINDS.replace("STRETCH", repr(stretch)).replace("FORM", repr(form)).replace("FIELD", answer)
    before = [TO_RAS, *(between or []), JOIN]
    write_bundle(
        folder,
        network=network,
        class_name="Finds",
        preprocessing=before,
        postprocessing=after or [],
        threshold=threshold,
    )
    file = folder / "configs" / "inference.json"
    inference = json.loads(file.read_text())
    for loader in inference["preprocessing"]["transforms"][:2]:
        loader |= BOTH
    file.write_text(json.dumps(inference))
    file = folder / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    plain = {"type": "image", "format": "ddf" if form == "field" else "affine", "num_channels": 3}
    metadata["network_data_format"] = {
        "inputs": {"moving": IMAGE, "fixed": IMAGE},
        "outputs": {"pred": {"type": "image", "format": "image"}, "ddf": plain | said},
    }
    file.write_text(json.dumps(metadata))
    return folder


def moved(volume: Volume, shift_mm: NDArray[np.float64]) -> Volume:
    """The same patient, so far away."""
    affine = volume.affine.copy()
    affine[:3, 3] += shift_mm
    return Volume(volume.array, affine, volume.modality)
