"""The public chest CTs that the lung model is trained on, and those it is judged on. No scan is in both lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai.contract import Volume
from ai.data.classical import LEFT, RIGHT, classical_lungs
from ai.data.dicom_zip import read_contours, read_ct
from ai.data.nrrd import read_nrrd

TRAINING = ("cip-ct64", "lung-dx-a0002", "cptac-c3l00189")
HELD_OUT = ("lidc-idri-0314", "boost-breast")


@dataclass(frozen=True, slots=True)
class LungCase:
    """One scan and what is known of its lungs.

    Parameters
    ----------
    name : str
        One of `TRAINING` or `HELD_OUT`.
    volume : Volume
        Hounsfield units, axial.
    labels : numpy.ndarray of uint8, shape (slices, rows, columns)
        1 in the left lung, 2 in the right.
    reference : str
        Who or what drew the labels.
    known : tuple of int
        Values that the reference covers; the clinical contours of ``boost-breast`` know the left lung only.
    """

    name: str
    volume: Volume
    labels: NDArray[np.uint8]
    reference: str
    known: tuple[int, ...] = (LEFT, RIGHT)


def read_lung_case(name: str, data: Path) -> LungCase:
    """Read one case.

    Parameters
    ----------
    name : str
        One of `TRAINING` or `HELD_OUT`.
    data : pathlib.Path
        The development data: the folder that holds ``chest_ct`` and ``ct_other``.

    Returns
    -------
    LungCase

    Raises
    ------
    ValueError
        If there is no case of that name.
    """
    chest = data / "chest_ct"
    if name == "cip-ct64":
        return _cip(chest / "cip_ct64")
    if name == "boost-breast":
        archive = chest / "boost_breast_thorax.zip"
        volume = read_ct(archive, "ct/")
        left = read_contours(archive, "rtstruct/", "Lt Lung", volume)
        return LungCase(name, volume, left.astype(np.uint8) * LEFT, "clinical contour (RTSTRUCT, Lt Lung)", (LEFT,))
    classical = {
        "lung-dx-a0002": chest / "lung_dx_a0002.zip",
        "lidc-idri-0314": chest / "lidc_idri_0314.zip",
        "cptac-c3l00189": data / "ct_other" / "cptac_pda_c3l00189_abdomen.zip",
    }
    if name not in classical:
        raise ValueError(f"There is no lung case named {name!r}.")
    volume = read_ct(classical[name])
    return LungCase(name, volume, classical_lungs(volume), "thresholds, components and fills (ai/data/classical.py)")


def _cip(folder: Path) -> LungCase:
    """The whole-lung mask, split by the lobe labels: low byte 9 to 11 left, 12 to 14 right (CIP chest conventions)."""
    hu, affine = read_nrrd(folder / "ct-64.nrrd")
    regions = read_nrrd(folder / "lm-64.nrrd")[0].astype(np.int64) & 0xFF
    whole = read_nrrd(folder / "wholeLung-64.nrrd")[0] > 0
    labels = np.zeros(hu.shape, dtype=np.uint8)
    labels[whole & (regions >= 9) & (regions <= 11)] = LEFT
    labels[whole & (regions >= 12) & (regions <= 14)] = RIGHT
    return LungCase("cip-ct64", Volume(hu, affine), labels, "label maps of the Chest Imaging Platform")
