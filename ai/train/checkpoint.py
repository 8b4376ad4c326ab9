"""Writes files that are there whole or not at all, so that a training that dies can go on where it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save(content: Mapping[str, Any], path: Path) -> None:
    """Write with `torch.save`, synced and then renamed over what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        torch.save(dict(content), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save` wrote; tensors and plain values only, no code."""
    content = torch.load(path, map_location=device, weights_only=True)
    assert isinstance(content, dict)
    return content


def write_text(text: str, path: Path) -> None:
    """Write a small text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
