"""The training loop: one for every task, exact when it is taken up again."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ai.train import checkpoint
from ai.train.cases import Case
from ai.train.log import Log, progress
from ai.train.networks import build, freeze, hold_frozen
from ai.train.recipe import Recipe, Training
from ai.train.samples import Samples, batches, seed_step
from ai.train.task import Rows, Say, Task
from ai.train.weights import read_weights

CHECKPOINT, BEST = "checkpoint.pt", "best.pt"


@dataclass(slots=True, eq=False)
class State:
    """What a training is made of at one step; all of it lies in a checkpoint."""

    network: torch.nn.Module
    averaged: torch.nn.Module | None
    optimiser: torch.optim.Optimizer
    plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None
    scaler: torch.amp.GradScaler
    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    stale: int = 0
    elapsed_s: float = 0.0
    rows: Rows = field(default_factory=list)

    @property
    def judged(self) -> torch.nn.Module:
        """The network that is validated and exported."""
        return self.averaged or self.network


def fit(
    task: Task,
    recipe: Recipe,
    run: Path,
    training: Sequence[Case],
    validation: Sequence[Case],
    *,
    seed: int,
    device: torch.device,
    resume: bool = False,
    weights: Path | None = None,
    say: Say = print,
) -> State:
    """Train, and leave the best weights in RUN/best.pt.

    Parameters
    ----------
    task : Task
    recipe : Recipe
    run : pathlib.Path
        Folder to write: ``checkpoint.pt``, ``best.pt``, ``log.csv``.
    training, validation : sequence of Case
    seed : int
        Decides weights, order, cuts and what the network draws. On a CPU the same seed gives the same weights, bit for
        bit, interrupted or not; on a GPU as far as its kernels are deterministic.
    device : torch.device
    resume : bool
        Go on from RUN/checkpoint.pt, where there is one.
    weights : pathlib.Path, optional
        A state to begin with, as `ai.train.weights.read_weights` reads it.
    say : callable

    Returns
    -------
    State
        At the last step; its rows are those of the best validation.

    Raises
    ------
    ValueError
        If the loss is no longer a number.
    """
    state = _begin(task, recipe, seed, device, weights, say)
    if resume and (run / CHECKPOINT).is_file():
        _restore(state, run / CHECKPOINT, device)
        say(f"going on after step {state.step}")
    settings, log = recipe.training, Log(run, state.step)
    prepared = task.prepare(training, training=True)
    held_out = task.prepare(validation, training=False)
    samples = Samples(prepared, task.cut(), seed)
    started = time.monotonic() - state.elapsed_s
    stream = batches(samples, state.step, settings.steps, settings.batch, recipe.data.workers)
    with progress(settings.steps, say) as shown:
        losses: list[float] = []
        for batch in stream:
            if settings.patience and state.stale >= settings.patience:
                say(f"no improvement in {state.stale} validations: ended at step {state.step}")
                break
            seed_step(seed, state.step)
            losses.append(_step(task, state, batch, settings, device))
            best = {"best score": state.best} if state.best_step else {}
            shown.at(state.step, {"loss": float(np.mean(losses[-25:])), **best})
            if state.step % settings.validate_every == 0 or state.step == settings.steps:
                figures = means(_validate(task, state, held_out, device, run))
                state.elapsed_s = time.monotonic() - started
                rate = float(state.optimiser.param_groups[0]["lr"])
                log.write(state.step, loss=float(np.mean(losses)), learning_rate=rate, **figures)
                say(f"step {state.step}: " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
                losses.clear()
                _store(state, run / CHECKPOINT)
    return state


def means(rows: Rows) -> dict[str, float]:
    """Mean of every figure over the cases that have it."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, int | float))
    found = {name: [float(row[name]) for row in rows if name in row and math.isfinite(row[name])] for name in names}
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _begin(task: Task, recipe: Recipe, seed: int, device: torch.device, weights: Path | None, say: Say) -> State:
    settings = recipe.training
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = settings.deterministic
    torch.backends.cudnn.benchmark = not settings.deterministic
    network = build(task.network_config)
    task.begin(network)
    if weights is not None and (fresh := read_weights(network, weights)):
        say(f"{len(fresh)} weights begin at random, for they are not in {weights.name}: {', '.join(fresh[:4])}")
    freeze(network, settings.freeze)
    network.to(device)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = _optimiser(trained, settings)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.5, patience=3)
    return State(
        network=network,
        averaged=copy.deepcopy(network) if settings.ema else None,
        optimiser=optimiser,
        plateau=plateau if settings.schedule == "plateau" else None,
        scaler=torch.amp.GradScaler(device.type, enabled=_half(settings, device) is torch.float16),
    )


def _optimiser(parameters: list[torch.nn.Parameter], settings: Training) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=0.99, nesterov=True, weight_decay=decay)
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate, weight_decay=decay)


def _step(task: Task, state: State, batch: Any, settings: Training, device: torch.device) -> float:
    state.network.train()
    hold_frozen(state.network)
    if state.plateau is None:
        for group in state.optimiser.param_groups:
            group["lr"] = settings.learning_rate * _share(settings, state.step)
    half = _half(settings, device)
    with torch.autocast(device.type, dtype=half, enabled=half is not None):
        loss = task.loss(state.network, batch, device)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ValueError(f"The loss is {value} at step {state.step + 1}: lower training.learning_rate, or amp = 'off'.")
    state.optimiser.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    if settings.clip:
        state.scaler.unscale_(state.optimiser)
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.step += 1
    if state.averaged is not None:
        _average(state.averaged, state.network, min(settings.ema, state.step / (state.step + 10)))
    return value


def _share(settings: Training, step: int) -> float:
    """Part of the highest learning rate at a step, counted from 0."""
    rising = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "constant":
        return rising
    return rising * (0.01 + 0.99 * (1 + math.cos(math.pi * step / settings.steps)) / 2)


def _half(settings: Training, device: torch.device) -> torch.dtype | None:
    if device.type != "cuda" or settings.amp == "off":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


@torch.no_grad()
def _average(averaged: torch.nn.Module, network: torch.nn.Module, keep: float) -> None:
    for kept, new in zip(averaged.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - keep)
    for kept_buffer, new_buffer in zip(averaged.buffers(), network.buffers(), strict=True):
        kept_buffer.copy_(new_buffer)


def _validate(task: Task, state: State, held_out: Any, device: torch.device, run: Path) -> Rows:
    network = state.judged.eval()
    with torch.inference_mode():
        rows = task.judge(network, held_out, device)
    score = means(rows).get("score", 0.0)
    if state.plateau is not None:
        state.plateau.step(score)
    state.stale += 1
    if score > state.best or state.best_step == 0:
        state.best, state.best_step, state.stale, state.rows = score, state.step, 0, rows
        checkpoint.save({"model": network.state_dict()}, run / BEST)
    return rows


_KEPT = ("step", "best", "best_step", "stale", "elapsed_s", "rows")
_STATEFUL = ("network", "averaged", "optimiser", "plateau", "scaler")


def _store(state: State, path: Path) -> None:
    parts = {name: getattr(state, name) for name in _STATEFUL}
    kept = {name: part.state_dict() for name, part in parts.items() if part is not None}
    checkpoint.save({**kept, **{name: getattr(state, name) for name in _KEPT}}, path)


def _restore(state: State, path: Path, device: torch.device) -> None:
    content = checkpoint.load(path, device)
    for name in _STATEFUL:
        if (part := getattr(state, name)) is not None:
            part.load_state_dict(content[name])
    for name in _KEPT:
        setattr(state, name, content[name])
