"""Reads the label maps that a program wrote as NIfTI files, and lays them onto the grid of the image that it was given.

Where a map lies is what its affine says. It may have other axes, another direction or another spacing than the image;
it has to lie over all of it, else what it says of the rest would be a guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ai.contract import LabelMap, ModelInvalidOutput, Volume
from ai.data.nifti import RAS_TO_LPS
from ai.outputs import values_in
from ai.regrid import to_grid

_ENDINGS = (".nii.gz", ".nii")
_EDGE = 0.51  # of a voxel: how far beyond the centre of its last voxel a map still says something


def read_labels(file: Path, names: Mapping[int, str], image: Volume) -> tuple[LabelMap, ...]:
    """Read one file in which each structure has a number.

    Parameters
    ----------
    file : pathlib.Path
        ``labels.nii.gz``, or ``labels.nii`` beside it.
    names : mapping of int to str
        Of each number, 1 to 255.
    image : Volume
        The image that the program was given.

    Raises
    ------
    ModelInvalidOutput
        If there is no such file, it is no label map, it lies elsewhere, or it holds a number without a name.
    """
    found = next((place for place in (file, file.with_suffix("")) if place.is_file()), None)
    if found is None:
        raise ModelInvalidOutput("The program ended well, but wrote no label map.")
    labels = _on_grid(found, image, highest=255)
    if unknown := sorted(values_in(labels) - {0, *names}):
        raise ModelInvalidOutput(f"The program's label map holds {unknown[0]}, to which the card gives no name.")
    return (LabelMap(labels, dict(names)),)


def read_structures(folder: Path, names: Sequence[str], image: Volume) -> tuple[LabelMap, ...]:
    """Read one file for each structure; they may overlap.

    Parameters
    ----------
    folder : pathlib.Path
        Where the program put them.
    names : sequence of str
        What their files are called, without ``.nii.gz``. Further files are left alone.
    image : Volume
        The image that the program was given.

    Raises
    ------
    ModelInvalidOutput
        If a file is missing, is no mask, or lies elsewhere.
    """
    maps: list[LabelMap] = []
    for name in names:
        file = next((folder / f"{name}{end}" for end in _ENDINGS if (folder / f"{name}{end}").is_file()), None)
        if file is None:
            raise ModelInvalidOutput(f"The program ended well, but wrote no file for {name}.")
        _put(_on_grid(file, image, highest=1).astype(bool), name, maps)
    return tuple(maps)


def _put(mask: NDArray[np.bool_], name: str, maps: list[LabelMap]) -> None:
    """Add a structure to the first map in which nothing is in its place, or to a new one."""
    for number, known in enumerate(maps):
        if len(known.names) < 255 and not known.array[mask].any():
            value = len(known.names) + 1
            known.array[mask] = value
            maps[number] = LabelMap(known.array, {**known.names, value: name})
            return
    maps.append(LabelMap(mask.astype(np.uint8), {1: name}))


def _on_grid(file: Path, image: Volume, *, highest: int) -> NDArray[np.uint8]:
    """Labels of a file at the voxels of the image."""
    try:
        read = Nifti1Image.from_filename(file)
        array, header = np.asarray(read.dataobj), read.header
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, MemoryError) as error:
        raise ModelInvalidOutput(f"The program's {file.name} cannot be read as NIfTI.") from error
    array = array.reshape(array.shape[:3]) if array.ndim > 3 and array.shape[3:] == (1,) * (array.ndim - 3) else array
    if array.ndim != 3:
        raise ModelInvalidOutput(f"The program's {file.name} has {array.ndim} dimensions; three are needed.")
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        raise ModelInvalidOutput(f"The program's {file.name} does not say where it lies in the patient.")
    labels = array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.bool_) and (not np.array_equal(labels, array) or labels.max() > highest):
        kind = "0 and 1" if highest == 1 else f"whole numbers up to {highest}"
        raise ModelInvalidOutput(f"The program's {file.name} holds other values than {kind}.")
    own = RAS_TO_LPS @ np.asarray(read.affine, np.float64)
    target, shape = image.affine[:, [2, 1, 0, 3]], image.array.shape[::-1]
    _refuse_elsewhere(file.name, own, array.shape, target, shape)
    return np.ascontiguousarray(to_grid(labels[None], own, target, shape)[0].transpose(2, 1, 0), dtype=np.uint8)


def _refuse_elsewhere(
    name: str,
    own: NDArray[np.float64],
    size: tuple[int, ...],
    target: NDArray[np.float64],
    shape: tuple[int, ...],
) -> None:
    """Refuse a map that does not lie over every voxel of the image: what it leaves out it knows nothing of."""
    if not np.isfinite(own).all() or abs(np.linalg.det(own[:3, :3])) < 1e-9:
        raise ModelInvalidOutput(f"The program's {name} lies nowhere: its affine cannot be inverted.")
    ends = np.array([[index >> axis & 1 for axis in range(3)] for index in range(8)]) * (np.array(shape) - 1)
    corners = np.linalg.inv(own) @ target @ np.c_[ends, np.ones(8)].T
    low, high = corners[:3].min(axis=1), corners[:3].max(axis=1)
    if (low < -_EDGE).any() or (high > np.array(size) - 1 + _EDGE).any():
        raise ModelInvalidOutput(f"The program's {name} does not lie over the whole image: it is on another grid.")
