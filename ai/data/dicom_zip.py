"""Reads the zipped CT series and structure sets of the development data: a fixed set of public files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from ai.contract import Volume
from ai.data.dicom_labels import structure_masks
from ai.data.dicom_series import volume_of


def read_ct(path: Path, folder: str = "") -> Volume:
    """Read the CT slices below `folder` in a zip file, sorted along the slice normal.

    Parameters
    ----------
    path : pathlib.Path
        The zip file.
    folder : str
        Leading part of the member names to read.

    Returns
    -------
    Volume
        Hounsfield units, shape (slices, rows, columns).
    """
    return volume_of([ds for ds in _read_all(path, folder) if ds.Modality == "CT"])


def read_contours(path: Path, folder: str, roi_name: str, volume: Volume) -> NDArray[np.bool_]:
    """Rasterise one structure of a zipped RT Structure Set; see `ai.data.dicom_labels.structure_masks`.

    Parameters
    ----------
    path : pathlib.Path
        The zip file that holds the RT Structure Set.
    folder : str
        Leading part of the member's name.
    roi_name : str
        ROI Name (3006,0026).
    volume : Volume
        The image that the contours were drawn on.

    Returns
    -------
    numpy.ndarray of bool, shape (slices, rows, columns)
    """
    (structures,) = _read_all(path, folder)
    return structure_masks(structures, volume, lambda name: name == roi_name)[roi_name]


def _read_all(path: Path, folder: str) -> list[FileDataset]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith(folder) and not name.endswith("/")]
        return [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in names]
