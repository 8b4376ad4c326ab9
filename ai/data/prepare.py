"""Turns a source into prepared cases: one grid, one index, folds by patient, and goes on where it was stopped.

No window and no normalisation are baked in: they belong to the bundle, which does the same to a patient's scan.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ai.data.case import Case, Entry
from ai.data.grid import crop, resample, straighten
from ai.data.prepared import read_record, write_case, write_index

_FILE_NAME = re.compile(r"^\w[\w.-]*$", re.ASCII)
_OWN_FOLD = re.compile(r"^subset(\d+)$")


@dataclass(frozen=True, slots=True)
class Options:
    """How to prepare.

    Parameters
    ----------
    spacing_mm : (float, float, float), optional
        Between slices, rows and columns; the source's own without it.
    crop : str
        One of `ai.data.grid.CROPS`.
    folds : int
        How many.
    seed : int
        The same seed and the same patients give the same folds.
    npz : bool
        NumPy files in place of NIfTI.
    """

    spacing_mm: tuple[float, float, float] | None = None
    crop: str = "none"
    folds: int = 5
    seed: int = 0
    npz: bool = False


def prepare(
    entries: Sequence[Entry], out: Path, options: Options, described: dict[str, Any], step: Callable[[str], None]
) -> dict[str, str]:
    """Prepare all cases and write the index.

    Parameters
    ----------
    entries : sequence of Entry
        The cases.
    out : pathlib.Path
        A folder; cases in it that were prepared the same way are kept.
    options : Options
        How.
    described : dict
        Goes into the index: source, form.
    step : callable
        Told the name of each case when it is done.

    Returns
    -------
    dict of str to str
        Cases that could not be read or brought to the grid, and why; the others are there.

    Raises
    ------
    ValueError
        If two cases have one name, a name is unfit for a folder, or there are more folds than patients.
    """
    doubled = [name for name, count in Counter(entry.id for entry in entries).items() if count > 1]
    if doubled:
        raise ValueError(f"Two cases are named {doubled[0]}.")
    unfit = [entry.id for entry in entries if not _FILE_NAME.match(entry.id)]
    if unfit:
        raise ValueError(f"A case is named {unfit[0]!r}, which is no name for a folder.")
    folds = folds_by_patient(entries, options.folds, options.seed)
    chosen = _as_json(options)
    refused: dict[str, str] = {}
    for entry in entries:
        folder = out / "cases" / entry.id
        if read_record(folder).get("options") != chosen:
            try:
                write_case(_on_grid(entry.read(), options), folder, chosen, npz=options.npz)
            except (ValueError, OSError, KeyError, AttributeError) as error:
                refused[entry.id] = f"{type(error).__name__}: {error}"
        step(entry.id)
    for entry in entries:
        own = _OWN_FOLD.match(read_record(out / "cases" / entry.id).get("split", ""))
        if own:  # LUNA16 comes in ten folds of its own, and figures are comparable only over these
            folds[entry.id] = int(own[1])
    write_index(out, {**described, "options": chosen, "folds": options.folds, "seed": options.seed}, folds, refused)
    return refused


def folds_by_patient(entries: Sequence[Entry], folds: int, seed: int) -> dict[str, int]:
    """Divide cases so that no patient is in two folds and the folds are about equally large.

    Parameters
    ----------
    entries : sequence of Entry
        The cases, in any order.
    folds : int
        How many.
    seed : int
        Decides the order in which patients are dealt out, those with many cases first.

    Returns
    -------
    dict of str to int
        Case to fold, from 0.

    Raises
    ------
    ValueError
        If there are fewer patients than folds.
    """
    cases = Counter(entry.patient for entry in entries)
    if folds < 1 or folds > len(cases):
        raise ValueError(f"{len(cases)} patients cannot be divided into {folds} folds.")
    patients = sorted(cases)
    np.random.default_rng(seed).shuffle(patients)
    sizes, fold_of = [0] * folds, {}
    for patient in sorted(patients, key=lambda patient: -cases[patient]):
        fold_of[patient] = sizes.index(min(sizes))
        sizes[fold_of[patient]] += cases[patient]
    return {entry.id: fold_of[entry.patient] for entry in entries}


def _on_grid(case: Case, options: Options) -> Case:
    straight = crop(straighten(case), options.crop)
    return straight if options.spacing_mm is None else resample(straight, options.spacing_mm)


def _as_json(options: Options) -> dict[str, Any]:
    """Without what concerns the index alone: other folds need no other voxels."""
    kept = {key: value for key, value in asdict(options).items() if key not in ("folds", "seed")}
    return {**kept, "spacing_mm": None if options.spacing_mm is None else list(options.spacing_mm)}
