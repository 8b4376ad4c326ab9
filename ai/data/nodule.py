"""A nodule as a reference knows it: where, how large, of which kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ai.contract import Volume

ATTENUATIONS = ("solid", "part-solid", "ground-glass")
MARGINS = ("smooth", "spiculated")
SMALLEST_MM: Final = 3.0


@dataclass(frozen=True, slots=True)
class Nodule:
    """One nodule of a reference.

    Parameters
    ----------
    centre_mm : (float, float, float)
        LPS patient coordinates.
    diameter_mm : float
        Of the sphere of the same volume where a mask is known, else as the reference gives it.
    attenuation : str
        One of `ATTENUATIONS`; empty where the reference does not say.
    margin : str
        One of `MARGINS`; empty where the reference does not say.
    volume_ml : float, optional
        None where nobody outlined it.
    malignancy : float, optional
        1 (highly unlikely) to 5 (highly suspicious), the mean over the readers (LIDC-IDRI).
    excluded : bool
        Neither to be found nor wrong to be found: below 3 mm, not a nodule, or marked by too few readers.
    instance : int, optional
        Its value in the case's instance map; None where there is no mask.
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    attenuation: str = ""
    margin: str = ""
    volume_ml: float | None = None
    malignancy: float | None = None
    excluded: bool = False
    instance: int | None = None


def outlined_nodule(mask: NDArray[np.bool_], volume: Volume, instance: int) -> Nodule:
    """Where and how large the nodule is that a mask outlines.

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (slices, rows, columns)
        On the grid of `volume`, with at least one voxel.
    volume : Volume
        The scan.
    instance : int
        Its value in the instance map.

    Returns
    -------
    Nodule
        Excluded when it is smaller than `SMALLEST_MM`.
    """
    voxels = np.flatnonzero(mask)
    size_ml = len(voxels) * voxel_ml(volume)
    diameter_mm = sphere_mm(size_ml)
    return Nodule(
        centre_of(voxels, volume),
        diameter_mm,
        volume_ml=size_ml,
        excluded=diameter_mm < SMALLEST_MM,
        instance=instance,
    )


def centre_of(voxels: NDArray[np.int64], volume: Volume) -> tuple[float, float, float]:
    """Middle of some voxels, given by their flat indices, in LPS mm."""
    middle = np.stack(np.unravel_index(voxels, volume.array.shape)).mean(axis=1)
    x, y, z = (volume.affine @ np.append(middle, 1.0))[:3]
    return float(x), float(y), float(z)


def sphere_mm(size_ml: float) -> float:
    """Diameter of the sphere of that volume."""
    return float(2 * (3 * size_ml * 1000 / (4 * np.pi)) ** (1 / 3))


def voxel_ml(volume: Volume) -> float:
    """Volume of one voxel, in millilitres."""
    return abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
