"""Brings labels from one grid to another by their affines, with the nearest voxel and little memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def to_grid(
    array: NDArray[np.generic], affine: NDArray[np.float64], target: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """Sample an image at the voxel centres of another grid.

    Parameters
    ----------
    array : numpy.ndarray, shape (channels, a, b, c)
        Labels or scores.
    affine : numpy.ndarray of float64, shape (4, 4)
        Index of `array` to mm.
    target : numpy.ndarray of float64, shape (4, 4)
        Index of the wanted grid to mm, in the same space.
    shape : (int, int, int)
        Size of the wanted grid.

    Returns
    -------
    numpy.ndarray, shape (channels, *shape)
        The nearest voxel's value; zero where `array` does not reach, half a voxel beyond its last centres.
    """
    index = np.linalg.inv(affine) @ target
    axes = np.abs(index[:3, :3]) > 1e-4 * np.abs(index[:3, :3]).max()
    if (axes.sum(axis=0) == 1).all() and (axes.sum(axis=1) == 1).all():
        return _along_axes(array, index, shape)
    channels = [
        ndimage.affine_transform(
            channel, index[:3, :3], index[:3, 3], output_shape=shape, order=0, mode="grid-constant", cval=0
        )
        for channel in array
    ]
    return np.stack(channels)


def _along_axes(array: NDArray[np.generic], index: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Grids with parallel axes: one lookup per axis, no list of points in memory."""
    picked = array
    order = [0]
    for axis in range(3):
        source = int(np.argmax(np.abs(index[axis, :3])))
        wanted = np.rint(index[axis, source] * np.arange(shape[source]) + index[axis, 3]).astype(np.int64)
        size = array.shape[axis + 1]
        taken = np.take(picked, np.clip(wanted, 0, size - 1), axis=axis + 1)
        gone = [slice(None)] * 4
        gone[axis + 1] = np.flatnonzero((wanted < 0) | (wanted >= size))  # type: ignore[call-overload]
        taken[tuple(gone)] = 0
        picked = taken
        order.append(source + 1)
    return np.transpose(picked, np.argsort(order))
