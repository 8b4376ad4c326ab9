"""The cases that a model is trained on: read from a ``dataset.json``, split by patient.

What ``python -m ai prepare`` writes, and what the Medical Segmentation Decathlon or nnU-Net brings, are read alike. In
a file written by hand a case may also say ``patient``, ``fold``, ``class`` and ``source``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ai.data.nodule import Nodule

FILE = "dataset.json"


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Parameters
    ----------
    name : str
        Unique in its set.
    images : tuple of pathlib.Path
        One image for each channel, or one that holds them all.
    label : pathlib.Path, optional
        Its label map.
    patient : str
        Cases of one patient are never split between training and validation.
    fold : int, optional
        Where the data fixes its folds.
    nodules : tuple of Nodule
        What there is to find one by one.
    knows_nodules : bool
        Whether somebody looked for them: only then does an empty tuple mean that there are none.
    instances : pathlib.Path, optional
        Label map of the nodules, each with a value of its own.
    answers : mapping of str to str
        The class of the whole case, for each question that is asked of it.
    synthetic : bool
        Drawn, not scanned.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    patient: str
    fold: int | None = None
    nodules: tuple[Nodule, ...] = ()
    knows_nodules: bool = False
    instances: Path | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class CaseSet:
    """What a ``dataset.json`` lists.

    Parameters
    ----------
    name : str
    modality : str
        DICOM's word for it; of the first channel.
    channels : tuple of str
        What each channel shows.
    labels : mapping of int to str
        Names of the values in the label maps, the background left out.
    cases : tuple of Case
    description, licence : str
        As the file says; empty where it does not.
    """

    name: str
    modality: str
    channels: tuple[str, ...]
    labels: Mapping[int, str]
    cases: tuple[Case, ...]
    description: str = ""
    licence: str = ""

    def questions(self) -> dict[str, tuple[str, ...]]:
        """For each question asked of whole cases its answers, in alphabetical order."""
        found: dict[str, set[str]] = {}
        for case in self.cases:
            for question, answer in case.answers.items():
                found.setdefault(question, set()).add(answer)
        return {question: tuple(sorted(answers)) for question, answers in sorted(found.items())}


def read_cases(data: Path) -> CaseSet:
    """Read a folder's ``dataset.json``.

    Parameters
    ----------
    data : pathlib.Path
        The folder, or the file itself.

    Raises
    ------
    ValueError
        If the file is not of that form, or names a file that is not there; the message names file and key.
    """
    file = data / FILE if data.is_dir() else data
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}; it lists the cases to train on.") from error
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    listed = found.get("training") if isinstance(found, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{file}: training: a list of cases is needed.")
    channels = _named(_channels(found, listed), file, "modality")
    cases = tuple(_case(entry, file, number) for number, entry in enumerate(listed))
    names = [case.name for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{file}: training: {twice[0]!r} is listed twice.")
    return CaseSet(
        name=str(found.get("name", file.parent.name)),
        modality=next(iter(channels.values())),
        channels=tuple(channels.values()),
        labels={value: name for value, name in _named(found.get("labels", {}), file, "labels").items() if value},
        cases=cases,
        description=str(found.get("description", "")),
        licence=str(found.get("licence", found.get("license", ""))),
    )


def folds_of(cases: Sequence[Case], folds: int) -> int:
    """How many folds there are: as many as the data fixes, else `folds`."""
    own = {case.fold for case in cases}
    return len(own) if None not in own else folds


def split(cases: Sequence[Case], fold: int, folds: int, seed: int) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Divide cases into those to train on and those to validate on; no patient is in both.

    Parameters
    ----------
    cases : sequence of Case
        Where every case names its fold, `folds` and `seed` are not used.
    fold : int
        The fold that is left out of training.
    folds : int
        How many there are.
    seed : int
        Decides who is in which fold.

    Raises
    ------
    ValueError
        If either part would be empty.
    """
    if all(case.fold is not None for case in cases):
        own = {case.patient: case.fold for case in cases}
    else:
        patients = sorted({case.patient for case in cases})
        order = np.random.default_rng(seed).permutation(len(patients))
        own = {patients[n]: place % folds for place, n in enumerate(order)}
    training = tuple(case for case in cases if own[case.patient] != fold)
    validation = tuple(case for case in cases if own[case.patient] == fold)
    if not training or not validation:
        raise ValueError(
            f"Fold {fold}: {len(training)} cases to train on and {len(validation)} to validate on, of "
            f"{len(set(own))} patients; choose another fold, or fewer folds."
        )
    return training, validation


def _channels(found: Mapping[str, Any], listed: list[Any]) -> Any:
    """What the channels are: MSD's ``modality``, nnU-Net's ``channel_names``, or the images of a prepared case."""
    first = listed[0].get("images") if isinstance(listed[0], dict) else None
    if isinstance(first, dict) and first:
        return {n: (kind if len(first) == 1 else name) for n, (name, kind) in enumerate(first.items())}
    return found.get("modality") or found.get("channel_names") or {"0": "CT"}


def _named(found: Any, file: Path, key: str) -> dict[int, str]:
    """``{"0": "CT"}``, or nnU-Net's ``{"CT": 0}``, as numbers with names."""
    if isinstance(found, str):
        return {0: found}
    try:
        if all(isinstance(value, int) for value in found.values()):
            return {int(value): str(name) for name, value in sorted(found.items(), key=lambda item: item[1])}
        return dict(sorted((int(value), str(name)) for value, name in found.items()))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: {key}: a table of numbers and names is needed.") from error


def _case(entry: Any, file: Path, number: int) -> Case:
    where = f"{file}: training.{number}"
    if not isinstance(entry, dict) or "image" not in entry:
        raise ValueError(f"{where}: image: every case needs one.")
    images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    paths = tuple(_path(image, file, f"{where}: image") for image in images)
    name = str(entry.get("id") or _stem(paths[0]))
    fold, classes = entry.get("fold"), entry.get("class", {})
    try:
        nodules = tuple(Nodule(**{**one, "centre_mm": tuple(one["centre_mm"])}) for one in entry.get("nodules", ()))
    except (TypeError, KeyError) as error:
        raise ValueError(f"{where}: nodules: each needs centre_mm and diameter_mm; {error}.") from error
    return Case(
        name=name,
        images=paths,
        label=_path(entry["label"], file, f"{where}: label") if entry.get("label") else _inside(paths, entry),
        patient=str(entry.get("patient") or name),
        fold=int(fold) if fold is not None else None,
        nodules=tuple(nodule for nodule in nodules if not nodule.excluded),
        knows_nodules=bool(entry.get("knows_nodules", "nodules" in entry)),
        instances=_path(entry["instances"], file, f"{where}: instances") if entry.get("instances") else None,
        answers={str(k): str(v) for k, v in classes.items()} if isinstance(classes, dict) else {"class": str(classes)},
        synthetic=_is_synthetic(entry),
    )


def _inside(images: tuple[Path, ...], entry: Mapping[str, Any]) -> Path | None:
    """A prepared case in one ``.npz`` file holds its labels there."""
    return images[0] if images[0].suffix == ".npz" and entry.get("label_names") else None


def _is_synthetic(entry: Mapping[str, Any]) -> bool:
    said = entry.get("source") or entry.get("provenance", {}).get("source") or ""
    return any(word in str(said).lower() for word in ("synthetic", "phantom", "simulated"))


def _path(name: object, file: Path, where: str) -> Path:
    path = file.parent / str(name)
    if not path.is_file():
        raise ValueError(f"{where}: {path} is not there.")
    return path


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
