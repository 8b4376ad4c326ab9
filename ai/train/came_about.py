"""How the weights of a bundle came about, kept in its metadata: what makes them again, or says why that cannot be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import ai.phantom
from ai.digest import bundle_digest
from ai.train import checkpoint
from ai.train.run import machine, versions

KEY = "training"
_PHANTOM = Path(ai.phantom.__file__).parent


def facts(device: str, seconds: float, **more: Any) -> dict[str, Any]:
    """What is worth knowing of every training.

    Parameters
    ----------
    device : str
        Torch device that it ran on.
    seconds : float
        How long.
    more : Any
        Seeds, data, steps: whatever decides the weights. Plain values.

    Returns
    -------
    dict of str to Any
        `more`, and machine, packages, time, date, and a digest of the code that draws phantoms: with another the
        same seeds are other bodies.
    """
    return {
        **more,
        "phantoms_digest": bundle_digest(_PHANTOM),
        "machine": machine(torch.device(device)),
        "packages": versions(),
        "seconds": round(seconds),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def remember(bundle: Path, part: str, known: Mapping[str, Any]) -> None:
    """Write into ``configs/metadata.json`` of a bundle how one part of its weights was made; the rest stays.

    Parameters
    ----------
    bundle : pathlib.Path
        The bundle's folder.
    part : str
        A bundle may hold several networks: ``lungs``, ``nodules``.
    known : mapping
        As `facts` gives it.
    """
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata.setdefault(KEY, {})[part] = dict(known)
    checkpoint.write_text(json.dumps(metadata, indent=4) + "\n", path)


def remembered(bundle: Path, part: str) -> dict[str, Any]:
    """What `remember` wrote of a part; empty where nothing was."""
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = metadata.get(KEY, {}).get(part, {})
    return found
