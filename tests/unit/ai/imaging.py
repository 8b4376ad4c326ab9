"""Writes a bundle that answers with an image: what it was shown, and a known number more, or moved so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.unit.ai.bundles import write_bundle

ADDS = """
import torch

class Adds(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        more = self.threshold
        return ANSWER
"""
PLAIN = {"type": "image", "format": "hounsfield", "num_channels": 1}


def adds(
    folder: Path,
    *,
    answer: str = "image + more",
    more: float = 100.0,
    before: list[dict[str, Any]] | None = None,
    after: list[dict[str, Any]] | None = None,
    outputs: dict[str, Any] | None = None,
    image: dict[str, Any] | None = None,
) -> Path:
    """Write the bundle; `answer` is what its network makes of ``image``, `outputs` what metadata says of that."""
    write_bundle(
        folder,
        network=ADDS.replace("ANSWER", answer),
        class_name="Adds",
        preprocessing=before,
        postprocessing=after or [],
        threshold=more,
    )
    file = folder / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    plain = {"type": "image", "modality": "CT", "num_channels": 1, "spatial_shape": [64, 64, 64]}
    metadata["network_data_format"] = {"inputs": {"image": image or plain}, "outputs": outputs or {"denoised": PLAIN}}
    file.write_text(json.dumps(metadata))
    return folder
