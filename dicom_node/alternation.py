"""Slices of two volumes that lie between each other, told by their pixels where no attribute tells them apart.

In a volume a slice is more like its neighbours than like the next but one. Where it is the other way round all along,
every other slice belongs to another volume: of another breath, of another phase of a contrast agent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST = 10  # slices: of fewer it may be chance
_MOST = 64  # from the middle: more would cost what reading them costs
_CELL = 16  # pixels: of every so many rows one is looked at, and so many columns are averaged
_FEWEST_CELLS = 8
_SHARE = 2 / 3  # of the places at which it has to be so; in real volumes it is at most at one in fifty
_MARGIN = 1.1  # noise alone is alike at any distance


def alternates(array: NDArray[np.floating[Any]]) -> bool:
    """Whether every other slice belongs to another volume.

    Parameters
    ----------
    array : numpy.ndarray, shape (slices, rows, columns)
        In the order of their places.
    """
    if len(array) < FEWEST:
        return False
    start = max(0, (len(array) - _MOST) // 2)
    coarse = _coarse(array[start : start + _MOST])
    near = np.abs(coarse[1:] - coarse[:-1]).mean(axis=(1, 2))
    beyond = np.abs(coarse[2:] - coarse[:-2]).mean(axis=(1, 2))
    others = (near[1:] + near[:-1]) / 2 > _MARGIN * beyond
    return bool(np.count_nonzero(others) >= _SHARE * len(others))


def _coarse(array: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Look at few rows of each slice, and average along them."""
    slices, rows, columns = array.shape
    step = max(1, min(_CELL, rows // _FEWEST_CELLS))
    width = max(1, min(_CELL, columns // _FEWEST_CELLS))
    some = array[:, step // 2 :: step, : columns // width * width]
    averaged: NDArray[np.floating[Any]] = some.reshape(slices, some.shape[1], -1, width).mean(axis=3)
    return averaged
