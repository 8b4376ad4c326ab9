"""Whether drawn nodules help a detector: the same scans, steps and seeds, with and without them, on fresh phantoms.

Nothing is chosen on the phantoms that judge: each detector is trained for a number of steps that is given, and judged
once, at the end. The figures are reported whatever they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai.contract import Volume
from ai.data.case import Case, Provenance
from ai.data.nodule import outlined_nodule
from ai.data.prepared import write_case, write_index
from ai.device import device_of
from ai.synthesise.paste import paste_nodules
from ai.synthesise.patches import PatchSet
from ai.train.cases import read_cases
from ai.train.detection import Detection
from ai.train.recipe import Data, Recipe, Training
from ai.train.run import train
from ai.train.task import Say

_LEARN, _JUDGE = 0, 1
_ARMS = ("without", "with drawn nodules")
_PROVENANCE = Provenance("phantom", "Apache-2.0", "drawn")


@dataclass(frozen=True, slots=True)
class Trial:
    """How to measure.

    Parameters
    ----------
    learn, judge : int
        Phantoms to train on and to judge on.
    first_seed : int
        Of the phantoms to train on; those that judge count on from it after them.
    pasted : int
        Drawn nodules put into a copy of each training phantom.
    steps, batch : int
        Of every training.
    repeats : int
        Trainings of each kind, with the seeds 0, 1, …
    spacing_mm : float
        Voxel size.
    patch : int
        Voxels along each edge of a training patch.
    """

    learn: int = 12
    judge: int = 40
    first_seed: int = 1_000_000
    pasted: int = 4
    steps: int = 1500
    batch: int = 4
    repeats: int = 3
    spacing_mm: float = 1.5
    patch: int = 64


def measure_effect(patches: PatchSet, out: Path, trial: Trial, *, device: str = "auto", say: Say = print) -> str:
    """Train detectors with and without drawn nodules, and compare them.

    Parameters
    ----------
    patches : PatchSet
        Drawn by a model that has seen no phantom that judges.
    out : pathlib.Path
        Folder to write: the prepared phantoms, every run, and ``effect.md``.
    trial : Trial
    device : str
    say : callable

    Returns
    -------
    str
        The table of ``effect.md``.
    """
    _write(out, trial, patches, device, say)
    figures: dict[str, list[tuple[float, float]]] = {}
    for name in _ARMS:
        data = out / name.replace(" ", "_")
        for seed in range(trial.repeats):
            record = train(_recipe(trial), data, data / f"run_{seed}", fold=_JUDGE, seed=seed, device=device, say=say)
            found = Detection(_recipe(trial), read_cases(data), data).pooled(record.rows)
            figures.setdefault(name, []).append((found["CPM"].value, found["sensitivity at 1"].value))
            say(f"{name}, seed {seed}: CPM {found['CPM']}, sensitivity at 1 false positive {found['sensitivity at 1']}")
    table = _table(figures, trial)
    (out / "effect.md").write_text(table + "\n", encoding="utf-8")
    return table


def _recipe(trial: Trial) -> Recipe:
    spacing = (trial.spacing_mm,) * 3
    training = Training(steps=trial.steps, batch=trial.batch, validate_every=trial.steps, ema=0.99)
    return Recipe("detection", Data(spacing, (-1000.0, 400.0), (trial.patch,) * 3), training=training)


def _write(out: Path, trial: Trial, drawn: PatchSet, device: str, say: Say) -> None:
    """Draw each phantom once; the second set has a copy of each to train on, with drawn nodules, beside it."""
    folders = [out / name.replace(" ", "_") for name in _ARMS]
    folds: list[dict[str, int]] = [{}, {}]
    for number in range(trial.learn + trial.judge):
        fold = _LEARN if number < trial.learn else _JUDGE
        case, lungs = _phantom(trial.first_seed + number, trial.spacing_mm, device)
        more = []
        if fold == _LEARN:
            more.append(_pasted(case, lungs, drawn, trial.pasted, np.random.default_rng([trial.first_seed, number])))
        for folder, cases, own in zip(folders, ([case], [case, *more]), folds, strict=True):
            for each in cases:
                write_case(each, folder / "cases" / each.id, {}, npz=True)
                own[each.id] = fold
        if (number + 1) % 10 == 0:
            say(f"{number + 1} of {trial.learn + trial.judge} phantoms drawn")
    for folder, own in zip(folders, folds, strict=True):
        write_index(folder, {"name": folder.name}, own, {})


def _phantom(seed: int, spacing_mm: float, device: str) -> tuple[Case, NDArray[np.bool_]]:
    from ai.phantom.chest import make_phantom

    phantom = make_phantom(seed, (spacing_mm,) * 3, device=device_of(device), nodules=3)
    lungs = phantom.lungs.cpu().numpy() > 0
    found = np.argwhere(lungs)
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(found.min(axis=0), found.max(axis=0), strict=True))
    affine = phantom.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ found.min(axis=0)
    volume = Volume(np.ascontiguousarray(phantom.hu.cpu().numpy()[box]), affine)
    instances = phantom.instances.cpu().numpy()[box]
    kinds = {number: nodule.attenuation for number, nodule in enumerate(phantom.nodules, start=1)}
    case = _case(f"phantom_{seed}", volume, instances, kinds)
    return case, lungs[box]


def _pasted(
    case: Case,
    lungs: NDArray[np.bool_],
    drawn: PatchSet,
    count: int,
    rng: np.random.Generator,
) -> Case:
    """A copy with drawn nodules beside its own; of the same patient, so that no fold divides them."""
    assert case.instances is not None
    volume = case.volume
    hu, labels, new = paste_nodules(volume.array, lungs, volume.spacing_mm, drawn, count, rng, occupied=case.instances)
    own = {nodule.instance: nodule.attenuation for nodule in case.nodules if nodule.instance is not None}
    kinds = own | {nodule.label: nodule.attenuation for nodule in new}
    copy = _case(f"{case.id}_pasted", replace(volume, array=hu), labels, kinds)
    return replace(copy, patient=case.patient)


def _case(name: str, volume: Volume, instances: NDArray[np.uint8], kinds: Mapping[int, str]) -> Case:
    nodules = tuple(
        replace(outlined_nodule(instances == number, volume, number), attenuation=kind)
        for number, kind in kinds.items()
        if (instances == number).any()
    )
    return Case(name, name, {"ct": volume}, _PROVENANCE, nodules=nodules, instances=instances, knows_nodules=True)


def _table(figures: dict[str, list[tuple[float, float]]], trial: Trial) -> str:
    lines = [
        f"{trial.learn} phantoms to train on, {trial.judge} fresh ones to judge; {trial.steps} steps of {trial.batch}",
        f"patches; {trial.repeats} trainings each, mean ± standard deviation over their seeds.",
        "",
        "| training | CPM | sensitivity at 1 false positive per scan |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {_spread(a for a, _ in rows)} | {_spread(b for _, b in rows)} |" for name, rows in figures.items()
    ]
    without, with_ = (np.array(rows) for rows in figures.values())
    gains = with_ - without
    lines.append(f"| difference, seed by seed | {_spread(gains[:, 0], '+')} | {_spread(gains[:, 1], '+')} |")
    return "\n".join(lines)


def _spread(values: Iterable[float], sign: str = "") -> str:
    found = np.array(list(values))
    spread = float(found.std(ddof=1)) if len(found) > 1 else float("nan")
    return f"{float(found.mean()):{sign}.3f} ± {spread:.3f}"
