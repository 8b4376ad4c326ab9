"""Trains the nodule network of `ai/bundles/chest_ct`: one network that finds, outlines and classes at once.

Scans come from `ai.train.chest_scans`: phantoms, and real lungs with nodules put into them. What the network is, and
its voxel size, are read from the bundle itself, so that training and inference cannot drift apart.
"""

from __future__ import annotations

import copy
import csv
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ai.train import checkpoint
from ai.train.chest_patches import Patches, cut_patches
from ai.train.chest_scans import Scan

SEED = 20261127
DETECT, SEGMENT, ATTENUATION, MARGIN = "detect", "segment", "attenuation", "margin"
TASKS = (DETECT, SEGMENT, ATTENUATION, MARGIN)
_WEIGHTS = {DETECT: 1.0, SEGMENT: 1.0, ATTENUATION: 0.3, MARGIN: 0.2}
_CENTRE, _INSIDE, _KINDS, _SPICULATED = 0, 1, slice(2, 5), 5
_KEEP_EVERY = 500  # steps; a multiple of those between two rows of the log
_MISSED = 0.5  # what misses the voxels of a nodule counts so much, however few they are
_MEASURED = 24  # batches of four patches
_PRIOR = -4.6  # a centre is rare: the network starts by saying so (Lin et al. 2017, 4.1)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train.

    Attributes
    ----------
    steps, batch : int
        Optimiser steps, and patches in each.
    size : int
        Voxels of a patch along each axis.
    spacing_mm : float
        Voxel size of the scans.
    tasks : collection of str
        Which heads are learnt, out of `TASKS`: one alone, or several jointly.
    rate : float
        Highest learning rate.
    goes_on : bool
        The network has learnt already: its first guess of a centre stays as it is, and what its features are scaled by
        is measured once and then held.
    """

    steps: int
    batch: int = 8
    size: int = 96
    spacing_mm: float = 1.25
    tasks: Collection[str] = TASKS
    rate: float = 2e-3
    goes_on: bool = False
    seed: int = SEED


def train_nodules(
    network: torch.nn.Module,
    scans: Sequence[Scan],
    plan: Plan,
    say: Callable[[str], None],
    log: Path | None = None,
    kept: Path | None = None,
) -> torch.nn.Module:
    """Train the heads of one network.

    Parameters
    ----------
    network : torch.nn.Module
        Image of shape (batch, 1, x, y, z), 0 to 1, to six maps of logits: centre, inside, three attenuations,
        spiculated. Changed in place; on the device of the scans.
    scans : sequence of Scan
        All on one device.
    plan : Plan
        Steps, patches, tasks.
    say : callable
        Told a line of progress now and then.
    log : pathlib.Path, optional
        CSV file of the losses, one row every 50 steps.
    kept : pathlib.Path, optional
        Checkpoint, written every 500 steps. Where it is there already, training goes on from it, as if it had never
        been stopped.

    Returns
    -------
    torch.nn.Module
        The network with its weights averaged exponentially: what to keep.

    Raises
    ------
    ValueError
        If the checkpoint is of another plan.
    """
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    device = scans[0].hu.device
    network.train()
    if plan.goes_on:
        _hold_scales(network, scans, rng, plan.size)
    else:
        _start_rare(network)
    averaged = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, total_steps=plan.steps, pct_start=0.1)
    shares = np.array([scan.share for scan in scans], dtype=np.float64)
    rows: list[dict[str, float]] = []
    recent: list[dict[str, torch.Tensor]] = []
    parts = {"network": network, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    if kept is not None and kept.is_file():
        rows = _restore(kept, plan, parts, rng, device)
        say(f"going on after step {rows[-1]['step']:.0f}")
    done, before = (int(rows[-1]["step"]), rows[-1]["seconds"]) if rows else (0, 0.0)
    started = time.monotonic() - before
    for step in range(done + 1, plan.steps + 1):
        chosen = [scans[n] for n in rng.choice(len(scans), plan.batch, p=shares / shares.sum())]
        patches = cut_patches(chosen, rng, plan.size)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            maps = network(patches.image.contiguous(memory_format=torch.channels_last_3d))
        losses = losses_of(maps.float(), patches, plan.tasks)
        optimiser.zero_grad(set_to_none=True)
        torch.stack([_WEIGHTS[task] * loss for task, loss in losses.items()]).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        _average(averaged, network, min(0.998, step / (step + 20)))
        recent.append({task: loss.detach() for task, loss in losses.items()})
        if step % 50 == 0 or step == plan.steps:
            means = {task: float(torch.stack([each[task] for each in recent]).mean()) for task in losses}
            rows.append({"step": step, "seconds": round(time.monotonic() - started, 1), **means})
            recent.clear()
            if step % 200 == 0 or step == plan.steps:
                told = "  ".join(f"{task} {value:.4f}" for task, value in means.items())
                say(f"step {step}/{plan.steps}  {told}  {rows[-1]['seconds']:.0f} s")
        if kept is not None and step % _KEEP_EVERY == 0:
            _keep(kept, plan, parts, rng, device, rows)
    if log is not None:
        _write(rows, log)
    return averaged


def losses_of(maps: torch.Tensor, patches: Patches, tasks: Collection[str]) -> dict[str, torch.Tensor]:
    """Losses of the tasks.

    Centre: penalty-reduced focal loss (Zhou et al. 2019, "Objects as Points", eq. 1). Inside: Dice and cross-entropy,
    over the hardest voxels and once more over those of nodules. Attenuation and margin: cross-entropy over the voxels
    of nodules.
    """
    losses: dict[str, torch.Tensor] = {}
    nodule = patches.inside > 0
    if DETECT in tasks:
        losses[DETECT] = _focal(maps[:, _CENTRE], patches.heat)
    if SEGMENT in tasks:
        losses[SEGMENT] = _overlap(maps[:, _INSIDE], nodule.float())
    if ATTENUATION in tasks:
        losses[ATTENUATION] = _per_nodule(
            functional.cross_entropy(maps[:, _KINDS], patches.attenuation, reduction="none"), nodule
        )
    if MARGIN in tasks:
        losses[MARGIN] = _per_nodule(
            functional.binary_cross_entropy_with_logits(maps[:, _SPICULATED], patches.spiculated, reduction="none"),
            nodule,
        )
    return losses


def _focal(logits: torch.Tensor, heat: torch.Tensor) -> torch.Tensor:
    chance = torch.sigmoid(logits).clamp(1e-5, 1 - 1e-5)
    peak = heat > 0.999
    found = torch.log(chance) * (1 - chance) ** 2 * peak
    quiet = torch.log(1 - chance) * chance**2 * (1 - heat) ** 4 * ~peak
    return -(found.sum() + quiet.sum()) / peak.sum().clamp(min=1)


def _overlap(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    share = torch.sigmoid(logits)
    dims = (1, 2, 3)
    dice = 1 - (2 * (share * target).sum(dims) + 2) / (share.sum(dims) + target.sum(dims) + 2)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    hardest = entropy.flatten(1).topk(entropy[0].numel() // 50, dim=1).values  # what is easy is most of the lung
    return dice.mean() + hardest.mean() + _MISSED * _per_nodule(entropy, target > 0)


def _per_nodule(loss: torch.Tensor, nodule: torch.Tensor) -> torch.Tensor:
    """Mean over nodule voxels, each patch alike, so that large nodules do not drown the small ones."""
    count = nodule.flatten(1).sum(dim=1)
    each = (loss * nodule).flatten(1).sum(dim=1) / count.clamp(min=1)
    return each[count > 0].mean() if bool((count > 0).any()) else loss.sum() * 0


def _start_rare(network: torch.nn.Module) -> None:
    biases = [part.bias for part in network.modules() if isinstance(part, torch.nn.Conv3d) and part.bias is not None]
    last = [bias for bias in biases if len(bias) == 6]
    with torch.no_grad():
        for bias in last[-1:]:
            bias[_CENTRE] = _PRIOR


def _hold_scales(network: torch.nn.Module, scans: Sequence[Scan], rng: np.random.Generator, size: int) -> None:
    """Measure means and spreads of the features over patches; from here on training uses them as inference does."""
    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm3d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all patches
    with torch.no_grad():
        for _ in range(_MEASURED):
            chosen = [scans[n] for n in rng.choice(len(scans), 4)]
            network(cut_patches(chosen, rng, size).image)
    for norm in norms:
        norm.eval()


def _average(averaged: torch.nn.Module, network: torch.nn.Module, keep: float) -> None:
    with torch.no_grad():
        for old, now in zip(averaged.buffers(), network.buffers(), strict=True):
            old.copy_(now)
        kept: list[torch.Tensor] = list(averaged.parameters())
        new: list[torch.Tensor] = list(network.parameters())
        torch._foreach_mul_(kept, keep)
        torch._foreach_add_(kept, new, alpha=1 - keep)


def _keep(
    path: Path,
    plan: Plan,
    parts: Mapping[str, Any],
    rng: np.random.Generator,
    device: torch.device,
    rows: Sequence[dict[str, float]],
) -> None:
    content = {name: part.state_dict() for name, part in parts.items()}
    drawn = {"numpy": rng.bit_generator.state, "torch": torch.get_rng_state()}
    if device.type == "cuda":
        drawn["cuda"] = torch.cuda.get_rng_state(device)
    checkpoint.save({**content, "drawn": drawn, "rows": list(rows), "plan": repr(plan)}, path)


def _restore(
    path: Path, plan: Plan, parts: Mapping[str, Any], rng: np.random.Generator, device: torch.device
) -> list[dict[str, float]]:
    content = checkpoint.load(path, device)
    if content["plan"] != repr(plan):
        raise ValueError(f"{path} is of another training ({content['plan']}): remove it, or train as it was begun.")
    for name, part in parts.items():
        part.load_state_dict(content[name])
    rng.bit_generator.state = content["drawn"]["numpy"]
    torch.set_rng_state(content["drawn"]["torch"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(content["drawn"]["cuda"].cpu(), device)
    rows: list[dict[str, float]] = content["rows"]
    return rows


def _write(rows: Sequence[dict[str, float]], log: Path) -> None:
    with log.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
