"""What a chest CT shows without any model: air outside of the body, and lung-like air enclosed in it.

Coarse on purpose: it tells a model that answered nonsense from a scan that shows no lungs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.measure.region import spacing_of

_AIR_HU = -500.0
_LUNG_HU = (-950.0, -600.0)  # gas in the bowel is about -1000
_SAMPLED_MM = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A coarse look at a CT, on every n-th voxel.

    Attributes
    ----------
    inside : numpy.ndarray of bool, shape (a, b, c)
        Everything but the air that reaches the sides of the images.
    lung_like_ml : float
        Volume of enclosed air with the attenuation of lung.
    """

    inside: NDArray[np.bool_]
    lung_like_ml: float
    _steps: tuple[slice, slice, slice]

    def sample(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Take the voxels of a mask on the grid of the CT that lie on the grid of `inside`."""
        return mask[self._steps]


def look_at(array: NDArray[np.float32], affine: NDArray[np.float64]) -> Body:
    """Find body and lung-like air.

    Parameters
    ----------
    array : numpy.ndarray of float32, shape (slices, rows, columns)
        Hounsfield units.
    affine : numpy.ndarray of float64, shape (4, 4)
        Index to LPS, mm.
    """
    spacing_mm = spacing_of(affine)
    steps = [max(1, round(_SAMPLED_MM / spacing)) for spacing in spacing_mm]
    sampled = (slice(None, None, steps[0]), slice(None, None, steps[1]), slice(None, None, steps[2]))
    values = array[sampled]
    labels, count = ndimage.label(values < _AIR_HU)
    sides = (labels[:, 0, :], labels[:, -1, :], labels[:, :, 0], labels[:, :, -1])
    is_outside = np.zeros(count + 1, np.bool_)
    for side in sides:
        is_outside[np.unique(side)] = True
    is_outside[0] = False
    inside = ~is_outside[labels]
    lung_like = inside & (labels > 0) & (values > _LUNG_HU[0]) & (values < _LUNG_HU[1])
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) * float(np.prod(steps)) / 1000
    return Body(inside, float(np.count_nonzero(lung_like)) * voxel_ml, sampled)


def centre_x_mm(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    """How far to the patient's left the centre of a mask lies, LPS in mm.

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (a, b, c)
        Not empty.
    affine : numpy.ndarray of float64, shape (4, 4)
        Index to LPS, mm.
    """
    total = np.count_nonzero(mask)
    index = [
        float(np.arange(size) @ np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis)))
        / total
        for axis, size in enumerate(mask.shape)
    ]
    return float(affine[0, :3] @ np.array(index) + affine[0, 3])
