"""Labels over the scan, as a picture to look at: a number alone has hidden many a mirrored lung."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ai.contract import Volume

_COLOURS = np.array([(0, 0, 0), (230, 110, 80), (80, 150, 230), (120, 200, 90), (220, 190, 60)], dtype=np.float64)
_HEIGHT = 320


def save_picture(volume: Volume, labels: NDArray[np.uint8], path: Path, across: int = 6) -> None:
    """Save axial slices above and coronal ones below, lung window, patient's right on the left of the picture.

    Parameters
    ----------
    volume : Volume
        An axial scan, rows to posterior and columns to left.
    labels : numpy.ndarray of uint8, shape (slices, rows, columns)
        Up to four labels are coloured.
    path : pathlib.Path
        A PNG file to write.
    across : int
        Pictures in each row.
    """
    slices, rows, _ = volume.array.shape
    between_slices, between_rows, between_columns = volume.spacing_mm
    upwards = slice(None, None, -1) if volume.affine[2, 0] > 0 else slice(None)
    axial = [
        _painted(volume.array[index], labels[index], between_rows / between_columns)
        for index in np.linspace(slices * 0.1, slices * 0.9, across).astype(int)
    ]
    coronal = [
        _painted(volume.array[upwards, index], labels[upwards, index], between_slices / between_columns)
        for index in np.linspace(rows * 0.3, rows * 0.7, across).astype(int)
    ]
    upper, lower = Image.fromarray(np.hstack(axial)), Image.fromarray(np.hstack(coronal))
    lower = lower.resize((upper.width, round(lower.height * upper.width / lower.width)))
    Image.fromarray(np.vstack([np.asarray(upper), np.asarray(lower)])).save(path)


def _painted(hu: NDArray[np.float32], labels: NDArray[np.uint8], tall: float) -> NDArray[np.uint8]:
    grey = np.clip((hu + 1350) / 1500, 0, 1)[..., None] * 255
    colour = np.where(labels[..., None] > 0, 0.6 * grey + 0.4 * _COLOURS[np.minimum(labels, 4)], grey)
    width = round(_HEIGHT * hu.shape[1] / (hu.shape[0] * tall))
    return np.asarray(Image.fromarray(colour.astype(np.uint8)).resize((width, _HEIGHT)))
