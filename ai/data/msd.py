"""Medical Segmentation Decathlon: ``dataset.json`` beside ``imagesTr``, ``labelsTr`` and ``imagesTs``, all NIfTI.

Antonelli et al., Nat Commun 2022;13:4128. nnU-Net's older raw data sets have the same form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ai.contract import Volume
from ai.data.case import Case, Entry, Provenance
from ai.data.nifti import read_channels, read_nifti
from ai.data.nodule import outlined_nodule

_LUNG_TUMOURS = "Lung"


def is_msd(root: Path) -> bool:
    """Whether a folder looks like one task of the Decathlon."""
    return (root / "dataset.json").is_file() and (root / "imagesTr").is_dir()


def msd_entries(root: Path) -> list[Entry]:
    """Find the cases of one task.

    Parameters
    ----------
    root : pathlib.Path
        The task's folder, e.g. ``Task06_Lung``.

    Returns
    -------
    list of Entry
        Training cases with labels, test cases without. Each image is one patient's.

    Raises
    ------
    ValueError
        If ``dataset.json`` lacks its lists.
    """
    described = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    if not isinstance(described.get("training"), list):
        raise ValueError(f"{root.name}/dataset.json lists no training cases.")
    entries = []
    for item in described["training"]:
        image, label = root / item["image"], root / item["label"]
        entries.append(_entry(image, label, described))
    entries += [_entry(root / image, None, described) for image in described.get("test", [])]
    return entries


def _entry(image: Path, label: Path | None, described: Mapping[str, Any]) -> Entry:
    name = image.name.removesuffix(".gz").removesuffix(".nii")
    return Entry(name, name, partial(_read, name, image, label, described))


def _read(name: str, image: Path, label: Path | None, described: Mapping[str, Any]) -> Case:
    modalities = [str(named) for _, named in sorted(described.get("modality", {"0": "CT"}).items(), key=_by_number)]
    channels = read_channels(image)
    if len(channels) != len(modalities):
        raise ValueError(f"{image.name} has {len(channels)} channels where dataset.json names {len(modalities)}.")
    images = {named.lower().replace(" ", "_"): volume for named, volume in zip(modalities, channels, strict=True)}
    names = {int(value): str(named) for value, named in described.get("labels", {}).items() if int(value) > 0}
    labels = None if label is None else read_nifti(label).array.astype(np.uint8)
    case = Case(
        id=name,
        patient=name,
        images=images,
        provenance=Provenance(
            f"Medical Segmentation Decathlon, {described.get('name', 'unnamed')}",
            str(described.get("licence") or described.get("license") or "unknown"),
            str(described.get("reference") or "as published"),
        ),
        labels=labels,
        label_names=names,
        split="train" if label is not None else "test",
    )
    return _with_tumours(case) if described.get("name") == _LUNG_TUMOURS and labels is not None else case


def _with_tumours(case: Case) -> Case:
    """Task06_Lung outlines lung tumours: each connected one is a nodule to find."""
    assert case.labels is not None
    parts, count = ndimage.label(case.labels > 0, structure=np.ones((3, 3, 3)))
    instances = np.where(parts <= 255, parts, 0).astype(np.uint8)
    volume: Volume = case.volume
    nodules = tuple(outlined_nodule(instances == n, volume, n) for n in range(1, min(count, 255) + 1))
    return replace(case, nodules=nodules, instances=instances, knows_nodules=True)


def _by_number(item: tuple[str, Any]) -> int:
    return int(item[0])
