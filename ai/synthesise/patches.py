"""Small cubes of lung with one nodule each: the material that the generative model learns from and gives back.

Needs numpy and scipy alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

ATTENUATIONS = ("solid", "part-solid", "ground-glass")
# Where size classes begin, in mm: the steps at which Lung-RADS 2022 changes its category for a solid nodule.
SIZE_EDGES_MM = (6.0, 8.0, 15.0)
CLASSES = len(ATTENUATIONS) * (len(SIZE_EDGES_MM) + 1)
EMPTY_HU = -1000.0


@dataclass(frozen=True, slots=True, eq=False)
class PatchSet:
    """Nodule patches, all of one size on one spacing.

    Parameters
    ----------
    hu : numpy.ndarray of float16, shape (patches, slices, rows, columns)
        Hounsfield units; the nodule in the middle.
    masks : numpy.ndarray of uint8, same shape
        1 in the nodule.
    attenuation : numpy.ndarray of uint8, shape (patches,)
        Index into `ATTENUATIONS`.
    sources : tuple of str
        For each patch what it was cut from: ``phantom``, ``real`` or ``diffusion``.
    spacing_mm : float
        Distance between voxel centres, the same along all axes.
    """

    hu: NDArray[np.float16]
    masks: NDArray[np.uint8]
    attenuation: NDArray[np.uint8]
    sources: tuple[str, ...]
    spacing_mm: float

    def __len__(self) -> int:
        return len(self.hu)

    @property
    def diameters_mm(self) -> NDArray[np.float64]:
        """Diameter of the ball of each nodule's volume, in mm; shape (patches,)."""
        return diameters_mm(self.masks, self.spacing_mm)

    @property
    def classes(self) -> NDArray[np.int64]:
        """Attenuation and size of each nodule as one number below `CLASSES`; shape (patches,)."""
        return class_of(self.attenuation, self.diameters_mm)

    def only(self, chosen: Sequence[int] | NDArray[np.integer]) -> PatchSet:
        """The patches of the given indices, in that order."""
        index = np.asarray(chosen, dtype=np.int64)
        return PatchSet(
            self.hu[index],
            self.masks[index],
            self.attenuation[index],
            tuple(self.sources[n] for n in index),
            self.spacing_mm,
        )

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` file; it appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            np.savez_compressed(
                file,
                hu=self.hu,
                masks=self.masks,
                attenuation=self.attenuation,
                sources=np.array(self.sources, dtype=np.str_),
                spacing_mm=np.float64(self.spacing_mm),
            )
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> PatchSet:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file lacks an array, or the arrays do not fit together.
        """
        with np.load(path, allow_pickle=False) as file:
            missing = {"hu", "masks", "attenuation", "sources", "spacing_mm"} - set(file.files)
            if missing:
                raise ValueError(f"{path.name} holds no nodule patches: {', '.join(sorted(missing))} is not in it.")
            found = cls(
                file["hu"].astype(np.float16),
                file["masks"].astype(np.uint8),
                file["attenuation"].astype(np.uint8),
                tuple(str(source) for source in file["sources"]),
                float(file["spacing_mm"]),
            )
        if found.hu.ndim != 4 or found.hu.shape != found.masks.shape or len(found.attenuation) != len(found):
            raise ValueError(f"{path.name}: its arrays do not fit together: {found.hu.shape}, {found.masks.shape}.")
        return found


def diameters_mm(masks: NDArray[np.uint8], spacing_mm: float) -> NDArray[np.float64]:
    """Diameter of the ball of each mask's volume; `masks` has shape (patches, slices, rows, columns)."""
    voxels = (masks > 0).reshape(len(masks), -1).sum(axis=1)
    return np.asarray(np.cbrt(6 * voxels / np.pi) * spacing_mm, dtype=np.float64)


def class_of(attenuation: NDArray[np.integer], diameter_mm: NDArray[np.floating]) -> NDArray[np.int64]:
    """Number of the class that a nodule's attenuation and size make together."""
    sizes = np.searchsorted(np.array(SIZE_EDGES_MM), diameter_mm, side="right")
    return np.asarray(attenuation, dtype=np.int64) * (len(SIZE_EDGES_MM) + 1) + sizes


def cut_patch(
    hu: NDArray[np.floating],
    mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    size: int,
    patch_spacing_mm: float,
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Cut the cube around one nodule out of a scan.

    Parameters
    ----------
    hu : numpy.ndarray, shape (slices, rows, columns)
        The scan, in Hounsfield units.
    mask : numpy.ndarray of bool, same shape
        The nodule; must not be empty.
    spacing_mm : (float, float, float)
        Distances between the scan's voxel centres along its axes.
    size : int
        Voxels along each edge of the cube.
    patch_spacing_mm : float
        Distance between the cube's voxel centres.

    Returns
    -------
    hu : numpy.ndarray of float16, shape (size, size, size)
        Interpolated linearly; `EMPTY_HU` where the scan ends.
    mask : numpy.ndarray of uint8, same shape
    """
    found = np.argwhere(mask)
    centre = (found.min(axis=0) + found.max(axis=0)) / 2
    steps = (np.arange(size) - (size - 1) / 2) * patch_spacing_mm
    low, axes = [], []
    for axis in range(3):  # only the part of the scan that the cube touches is interpolated
        at = centre[axis] + steps / spacing_mm[axis]
        first = max(0, int(np.floor(at[0])) - 1)
        low.append(slice(first, min(hu.shape[axis], int(np.ceil(at[-1])) + 2)))
        axes.append(at - first)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    part = tuple(low)
    cube = ndimage.map_coordinates(hu[part].astype(np.float32), grid, order=1, cval=EMPTY_HU)
    inside = ndimage.map_coordinates(mask[part].astype(np.float32), grid, order=1, cval=0.0) > 0.5
    return cube.astype(np.float16), inside.astype(np.uint8)


def join(parts: Sequence[PatchSet]) -> PatchSet:
    """Put several sets into one.

    Raises
    ------
    ValueError
        If there is none, or sizes or spacings differ.
    """
    if not parts or len({(part.hu.shape[1:], part.spacing_mm) for part in parts}) != 1:
        raise ValueError("Only patches of one size and one spacing can be joined.")
    return PatchSet(
        np.concatenate([part.hu for part in parts]),
        np.concatenate([part.masks for part in parts]),
        np.concatenate([part.attenuation for part in parts]),
        tuple(source for part in parts for source in part.sources),
        parts[0].spacing_mm,
    )
