"""Reads and writes NIfTI files as volumes; NIfTI is RAS, so x and y change their sign on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from ai.contract import Volume

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


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
        If the image does not have three dimensions and one channel.
    """
    channels = read_channels(path)
    if len(channels) != 1:
        raise ValueError(f"{path.name} has {len(channels)} channels; one is needed.")
    return channels[0]


def read_channels(path: Path) -> list[Volume]:
    """Read an image of three or four dimensions; the fourth are its channels.

    Parameters
    ----------
    path : pathlib.Path
        A ``.nii`` or ``.nii.gz`` file.

    Returns
    -------
    list of Volume
        One for each channel, all on one grid.

    Raises
    ------
    ValueError
        If the image has another number of dimensions.
    """
    image = Nifti1Image.from_filename(path)
    array = np.asarray(image.get_fdata(dtype=np.float32))
    if array.ndim not in (3, 4):
        raise ValueError(f"{path.name} has {array.ndim} dimensions; three or four are needed.")
    affine = (RAS_TO_LPS @ image.affine)[:, [2, 1, 0, 3]]
    channels = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    return [Volume(np.ascontiguousarray(channel.transpose(2, 1, 0)), affine) for channel in channels]


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
    ras = RAS_TO_LPS @ affine[:, [2, 1, 0, 3]]
    image = Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), ras)  # type: ignore[no-untyped-call]
    image.to_filename(path)
