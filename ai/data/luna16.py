"""LUNA16, the ISBI 2016 challenge on lung nodules: 888 scans of LIDC-IDRI as MetaImage, nodules as a table.

Setio et al., Med Image Anal 2017;42:1-13. Its layout: ``subset0/`` to ``subset9/`` with one ``.mhd`` for each series,
``annotations.csv`` (nodules that three or four readers outlined), and ``annotations_excluded.csv`` (everything else
that was marked). ``seg-lungs-LUNA16/`` holds lungs drawn by a program.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.contract import Volume
from ai.data.case import Case, Entry, Provenance
from ai.data.metaimage import read_metaimage
from ai.data.nodule import SMALLEST_MM, Nodule

_LUNGS = "seg-lungs-LUNA16"


def luna16_entries(root: Path) -> list[Entry]:
    """Find the scans of LUNA16.

    Parameters
    ----------
    root : pathlib.Path
        The folder that holds ``annotations.csv``; ``annotations_excluded.csv`` is looked for below it.

    Returns
    -------
    list of Entry
        One for each scan that is there, however many subsets were downloaded. LIDC-IDRI has one scan for nearly every
        patient, and LUNA16 gives no patient: the series stands for him.
    """
    nodules: dict[str, list[Nodule]] = defaultdict(list)
    for uid, nodule in _rows(root / "annotations.csv", excluded=False):
        nodules[uid].append(nodule)
    for table in root.rglob("annotations_excluded.csv"):
        for uid, nodule in _rows(table, excluded=True):
            nodules[uid].append(nodule)
    paths = sorted(path for path in root.rglob("*.mhd") if path.parent.name != _LUNGS)
    return [Entry(p.stem, p.stem, partial(_read, p, root / _LUNGS / p.name, tuple(nodules[p.stem]))) for p in paths]


def is_luna16(root: Path) -> bool:
    """Whether a folder looks like LUNA16."""
    return (root / "annotations.csv").is_file() and next(root.rglob("*.mhd"), None) is not None


def _read(path: Path, lungs: Path, nodules: tuple[Nodule, ...]) -> Case:
    volume = read_metaimage(path)
    return Case(
        id=path.stem,
        patient=path.stem,
        images={"ct": volume},
        provenance=Provenance("LUNA16", "CC BY 3.0 (LIDC-IDRI)", "three or four readers of LIDC-IDRI"),
        labels=_left_and_right(read_metaimage(lungs)) if lungs.is_file() else None,
        label_names={1: "left lung", 2: "right lung"} if lungs.is_file() else {},
        nodules=nodules,
        knows_nodules=True,
        split=path.parent.name,
    )


def _left_and_right(lungs: Volume) -> NDArray[np.uint8]:
    """Lungs are 3 and 4, the trachea is 5; which of the two is left is read from where they are."""
    labels = np.zeros(lungs.array.shape, dtype=np.uint8)
    towards_left = {
        value: float(lungs.affine[0, :3] @ ndimage.center_of_mass(lungs.array == value))
        for value in (3, 4)
        if (lungs.array == value).any()
    }
    left = max(towards_left, key=lambda value: towards_left[value], default=0)
    for value in towards_left:
        labels[lungs.array == value] = 1 if value == left else 2
    return labels


def _rows(table: Path, *, excluded: bool) -> list[tuple[str, Nodule]]:
    with table.open(newline="", encoding="utf-8") as file:
        return [
            (
                row["seriesuid"],
                Nodule(
                    (float(row["coordX"]), float(row["coordY"]), float(row["coordZ"])),
                    # What was only pointed at has the diameter -1 there.
                    max(float(row["diameter_mm"]), SMALLEST_MM if excluded else 0.0),
                    excluded=excluded,
                ),
            )
            for row in csv.DictReader(file)
        ]
