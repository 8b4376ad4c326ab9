"""Reads the zipped CT series and structure sets of the development data.

The node has its own, much stricter reader; this one trusts its input, because the input is a fixed set of public files.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from skimage.draw import polygon2mask

from ai.contract import Volume


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
    slices = [ds for ds in _read_all(path, folder) if ds.Modality == "CT"]
    # PS3.3 C.7.6.2.1.1: the first triple points along a row, towards higher column indices.
    along_columns, along_rows = np.array(slices[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    normal = np.cross(along_columns, along_rows)
    slices.sort(key=lambda ds: float(np.dot(np.array(ds.ImagePositionPatient, dtype=float), normal)))
    first, last = (np.array(ds.ImagePositionPatient, dtype=float) for ds in (slices[0], slices[-1]))
    between_rows, between_columns = (float(value) for value in slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / (len(slices) - 1)
    affine[:3, 1] = along_rows * between_rows
    affine[:3, 2] = along_columns * between_columns
    affine[:3, 3] = first
    array = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices])
    return Volume(array.astype(np.float32), affine)


def read_contours(path: Path, folder: str, roi_name: str, volume: Volume) -> NDArray[np.bool_]:
    """Rasterise the planar contours of one structure onto an axial volume.

    Contours of one slice are combined by exclusive or, so that a contour inside another cuts a hole
    (PS3.3 C.8.8.6.3, the keyhole-free way that planning systems write them).

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
    number = next(roi.ROINumber for roi in structures.StructureSetROISequence if roi.ROIName == roi_name)
    contours = next(roi for roi in structures.ROIContourSequence if roi.ReferencedROINumber == number).ContourSequence
    to_index = np.linalg.inv(volume.affine)
    mask = np.zeros(volume.array.shape, dtype=np.bool_)
    for contour in contours:
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        index = points @ to_index[:3, :3].T + to_index[:3, 3]
        mask[round(float(index[:, 0].mean()))] ^= polygon2mask(mask.shape[1:], index[:, 1:])  # type: ignore[no-untyped-call]
    return mask


def _read_all(path: Path, folder: str) -> list[FileDataset]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith(folder) and not name.endswith("/")]
        return [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in names]
