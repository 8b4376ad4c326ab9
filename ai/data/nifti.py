"""Reads and writes NIfTI files as volumes; NIfTI is RAS, so x and y change their sign on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from ai.contract import Volume

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_nifti(path: Path) -> Volume:
    """Read a three-dimensional NIfTI image.

    Parameters
    ----------
    path : pathlib.Path
        A ``.nii`` or ``.nii.gz`` file.

    Returns
    -------
    Volume
        Its last axis as slices, its first as columns.

    Raises
    ------
    ValueError
        If the image does not have three dimensions.
    """
    image = Nifti1Image.from_filename(path)
    array = np.asarray(image.get_fdata(dtype=np.float32))
    if array.ndim != 3:
        raise ValueError(f"{path.name} has {array.ndim} dimensions; three are needed.")
    affine = (_RAS_TO_LPS @ image.affine)[:, [2, 1, 0, 3]]
    return Volume(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)


def write_nifti(array: NDArray[np.generic], affine: NDArray[np.float64], path: Path) -> None:
    """Write an image.

    Parameters
    ----------
    array : numpy.ndarray, shape (slices, rows, columns)
        Voxels or labels.
    affine : numpy.ndarray of float64, shape (4, 4)
        (slice, row, column) index to LPS mm.
    path : pathlib.Path
        A ``.nii`` or ``.nii.gz`` file.
    """
    ras = _RAS_TO_LPS @ affine[:, [2, 1, 0, 3]]
    image = Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), ras)  # type: ignore[no-untyped-call]
    image.to_filename(path)
