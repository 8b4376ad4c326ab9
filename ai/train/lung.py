"""Trains the lung model that ships in `ai/bundles/lung_ct`.

Three public scans and synthetic thoraces, on a CPU, with fixed seeds. What the network is, and how an image is made
ready for it, is read from the bundle itself, so that training and inference cannot drift apart.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from monai.losses.dice import DiceCELoss

from ai.data.lung_cases import TRAINING, read_lung_case
from ai.phantom.thorax import make_thorax
from ai.train.augment import Source, cut_patch
from ai.train.came_about import facts, remember

SEED = 20240917
SYNTHETIC = 24
# How often a patch comes from each real scan; the rest comes from the synthetic ones.
_REAL_SHARE = {"cip-ct64": 0.25, "lung-dx-a0002": 0.22, "cptac-c3l00189": 0.13}
_LOW_HU, _HIGH_HU = -1024.0, 600.0


def train_lung(bundle: Path, data: Path, steps: int, say: Callable[[str], None]) -> None:
    """Train and write `bundle`/models/model.pt, and into its metadata how that was done.

    Parameters
    ----------
    bundle : pathlib.Path
        The bundle's folder; its ``configs/inference.json`` defines network, voxel size and window.
    data : pathlib.Path
        The development data (see `ai.data.lung_cases`).
    steps : int
        Optimiser steps, one patch each.
    say : callable
        Told a line of progress now and then.
    """
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    network = parser.get_parsed_content("network_def").to(memory_format=torch.channels_last_3d)
    size = tuple(parser["inferer"]["roi_size"])
    spacing_mm = float(parser["preprocessing"]["transforms"][3]["pixdim"][0])
    sources, shares = _sources(data, say)
    averaged = copy.deepcopy(network)
    loss_function = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps, pct_start=0.1)
    started, recent = time.monotonic(), []
    for step in range(1, steps + 1):
        hu, target = cut_patch(sources[rng.choice(len(sources), p=shares)], rng, size, spacing_mm)
        image = hu[None].sub(_LOW_HU).div(_HIGH_HU - _LOW_HU).clamp(0, 1)
        loss = loss_function(network(image.to(memory_format=torch.channels_last_3d)), target[None])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        _average(averaged, network, min(0.99, step / (step + 10)))
        recent.append(float(loss.detach()))
        if step % 25 == 0 or step == steps:
            elapsed = time.monotonic() - started
            say(f"step {step}/{steps}  loss {np.mean(recent[-25:]):.4f}  {elapsed:.0f} s")
        if step % 200 == 0 or step == steps:
            _save(averaged, bundle / "models" / "model.pt")
    known = facts(
        "cpu",
        time.monotonic() - started,
        command=f"python -m ai train lung --data DATA --steps {steps}",
        seed=SEED,
        steps=steps,
        real_scans=list(TRAINING),
        phantom_seeds=list(range(SYNTHETIC)),
    )
    remember(bundle, "lungs", known)


def _sources(data: Path, say: Callable[[str], None]) -> tuple[list[Source], list[float]]:
    sources, shares = [], []
    for name in TRAINING:
        case = read_lung_case(name, data)
        say(f"{name}: {case.volume.array.shape}, reference: {case.reference}")
        sources.append(Source.of(case.volume, case.labels))
        shares.append(_REAL_SHARE[name])
    for seed in range(SYNTHETIC):
        phantom = make_thorax(seed)
        sources.append(Source.of(phantom.volume, phantom.labels))
        shares.append((1 - sum(_REAL_SHARE.values())) / SYNTHETIC)
    say(f"{SYNTHETIC} synthetic thoraces drawn")
    return sources, shares


def _average(averaged: torch.nn.Module, network: torch.nn.Module, keep: float) -> None:
    """Weights averaged over the last hundred steps or so: steadier than the last step's."""
    with torch.no_grad():
        for kept, new in zip(averaged.parameters(), network.parameters(), strict=True):
            kept.mul_(keep).add_(new, alpha=1 - keep)


def _save(network: torch.nn.Module, path: Path) -> None:
    """Half precision on disk: it halves the file, and every figure in the model card is measured with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: value.half().contiguous() for name, value in network.state_dict().items()}, path)
