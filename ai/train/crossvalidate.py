"""Cross-validation: every case is judged once by a network that has not seen its patient."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ai.device import device_of
from ai.evaluate.bootstrap import RESAMPLES, Interval, bootstrap
from ai.train import checkpoint
from ai.train.cases import folds_of, read_cases, split
from ai.train.loop import BEST, means
from ai.train.networks import build
from ai.train.recipe import Recipe
from ai.train.run import RECORD, Record, read_record, task_of, train
from ai.train.task import Rows, Say

PREDICTIONS = "predictions"


def crossvalidate(
    recipe: Recipe, data: Path, out: Path, *, seed: int = 0, device: str = "auto", say: Say = print
) -> str:
    """Train once for each fold, judge each case by the network that left its patient out, and write a summary.

    Parameters
    ----------
    recipe : Recipe
    data : pathlib.Path
        A folder with a ``dataset.json``.
    out : pathlib.Path
        Folder to write: ``fold_0``, …; ``predictions``, what was said of each case by the network that had not seen it;
        ``cases.csv``; ``summary.csv`` and ``summary.md``. Folds that are finished are not trained again, and one that
        was interrupted goes on where it was.
    seed : int
    device : str
    say : callable

    Returns
    -------
    str
        The table of ``summary.md``.

    Raises
    ------
    ValueError
        As `ai.train.run.train`.
    """
    found = read_cases(data)
    folds = folds_of(found.cases, recipe.data.folds)
    patients = {case.name: case.patient for case in found.cases}
    rows: Rows = []
    for fold in range(folds):
        run = out / f"fold_{fold}"
        if (run / RECORD).is_file():
            say(f"fold {fold}: finished already")
            record = read_record(run)
            if (record.recipe, record.seed, record.name) != (recipe, seed, found.name):
                raise ValueError(f"{run} was trained with another recipe, seed or data set; choose another folder.")
        else:
            say(f"fold {fold} of {folds}")
            record = train(recipe, data, run, fold=fold, seed=seed, device=device, resume=True, say=say)
        rows += [{"fold": fold, "patient": patients[row["case"]], **row} for row in _said(record, data, run, device)]
    _write_csv(rows, out / "cases.csv")
    summary = summarise(rows) | _pooled(task_of(recipe, found, out / "cache"), rows, folds)
    _write_csv([{"figure": name, **row} for name, row in summary.items()], out / "summary.csv")
    table = markdown(summary, len(rows), len({row["patient"] for row in rows}), folds)
    checkpoint.write_text(table + "\n", out / "summary.md")
    return table


def _said(record: Record, data: Path, run: Path, device: str) -> Rows:
    """What the fold's best network says of the cases that it has not seen, kept as files."""
    kept = run.parent / PREDICTIONS
    found, chosen = read_cases(data), torch.device(device_of(device))
    task = task_of(record.recipe, found, run / "cache")
    network = build(task.network_config)
    network.load_state_dict(checkpoint.load(run / BEST)["model"])
    _, validation = split(found.cases, record.fold, record.recipe.data.folds, record.seed)
    with torch.inference_mode():
        prepared = task.prepare(validation, training=False)
        rows: Rows = task.judge(network.to(chosen).eval(), prepared, chosen, kept)
    return rows


def _pooled(task: Any, rows: Rows, folds: int) -> dict[str, dict[str, float]]:
    """Figures that are no mean over cases, such as the area under a curve: over all cases, and fold by fold."""
    if not hasattr(task, "pooled"):
        return {}
    by_fold = [task.pooled([row for row in rows if row["fold"] == fold], resamples=0) for fold in range(folds)]
    summary = {}
    for name, interval in task.pooled(rows).items():
        each = [found[name].value for found in by_fold if name in found and math.isfinite(found[name].value)]
        summary[name] = {
            "mean": interval.value,
            "low": interval.low,
            "high": interval.high,
            "fold_mean": float(np.mean(each)) if each else math.nan,
            "fold_sd": float(np.std(each, ddof=1)) if len(each) > 1 else math.nan,
            "cases": float(len(rows)),
        }
    return summary


def summarise(rows: Rows, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, dict[str, float]]:
    """Mean over all cases with its confidence interval, and mean and spread of the folds' means.

    Parameters
    ----------
    rows : list of dict
        One for each case, with ``case``, ``patient``, ``fold`` and figures.
    resamples, seed : int
        Of the bootstrap; patients are drawn, with all their cases.

    Returns
    -------
    dict of str to dict of str to float
        For each figure ``mean``, ``low``, ``high`` (95 %), ``fold_mean``, ``fold_sd`` and the number of ``cases``.
    """
    told = ("case", "patient", "fold")
    names = dict.fromkeys(name for row in rows for name, value in row.items() if name not in told)
    folds = sorted({row["fold"] for row in rows})
    summary = {}
    for name in names:
        known = [row for row in rows if isinstance(row.get(name), int | float) and math.isfinite(row[name])]
        if not known:
            continue
        interval = _interval([float(row[name]) for row in known], [row["patient"] for row in known], resamples, seed)
        each = [means([row for row in known if row["fold"] == fold]).get(name) for fold in folds]
        by_fold = [value for value in each if value is not None]
        spread = float(np.std(by_fold, ddof=1)) if len(by_fold) > 1 else math.nan
        summary[name] = {
            "mean": interval.value,
            "low": interval.low,
            "high": interval.high,
            "fold_mean": float(np.mean(by_fold)),
            "fold_sd": spread,
            "cases": float(len(known)),
        }
    return summary


def markdown(summary: Mapping[str, Mapping[str, float]], cases: int, patients: int, folds: int) -> str:
    """The summary as one table."""
    lines = [
        f"{cases} cases of {patients} patients, {folds} folds by patient; every case judged by the network that had",
        "not seen its patient. That network's step was chosen on the same fold.",
        "",
        "| figure | mean over cases (95 % CI, bootstrap over patients) | mean ± sd over folds | cases |",
        "|---|---|---|---|",
    ]
    for name, row in summary.items():
        lines.append(
            f"| {name} | {Interval(row['mean'], row['low'], row['high'])} "
            f"| {row['fold_mean']:.3f} ± {row['fold_sd']:.3f} | {row['cases']:.0f} |"
        )
    return "\n".join(lines)


def _interval(values: Sequence[float], patients: Sequence[str], resamples: int, seed: int) -> Interval:
    which = np.unique(patients, return_inverse=True)[1]
    figures = np.array(values)

    def mean(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        weights = drawn[which]
        return np.array([np.average(figures, weights=weights) if weights.any() else np.nan])

    return bootstrap(mean, int(which.max()) + 1, resamples=resamples, seed=seed)[0]


def _write_csv(rows: Rows, path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: json.dumps(v) if isinstance(v, dict | list) else v for name, v in row.items()})
    checkpoint.write_text(text.getvalue(), path)
