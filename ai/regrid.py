"""Brings labels and images from one grid to another by their affines.

Labels take the nearest voxel, with little memory. An image keeps its values where the voxels of both grids lie upon
each other, in whatever order; else they are interpolated linearly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_SAME_VOXELS = 0.02  # of a voxel: what float32 affines leave of an exact match


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
    return np.stack([_nearest(channel, index, shape) for channel in array])


def values_to_grid(
    array: NDArray[np.float32], affine: NDArray[np.float64], target: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Bring an image to another grid; arguments are those of `to_grid`.

    Returns
    -------
    numpy.ndarray of float32, shape (channels, *shape)
        Each channel's lowest value where `array` does not reach: 0 is soft tissue in Hounsfield units.
    """
    index = np.linalg.inv(affine) @ target
    whole = np.rint(index)
    ends = np.array(np.meshgrid(*[(0, size - 1) for size in shape])).reshape(3, -1)
    apart = (index - whole)[:3, :3] @ ends + (index - whole)[:3, 3:]
    lowest = array.min(axis=(1, 2, 3))
    if (np.abs(whole[:3, :3]).sum(axis=0) == 1).all() and np.abs(apart).max() < _SAME_VOXELS:
        each = zip(array, lowest, strict=True)
        return np.concatenate([_along_axes(channel[None], whole, shape, outside) for channel, outside in each])
    reached = _nearest(np.ones(array.shape[1:], np.bool_), index, shape)
    channels = [
        ndimage.affine_transform(channel, index[:3, :3], index[:3, 3], output_shape=shape, order=1, mode="nearest")
        for channel in array
    ]
    return np.stack([np.where(reached, each, outside) for each, outside in zip(channels, lowest, strict=True)])


def _nearest(channel: NDArray[Any], index: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[Any]:
    return np.asarray(
        ndimage.affine_transform(
            channel, index[:3, :3], index[:3, 3], output_shape=shape, order=0, mode="grid-constant", cval=0
        )
    )


def _along_axes(
    array: NDArray[Any], index: NDArray[np.float64], shape: tuple[int, ...], outside: float = 0
) -> NDArray[Any]:
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
        taken[tuple(gone)] = outside
        picked = taken
        order.append(source + 1)
    return np.transpose(picked, np.argsort(order))
