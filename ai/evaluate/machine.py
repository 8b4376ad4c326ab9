"""What was judged and on what: facts that a figure is worth nothing without."""

from __future__ import annotations

import json
import os
import platform
import tomllib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from ai.digest import bundle_digest, weights_digest


def bundle_facts(bundle: Path) -> dict[str, str]:
    """Name, version and digests of a bundle, and what its card says of its training."""
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    facts = {
        "model": f"{bundle.name} {metadata.get('version', '')}".strip(),
        "bundle digest": bundle_digest(bundle),
        "weights digest": weights_digest(bundle),
    }
    card = bundle / "card.toml"
    if card.is_file():
        facts["training"] = str(tomllib.loads(card.read_text(encoding="utf-8")).get("training", ""))
    return facts


def least_score(bundle: Path) -> float:
    """The score from which a node reports what the bundle detects, as its card says; one half without a card."""
    card = bundle / "card.toml"
    detections = tomllib.loads(card.read_text(encoding="utf-8")).get("detections", []) if card.is_file() else []
    return min((float(one.get("min_score", 0.5)) for one in detections), default=0.5)


def machine_facts(device: str) -> dict[str, str]:
    """Processor, memory, graphics card if it was used, versions, and the time; nothing that names the machine."""
    import torch

    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
    }
    if device.startswith("cuda") and torch.cuda.is_available():
        facts["graphics card"] = torch.cuda.get_device_name(device)
    facts["software"] = f"Python {platform.python_version()}, PyTorch {torch.__version__}, MONAI {version('monai')}"
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
