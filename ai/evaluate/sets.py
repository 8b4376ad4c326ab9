"""What a nodule detector is judged on: fresh phantoms, nodules put into real lungs, and what readers outlined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ai.contract import Volume
from ai.data.case import Case, Entry, Provenance
from ai.data.nodule import SMALLEST_MM, Nodule

if TYPE_CHECKING:
    from ai.phantom.chest import Phantom
    from ai.phantom.nodules import Nodule as Drawn

FIRST_SEED = 500_000  # training draws far below it
_Spacing = tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """One set of cases, judged together.

    Parameters
    ----------
    name : str
        Fit for a file name.
    about : str
        What it is, in a sentence for the report.
    entries : tuple of Entry
        Its cases, not yet read.
    made_by : mapping of str to int or str
        Seeds and whatever else decides what the cases are.
    """

    name: str
    about: str
    entries: tuple[Entry, ...]
    made_by: Mapping[str, int | str]


def phantom_set(count: int, first_seed: int, spacing_mm: _Spacing, device: str) -> Evaluation:
    """Chests that nobody was ever scanned for, drawn while they are judged (see `ai.phantom.chest`)."""
    seeds = range(first_seed, first_seed + count)
    entries = [
        Entry(f"phantom-{seed}", f"phantom-{seed}", partial(_phantom, seed, spacing_mm, device)) for seed in seeds
    ]
    about = f"{count} synthetic chests, seeds {seeds[0]} to {seeds[-1]}, voxels of {_times(spacing_mm)} mm"
    return Evaluation("phantoms", about, tuple(entries), {"first_seed": first_seed, "spacing_mm": _times(spacing_mm)})


def phantom_case(drawn: Phantom, name: str) -> Case:
    """A drawn chest with its lungs and nodules, in the form of any other case."""
    return Case(
        id=name,
        patient=name,
        images={"ct": drawn.to_volume()},
        provenance=Provenance("phantom", "none needed", "drawn"),
        labels=drawn.lungs.cpu().numpy(),
        label_names={1: "left lung", 2: "right lung"},
        nodules=tuple(_known(nodule, number) for number, nodule in enumerate(drawn.nodules, start=1)),
        instances=drawn.instances.cpu().numpy(),
        knows_nodules=True,
    )


def inserted_set(real: Entry, count: int, first_seed: int, nodules: int = 6) -> Evaluation:
    """A real scan, again and again with other synthetic nodules in its lungs (see `ai.phantom.insertion`).

    What readers marked in the scan itself is excluded: neither right nor wrong to find. Its labels have to hold the
    left (1) and the right lung (2).
    """
    read = _Once(real)
    entries = [
        Entry(f"{real.id}-{seed}", real.patient, partial(_inserted, read, seed, nodules))
        for seed in range(first_seed, first_seed + count)
    ]
    about = f"{real.id} with {nodules} synthetic nodules at a time, {count} times, seeds from {first_seed}"
    return Evaluation("inserted", about, tuple(entries), {"first_seed": first_seed, "nodules": nodules})


def read_set(name: str, about: str, entries: list[Entry]) -> Evaluation:
    """Scans with nodules that readers outlined or marked."""
    return Evaluation(name, about, tuple(entries), {})


def lidc_0314(folder: Path, *, lungs: bool = False) -> Entry:
    """LIDC-IDRI-0314 with its four readers.

    Parameters
    ----------
    folder : pathlib.Path
        Holds ``lidc_idri_0314`` (a folder or ``.zip`` of DICOM) and ``lidc_idri_0314_readers.xml``, as
        ``deploy/demo/data`` does.
    lungs : bool
        With lungs by thresholds (`ai.data.classical`), to put nodules into.
    """
    return Entry("lidc-idri-0314", "lidc-idri-0314", partial(_lidc_0314, folder, lungs))


def _lidc_0314(folder: Path, lungs: bool) -> Case:
    from ai.data.classical import classical_lungs
    from ai.data.dicom_series import find_series, read_volume
    from ai.data.lidc import nodules_of
    from ai.data.lidc_xml import read_lidc_xml

    images = folder / "lidc_idri_0314"
    (series,) = find_series(images if images.is_dir() else images.with_suffix(".zip"))
    volume = read_volume(series)
    nodules, instances = nodules_of(read_lidc_xml(folder / "lidc_idri_0314_readers.xml"), volume)
    return Case(
        id="lidc-idri-0314",
        patient="lidc-idri-0314",
        images={"ct": volume},
        provenance=Provenance("LIDC-IDRI", "CC BY 3.0", "four radiologists"),
        labels=classical_lungs(volume) if lungs else None,
        label_names={1: "left lung", 2: "right lung"} if lungs else {},
        nodules=nodules,
        instances=instances,
        knows_nodules=True,
    )


class _Once:
    """Reads an entry when it is first asked for, and keeps the case."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._case: Case | None = None

    def read(self) -> Case:
        if self._case is None:
            self._case = self._entry.read()
        return self._case


def _phantom(seed: int, spacing_mm: _Spacing, device: str) -> Case:
    from ai.phantom.chest import make_phantom

    return phantom_case(make_phantom(seed, spacing_mm, device=device), f"phantom-{seed}")


def _inserted(real: _Once, seed: int, count: int) -> Case:
    import torch

    from ai.phantom.insertion import insert_nodules

    case = real.read()
    assert case.labels is not None
    hu, instances, nodules = insert_nodules(
        torch.from_numpy(case.volume.array),
        case.volume.affine,
        torch.from_numpy(case.labels),
        np.random.default_rng([seed, count]),
        count,
    )
    own = (replace(nodule, excluded=True, instance=None) for nodule in case.nodules)
    return replace(
        case,
        id=f"{case.id}-{seed}",
        images={"ct": Volume(hu.numpy(), case.volume.affine)},
        nodules=(*(_known(nodule, number) for number, nodule in enumerate(nodules, start=1)), *own),
        instances=instances.numpy(),
        provenance=replace(case.provenance, reference="drawn into the real scan"),
    )


def _known(nodule: Drawn, number: int) -> Nodule:
    return Nodule(
        centre_mm=nodule.centre_mm,
        diameter_mm=nodule.diameter_mm,
        attenuation=nodule.attenuation,
        margin=nodule.margin,
        volume_ml=nodule.volume_mm3 / 1000,
        excluded=nodule.diameter_mm < SMALLEST_MM,
        instance=number,
    )


def _times(spacing_mm: _Spacing) -> str:
    return " x ".join(f"{value:g}" for value in spacing_mm)
