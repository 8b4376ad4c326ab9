"""BraTS: one folder for each brain with four MR contrasts and a segmentation, named as in 2021 or as from 2023 on.

Baid et al., arXiv 2107.02314; Menze et al., IEEE TMI 2015;34:1993-2024. Use is bound to the challenge's own terms.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from ai.data.case import Case, Entry, Provenance
from ai.data.nifti import read_nifti

# Our name of a contrast to the two ways of writing it: 2021 (_t1ce) and 2023 (-t1c).
_CONTRASTS = {"t1": ("t1", "t1n"), "t1ce": ("t1ce", "t1c"), "t2": ("t2", "t2w"), "flair": ("flair", "t2f")}
_NAMES = {1: "necrotic tumour core", 2: "peritumoural oedema", 3: "enhancing tumour"}
_TIMEPOINT = re.compile(r"^(BraTS-\w+-\d+)-\d+$")


def is_brats(root: Path) -> bool:
    """Whether a folder looks like BraTS."""
    return next(iter(_folders(root)), None) is not None


def brats_entries(root: Path) -> list[Entry]:
    """Find the brains below a folder.

    Parameters
    ----------
    root : pathlib.Path
        Holds ``BraTS2021_00000/BraTS2021_00000_t1.nii.gz`` or ``BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz``
        and so on, in any depth.

    Returns
    -------
    list of Entry
        From 2023 on the last number is a time point: all of one patient's stay together.
    """
    entries = []
    for folder in _folders(root):
        dated = _TIMEPOINT.match(folder.name)
        entries.append(Entry(folder.name, dated[1] if dated else folder.name, partial(_read, folder)))
    return entries


def _folders(root: Path) -> list[Path]:
    return sorted(
        path for path in root.rglob("BraTS*") if path.is_dir() and any(_file(path, w) for w in _CONTRASTS["flair"])
    )


def _read(folder: Path) -> Case:
    images = {}
    for contrast, written in _CONTRASTS.items():
        path = next((file for name in written if (file := _file(folder, name)) is not None), None)
        if path is None:
            raise ValueError(f"{folder.name} has no {contrast} image.")
        images[contrast] = read_nifti(path)
    outlined = _file(folder, "seg")
    labels = None
    if outlined is not None:
        labels = read_nifti(outlined).array.astype(np.uint8)
        labels[labels == 4] = 3  # until 2021 the enhancing tumour was 4, and nothing was 3
    dated = _TIMEPOINT.match(folder.name)
    return Case(
        id=folder.name,
        patient=dated[1] if dated else folder.name,
        images=images,
        provenance=Provenance("BraTS", "terms of the challenge", "approved by neuroradiologists"),
        labels=labels,
        label_names=_NAMES if labels is not None else {},
        split="train" if labels is not None else "test",
    )


def _file(folder: Path, what: str) -> Path | None:
    names = [f"{folder.name}{joint}{what}.nii{packed}" for joint in "_-" for packed in (".gz", "")]
    return next((folder / name for name in names if (folder / name).is_file()), None)
