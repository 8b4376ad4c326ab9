"""Small data sets whose truth is known: ellipsoids in noise, written as a hospital's own data would lie on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ai.data.nifti import write_nifti

SPACING_MM = 2.0
AFFINE = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
SHAPE = (24, 24, 24)


def write_ellipsoids(folder: Path, cases: int, *, per_patient: int = 1, **more: Any) -> Path:
    """Write a data set like one of the Medical Segmentation Decathlon; each case holds a liver with a tumour in it.

    `more` is put into every case's entry: values, or functions of the case's number.
    """
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    listed = []
    for number in range(cases):
        image, label = ellipsoids(number)
        write_nifti(image, AFFINE, folder / "imagesTr" / f"case_{number}.nii.gz")
        write_nifti(label, AFFINE, folder / "labelsTr" / f"case_{number}.nii.gz")
        entry: dict[str, Any] = {
            "image": f"./imagesTr/case_{number}.nii.gz",
            "label": f"./labelsTr/case_{number}.nii.gz",
        }
        if per_patient > 1:
            entry["patient"] = f"patient {number // per_patient}"
        listed.append(entry | {key: value(number) if callable(value) else value for key, value in more.items()})
    about = {
        "name": "Ellipsoids",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "tumour"},
        "numTraining": cases,
        "training": listed,
    }
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


def ellipsoids(number: int) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.uint8]]]:
    """An image and its label map; the same number gives the same."""
    rng = np.random.default_rng(number)
    index = np.indices(SHAPE, dtype=np.float64)
    middle, radii = rng.uniform(9, 14, 3), rng.uniform(5.5, 8.5, 3)
    away = (((index - middle.reshape(3, 1, 1, 1)) / radii.reshape(3, 1, 1, 1)) ** 2).sum(axis=0)
    tumour = np.linalg.norm(index - (middle + rng.uniform(-2, 2, 3)).reshape(3, 1, 1, 1), axis=0) < rng.uniform(2.2, 3)
    label = (away < 1).astype(np.uint8)
    label[tumour] = 2
    image = np.array([-80.0, 60.0, 180.0])[label] + rng.normal(0, 25, SHAPE)
    return image.astype(np.float32), label
