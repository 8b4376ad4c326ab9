"""One training from a folder of data to a folder of results, and the record of how it came about."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ai.device import device_of
from ai.train import checkpoint
from ai.train.cases import Case, CaseSet, read_cases, split
from ai.train.classification import Classification
from ai.train.detection import Detection
from ai.train.loop import State, fit, means
from ai.train.recipe import Recipe, read_recipe
from ai.train.segmentation import Segmentation
from ai.train.task import Rows, Say, Task

RECORD = "run.json"


@dataclass(frozen=True, slots=True)
class Record:
    """What RUN/run.json says of a training; an export and its card are made from it."""

    task: str
    recipe: Recipe
    network: dict[str, Any]
    name: str
    modality: str
    channels: list[str]
    outputs: list[str]
    training_cases: list[str]
    validation_cases: list[str]
    real: int
    synthetic: int
    fold: int
    seed: int
    steps: int
    best_step: int
    seconds: float
    machine: str
    packages: dict[str, str]
    figures: dict[str, float]
    rows: Rows
    questions: dict[str, list[str]] = field(default_factory=dict)
    started_from: str = ""
    description: str = ""
    licence: str = ""

    def save(self, run: Path) -> None:
        """Write RUN/run.json."""
        checkpoint.write_text(json.dumps(asdict(self), indent=1) + "\n", run / RECORD)

    @classmethod
    def untrained(cls, recipe: Recipe, network: dict[str, Any], name: str, modality: str, outputs: list[str]) -> Record:
        """What there is to say of a network that nobody has trained yet."""
        return cls(
            task=recipe.task,
            recipe=recipe,
            network=network,
            name=name,
            modality=modality,
            channels=[modality],
            outputs=outputs,
            training_cases=[],
            validation_cases=[],
            real=0,
            synthetic=0,
            fold=0,
            seed=0,
            steps=0,
            best_step=0,
            seconds=0.0,
            machine="nothing",
            packages=versions(),
            figures={},
            rows=[],
            questions={"class": outputs} if recipe.task == "classification" else {},
        )


def versions() -> dict[str, str]:
    """Versions of what a training depends on."""
    return {name: version(name) for name in ("torch", "monai", "numpy")}


def read_record(run: Path) -> Record:
    """Read RUN/run.json.

    Raises
    ------
    ValueError
        If the folder is no finished training.
    """
    path = run / RECORD
    if not path.is_file():
        raise ValueError(f"{run} holds no finished training: there is no {RECORD}; `train --resume` finishes one.")
    found = json.loads(path.read_text(encoding="utf-8"))
    recipe = run / "recipe.json"
    return Record(**{**found, "recipe": read_recipe(recipe, found["task"])})


def train(
    recipe: Recipe,
    data: Path,
    run: Path,
    *,
    fold: int = 0,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    weights: Path | None = None,
    started_from: str = "",
    say: Say = print,
) -> Record:
    """Train on all folds but one, and write weights, log and record to `run`.

    Parameters
    ----------
    recipe : Recipe
    data : pathlib.Path
        A folder with a ``dataset.json``.
    run : pathlib.Path
        Folder to write.
    fold : int
        The fold to validate on.
    seed : int
    device : str
        A torch device, or ``auto``.
    resume : bool
        Go on where an earlier call with the same recipe was interrupted.
    weights : pathlib.Path, optional
        Weights to begin with.
    started_from : str
        Whose weights they are, for the record.
    say : callable

    Raises
    ------
    ValueError
        If data and recipe do not fit together, `run` is in use already, or it was begun otherwise.
    """
    found = read_cases(data)
    training, validation = split(found.cases, fold, recipe.data.folds, seed)
    _claim(run, recipe, {"fold": fold, "seed": seed, "data": found.name}, resume)
    task = task_of(recipe, found, run / "cache")
    chosen = torch.device(device_of(device))
    say(f"{found.name}: {len(training)} cases to train on, {len(validation)} to validate on, {machine(chosen)}")
    state = fit(
        task, recipe, run, training, validation, seed=seed, device=chosen, resume=resume, weights=weights, say=say
    )
    record = _record(recipe, found, task, training, validation, state, fold, seed, machine(chosen), started_from)
    record.save(run)
    shown = "  ".join(f"{name} {value:.3f}" for name, value in record.figures.items())
    say(f"best at step {record.best_step}: {shown}")
    return record


def task_of(recipe: Recipe, data: CaseSet, cache: Path) -> Any:
    """The task of a recipe, on some data."""
    kinds = {"segmentation": Segmentation, "detection": Detection, "classification": Classification}
    return kinds[recipe.task](recipe, data, cache)


def machine(device: torch.device) -> str:
    """What it was computed on, without the name of any host."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), {threads} thread{'s' * (threads != 1)}"


def _claim(run: Path, recipe: Recipe, how: dict[str, Any], resume: bool) -> None:
    """Make the run's folder, or see that it was begun in the same way."""
    begun, recipe_file = run / "begun.json", run / "recipe.json"
    if begun.is_file() and not resume:
        raise ValueError(f"{run} holds a training already: give --resume to go on, or another folder.")
    if begun.is_file():
        was, now = json.loads(begun.read_text(encoding="utf-8")), json.loads(json.dumps(how))
        if was != now or read_recipe(recipe_file, recipe.task) != recipe:
            raise ValueError(f"{run} was begun with another recipe, seed, fold or data set: resume it as it was begun.")
        return
    run.mkdir(parents=True, exist_ok=True)
    recipe.save(recipe_file)
    checkpoint.write_text(json.dumps(how) + "\n", begun)


def _record(
    recipe: Recipe,
    data: CaseSet,
    task: Task,
    training: Sequence[Case],
    validation: Sequence[Case],
    state: State,
    fold: int,
    seed: int,
    where: str,
    started_from: str,
) -> Record:
    return Record(
        task=recipe.task,
        recipe=recipe,
        network=dict(task.network_config),
        name=data.name,
        modality=data.modality,
        channels=list(data.channels),
        outputs=list(getattr(task, "outputs", ())),
        training_cases=[case.name for case in training],
        validation_cases=[case.name for case in validation],
        real=sum(not case.synthetic for case in training),
        synthetic=sum(case.synthetic for case in training),
        fold=fold,
        seed=seed,
        steps=state.step,
        best_step=state.best_step,
        seconds=state.elapsed_s,
        machine=where,
        packages=versions(),
        figures=means(state.rows),
        rows=state.rows,
        questions={name: list(answers) for name, answers in getattr(task, "questions", {}).items()},
        started_from=started_from,
        description=data.description,
        licence=data.licence,
    )
