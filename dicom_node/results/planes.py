"""Planes through a volume as a radiologist looks at them, whatever way the source was acquired.

Everything is sampled in patient space (LPS, mm): axial from the feet, coronal from the front, sagittal from the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, map_coordinates

from dicom_node.results.analysis import Crop

_SMALL = 4_000_000  # voxels: up to here a mask is interpolated, so that its outline is smooth


@dataclass(frozen=True, slots=True)
class View:
    """A way of looking: which directions of the patient go to the right and down, and the letters at the edges."""

    name: str
    right: tuple[int, int, int]
    down: tuple[int, int, int]
    letters: str  # left, right, top, bottom (PS3.3 C.7.6.1.1.1)


AXIAL = View("Axial", (1, 0, 0), (0, 1, 0), "RLAP")
CORONAL = View("Coronal", (1, 0, 0), (0, 0, -1), "RLHF")
SAGITTAL = View("Sagittal", (0, 1, 0), (0, 0, -1), "APHF")


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """The pixels of one plane.

    Attributes
    ----------
    view : View
        Its directions.
    center_mm : numpy.ndarray of float64, shape (3,)
        Its middle, LPS.
    size : (int, int)
        Width and height in pixels.
    pixel_mm : float
        Distance between pixels.
    """

    view: View
    center_mm: NDArray[np.float64]
    size: tuple[int, int]
    pixel_mm: float

    def indices(self, affine: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxel index of each pixel, shape (3, height, width)."""
        across, down = (np.arange(n) - (n - 1) / 2 for n in self.size)
        points = (
            self.center_mm[:, None, None]
            + np.array(self.view.right, float)[:, None, None] * (across * self.pixel_mm)[None, None, :]
            + np.array(self.view.down, float)[:, None, None] * (down * self.pixel_mm)[None, :, None]
        )
        inverse = np.linalg.inv(affine)
        indices = np.tensordot(inverse[:3, :3], points, 1) + inverse[:3, 3][:, None, None]
        return np.asarray(indices, np.float64)

    def pixel(self, point_mm: NDArray[np.float64]) -> tuple[float, float]:
        """Where a point of the patient is seen: across and down, in pixels."""
        offset = point_mm - self.center_mm
        across, down = offset @ np.array(self.view.right), offset @ np.array(self.view.down)
        return across / self.pixel_mm + (self.size[0] - 1) / 2, down / self.pixel_mm + (self.size[1] - 1) / 2


def sample(array: NDArray[np.generic], indices: NDArray[np.float64], outside: float) -> NDArray[np.float32]:
    """Interpolate a volume at the pixels of a plane; `outside` where there is no voxel."""
    values = map_coordinates(array, indices, np.float32, order=1, mode="constant", cval=np.nan, prefilter=False)
    return np.asarray(np.nan_to_num(values, nan=outside), np.float32)


def covered(crop: Crop, indices: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which pixels of a plane a mask covers."""
    local = indices - np.array(crop.start)[:, None, None]
    if crop.voxels.size <= _SMALL:
        padded = np.pad(crop.voxels, 1).astype(np.float32)
        return np.asarray(map_coordinates(padded, local + 1, order=1, prefilter=False) >= 0.5)
    nearest = np.rint(local).astype(int)
    inside = ((nearest >= 0) & (nearest < np.array(crop.voxels.shape)[:, None, None])).all(axis=0)
    found = np.zeros(indices.shape[1:], np.bool_)
    found[inside] = crop.voxels[tuple(nearest[:, inside])]
    return found


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Give the pixels of a mask that lie at its edge, one pixel wide."""
    return np.asarray(mask & ~binary_erosion(mask, border_value=1), np.bool_)
