"""How to train: what a file of settings may say, and what holds where it says nothing."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TASKS = ("segmentation", "detection", "classification")


@dataclass(frozen=True, slots=True)
class Data:
    """How images are made ready, in training and in use alike.

    Parameters
    ----------
    spacing_mm : tuple of float, optional
        Voxel size to bring every image to, right, anterior, superior; as stored where it is not given.
    window : (float, float), optional
        Values that become 0 and 1: Hounsfield units for CT. Without it each image is normalised to mean 0 and
        standard deviation 1, as suits MR.
    patch : tuple of int
        Voxels of a training patch; for classification the size that whole images are brought to.
    folds : int
        Into how many the patients are divided.
    cache : str
        ``memory`` keeps prepared cases in memory, ``disk`` in the run's folder, ``none`` prepares each again.
    workers : int
        Processes that cut patches.
    """

    spacing_mm: tuple[float, ...] | None = None
    window: tuple[float, ...] | None = None
    patch: tuple[int, ...] = (96, 96, 96)
    folds: int = 5
    cache: str = "memory"
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Network:
    """Which network of `monai.networks.nets`, with which arguments.

    Parameters
    ----------
    name : str
        Its class; each task has a default.
    arguments : mapping
        Passed on as they are.
    """

    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Training:
    """The optimiser's part.

    Parameters
    ----------
    steps : int
        Optimiser steps.
    batch : int
        Patches in a step.
    optimiser : str
        ``adamw``, ``adam`` or ``sgd``.
    learning_rate, weight_decay : float
    schedule : str
        ``cosine``, ``plateau`` or ``constant``.
    warmup : int
        Steps over which the learning rate rises.
    clip : float
        Largest norm of the gradient; 0 for no limit.
    ema : float
        Weights are averaged with this momentum, and the average is validated and exported; 0 for none.
    amp : str
        ``auto`` computes in half precision on a GPU, ``off`` nowhere.
    validate_every : int
        Steps between validations; a checkpoint is written at each.
    patience : int
        Validations without improvement after which training ends; 0 for no early end.
    foreground : float
        Share of the patches whose middle is foreground.
    deterministic : bool
        Ask for deterministic kernels, slower on a GPU.
    freeze : tuple of str
        Weights whose name begins with a match of one of these regular expressions are not trained; ``encoder`` stands
        for the encoder of the networks that `ai.train.networks` knows.
    """

    steps: int = 2000
    batch: int = 2
    optimiser: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup: int = 20
    clip: float = 5.0
    ema: float = 0.0
    amp: str = "auto"
    validate_every: int = 200
    patience: int = 0
    foreground: float = 0.67
    deterministic: bool = True
    freeze: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Augment:
    """What is varied at random, each with its probability.

    Parameters
    ----------
    flip : float
        Along each of `flip_axes`.
    flip_axes : tuple of int, optional
        0 right, 1 anterior, 2 superior. By default all, without 0 where an output's name says left or right.
    affine : float
        Turned by up to `turn_degrees`, scaled by up to `scale`.
    turn_degrees, scale : float
    noise, blur, intensity : float
        Gaussian noise; smoothing; brightness and contrast.
    """

    flip: float = 0.5
    flip_axes: tuple[int, ...] | None = None
    affine: float = 0.2
    turn_degrees: float = 15.0
    scale: float = 0.15
    noise: float = 0.15
    blur: float = 0.1
    intensity: float = 0.3


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a training, beside data and seed."""

    task: str
    data: Data = field(default_factory=Data)
    network: Network = field(default_factory=Network)
    training: Training = field(default_factory=Training)
    augment: Augment = field(default_factory=Augment)

    def save(self, path: Path) -> None:
        """Write it as JSON, which `read_recipe` reads again."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


_CHOICES = {
    "optimiser": ("adamw", "adam", "sgd"),
    "schedule": ("cosine", "plateau", "constant"),
    "amp": ("auto", "off"),
    "cache": ("memory", "disk", "none"),
}


def read_recipe(path: Path | None, task: str) -> Recipe:
    """Read a recipe from a TOML, YAML or JSON file.

    Parameters
    ----------
    path : pathlib.Path, optional
        Tables ``data``, ``network``, ``training`` and ``augment``, each with the fields of the class of that name.
    task : str
        One of `TASKS`.

    Raises
    ------
    ValueError
        With file and key of what is wrong.
    """
    found: Any = {} if path is None else _read(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: tables are needed: data, network, training, augment.")
    given = found.pop("task", task)
    if given != task:
        raise ValueError(f"{path}: task: this file is for {given}, not for {task}.")
    tables = {entry.name: entry for entry in dataclasses.fields(Recipe) if entry.name != "task"}
    for name in found:
        if name not in tables:
            raise ValueError(f"{path}: {name}: there is no such table{_nearest(name, tables)}.")
    kinds = {"data": Data, "network": Network, "training": Training, "augment": Augment}
    return Recipe(task, **{name: _table(kinds[name], value, f"{path}: {name}") for name, value in found.items()})


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            return json.loads(text)
        import yaml

        return yaml.safe_load(text)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _table(kind: type[Any], found: Any, where: str) -> Any:
    if not isinstance(found, dict):
        raise ValueError(f"{where}: a table is needed.")
    hints = typing.get_type_hints(kind)
    if kind is Network:  # arguments may stand beside the name
        found = {"name": found.pop("name", ""), "arguments": {**found.pop("arguments", {}), **found}}
    values = {}
    for key, value in found.items():
        if key not in hints:
            raise ValueError(f"{where}.{key}: there is no such key{_nearest(key, hints)}.")
        values[key] = _value(value, hints[key], f"{where}.{key}")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise ValueError(f"{where}.{key}: {value!r} is not one of {', '.join(_CHOICES[key])}.")
    return kind(**values)


def _value(value: Any, hint: Any, where: str) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    wanted = next(option for option in options if option is not type(None))
    if typing.get_origin(wanted) is tuple and isinstance(value, list | tuple):
        return tuple(_value(item, typing.get_args(wanted)[0], where) for item in value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = typing.get_origin(wanted) or wanted
    if isinstance(value, bool) != (plain is bool) or not isinstance(value, plain):
        raise ValueError(f"{where}: {value!r} is not of the kind that is needed ({_kind_name(wanted)}).")
    return value


def _kind_name(wanted: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(wanted, "a list" if typing.get_origin(wanted) is tuple else "a table")


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else f"; there is {', '.join(known)}"
