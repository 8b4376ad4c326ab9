"""Writes tiny bundles in the Model Zoo layout, whose answers are known in advance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ai.contract import Volume

LOADER = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
TO_RAS = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None}
TO_5_MM = {"_target_": "Spacingd", "keys": "image", "pixdim": [5.0, 5.0, 5.0], "mode": "nearest"}
INVERT = {
    "_target_": "Invertd",
    "keys": "pred",
    "transform": "@preprocessing",
    "orig_keys": "image",
    "nearest_interp": True,
    "to_tensor": True,
}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
SAVER = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "nowhere/to/be/written"}

# Marks bright voxels, by the side of the body they lie on. In RAS the first index grows towards the patient's right.
SIDES = """
import torch
from numpy.typing import NDArray

class Sides(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        bright = (image > self.threshold).float()
        right = torch.zeros_like(image)
        right[:, :, image.shape[2] // 2 :] = 1
        return torch.cat([1 - bright, bright * (1 - right), bright * right], dim=1)
"""

# Says on which side of the body the large blob lies: of the image's first axis, which grows to the right in RAS.
ABOVE = """
import torch

class Bright(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        bright = (image > self.threshold).float()
        return torch.cat([1 - bright, bright], dim=1)
"""
WHICH = """
import torch

class Which(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        bright = (image > self.threshold).float()
        half = image.shape[2] // 2
        counts = torch.stack([bright[:, :, :half].sum(), bright[:, :, half:].sum()])[None]
        return counts / counts.sum()
"""


def write_bundle(
    folder: Path,
    *,
    network: str = SIDES,
    class_name: str = "Sides",
    preprocessing: list[dict[str, Any]] | None = None,
    postprocessing: list[dict[str, Any]] | None = None,
    channels: tuple[str, ...] = ("background", "left side", "right side"),
    threshold: float = 100.0,
) -> Path:
    """Write a bundle whose network is a class of its own ``scripts`` package."""
    for part in ("configs", "models", folder.name):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / folder.name / "__init__.py").write_text("")
    (folder / folder.name / "nets.py").write_text(network)
    outputs = {"pred": {"channel_def": {str(n): name for n, name in enumerate(channels)}}}
    metadata = {"version": "1.2.3", "name": folder.name, "network_data_format": {"outputs": outputs}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    before = [*LOADER, *([TO_RAS] if preprocessing is None else preprocessing)]
    after = [*([INVERT, ARGMAX] if postprocessing is None else postprocessing), SAVER]
    inference = {
        "bundle_root": "elsewhere",
        "device": "$torch.device('cuda:7')",
        "network_def": {"_target_": f"{folder.name}.nets.{class_name}"},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": before},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": after},
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    torch.save({"threshold": torch.tensor([threshold])}, folder / "models" / "model.pt")
    return folder


def two_blobs(directions: NDArray[np.floating], spacing: tuple[float, float, float]) -> Volume:
    """A large bright blob on the patient's left and a small one on the right, on a grid of any orientation.

    `directions` holds, in its columns, the LPS directions in which slice, row and column indices grow.
    """
    size = np.ceil(np.abs(directions.T) @ np.array([120.0, 90.0, 60.0]) / np.array(spacing)).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((size - 1) / 2) + np.array([3.0, -40.0, 700.0])
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    lps = index @ affine[:3, :3].T + affine[:3, 3]
    left = np.linalg.norm(lps - np.array([33.0, -35.0, 705.0]), axis=-1) < 18
    right = np.linalg.norm(lps - np.array([-27.0, -50.0, 690.0]), axis=-1) < 10
    return Volume(np.where(left | right, 500.0, -500.0).astype(np.float32), affine)


# Finds the two blobs one by one: instances, how surely each voxel belongs, what spoke for it, and a table.
BLOBS = """
import torch

class Finder:
    def __init__(self):
        self.without = ()

    def __call__(self, image, network):
        sides = network(image)
        answer = {"sides": sides}
        if "blob" in self.without:
            return answer
        left, right = sides[:, 1:2], sides[:, 2:3]
        found = [
            {"output": "blob", "score": 0.9, "classes": {"size": {"large": 1.0, "small": 0.0}}},
            {"output": "blob", "score": SCORE, "classes": {"size": {"large": 0.25, "small": 0.75}}},
        ]
        blobs = (left + 2 * right).to(torch.uint8)
        return answer | {
            "blobs": blobs,
            "blobs_membership": ((image + 500) / 1000).clamp(0, 1).half(),
            "blobs_saliency": (left + 0.5 * right).half(),
            "blobs_found": found,
        }
"""


def write_detecting_bundle(folder: Path, *, preprocessing: list[dict[str, Any]], second_score: float = 0.4) -> Path:
    """Write a bundle that marks the two sides and detects each blob of `two_blobs`."""
    finder = BLOBS.replace("SCORE", repr(second_score)).replace("nan", "float('nan')")
    write_bundle(folder, network=SIDES + finder, preprocessing=preprocessing, threshold=0.0)
    configs = folder / "configs"
    inference = json.loads((configs / "inference.json").read_text())
    inference["inferer"] = {"_target_": f"{folder.name}.nets.Finder"}
    flatten = {"_target_": "FlattenSubKeysd", "keys": "pred"}
    inference["postprocessing"]["transforms"] = [flatten, {**ARGMAX, "keys": "sides"}]
    (configs / "inference.json").write_text(json.dumps(inference))
    metadata = json.loads((configs / "metadata.json").read_text())
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    metadata["network_data_format"]["outputs"] = {
        "sides": {"format": "segmentation", "channel_def": channels},
        "blobs": {"format": "instances"},
    }
    (configs / "metadata.json").write_text(json.dumps(metadata))
    return folder
