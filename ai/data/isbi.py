"""Two more challenges of ISBI beside LUNA16 (2016): LiTS (2017, liver tumours in CT) and ISIC (2016-17, skin lesions).

LiTS: Bilic et al., Med Image Anal 2023;84:102680, ``volume-0.nii`` with ``segmentation-0.nii``. ISIC: Codella et al.,
arXiv 1710.05006, ``ISIC_0000000.jpg`` with ``ISIC_0000000_segmentation.png``; photographs, read as a volume of one
slice with pixels of 1 mm, for nobody knows their size.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ai.contract import Volume
from ai.data.case import Case, Entry, Provenance
from ai.data.nifti import read_nifti

_NIFTI = (".nii", ".nii.gz")
_COLOURS = ("red", "green", "blue")


def is_lits(root: Path) -> bool:
    """Whether a folder looks like LiTS."""
    return next(root.rglob("volume-*.nii*"), None) is not None


def lits_entries(root: Path) -> list[Entry]:
    """Find the scans of LiTS: the numbers are patients."""
    entries = []
    for path in sorted(root.rglob("volume-*.nii*")):
        number = path.name.removeprefix("volume-").split(".")[0]
        outlined = next((f for e in _NIFTI for f in root.rglob(f"segmentation-{number}{e}")), None)
        entries.append(Entry(f"lits-{number}", f"lits-{number}", partial(_read_lits, f"lits-{number}", path, outlined)))
    return entries


def is_isic(root: Path) -> bool:
    """Whether a folder looks like the segmentation task of ISIC."""
    return next(root.rglob("ISIC_*.jpg"), None) is not None


def isic_entries(root: Path) -> list[Entry]:
    """Find the photographs of ISIC; the task says nothing of patients, so each photograph stands for one."""
    masks = {path.stem.lower(): path for path in root.rglob("ISIC_*_[sS]egmentation.png")}
    return [
        Entry(path.stem, path.stem, partial(_read_isic, path, masks.get(f"{path.stem.lower()}_segmentation")))
        for path in sorted(root.rglob("ISIC_*.jpg"))
    ]


def _read_lits(name: str, path: Path, outlined: Path | None) -> Case:
    return Case(
        id=name,
        patient=name,
        images={"ct": read_nifti(path)},
        provenance=Provenance("LiTS (ISBI 2017)", "CC BY-NC-ND", "radiologists of seven sites"),
        labels=None if outlined is None else read_nifti(outlined).array.astype(np.uint8),
        label_names={} if outlined is None else {1: "liver", 2: "liver tumour"},
        split="test" if outlined is None else "train",
    )


def _read_isic(path: Path, outlined: Path | None) -> Case:
    with Image.open(path) as photograph:
        pixels = np.asarray(photograph.convert("RGB"), dtype=np.float32)
    labels = None
    if outlined is not None:
        with Image.open(outlined) as drawn:
            labels = (np.asarray(drawn.convert("L")) > 127).astype(np.uint8)[None]
    flat = np.zeros((4, 4))
    flat[[2, 1, 0, 3], [0, 1, 2, 3]] = 1
    return Case(
        id=path.stem,
        patient=path.stem,
        images={colour: Volume(pixels[None, ..., n].copy(), flat, "XC") for n, colour in enumerate(_COLOURS)},
        provenance=Provenance("ISIC (ISBI 2016 and 2017)", "as the ISIC archive says of each image", "dermatologists"),
        labels=labels,
        label_names={} if labels is None else {1: "skin lesion"},
        split="test" if labels is None else "train",
    )
