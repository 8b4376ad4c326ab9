"""Labels over the scan, as a picture to look at: a number alone has hidden many a mirrored lung."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ai.contract import Volume

_COLOURS = np.array([(0, 0, 0), (230, 110, 80), (80, 150, 230), (120, 200, 90), (220, 190, 60)], dtype=np.float64)
_HEIGHT = 320
_CLOSE_UP_MM = 50.0
_CLOSE_UP_PIXELS = 256
_REFERENCE, _FOUND = (90, 220, 120), (250, 120, 60)


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


def save_close_up(
    volume: Volume,
    centre_mm: tuple[float, float, float],
    reference: NDArray[np.uint8] | None,
    found: NDArray[np.uint8],
    path: Path,
) -> None:
    """Save 50 mm of the slice through a point, lung window, with the outlines of reference (green) and answer (orange).

    Parameters
    ----------
    volume : Volume
        An axial scan, rows to posterior and columns to left.
    centre_mm : (float, float, float)
        LPS.
    reference, found : numpy.ndarray of uint8, shape (slices, rows, columns)
        Instance maps.
    path : pathlib.Path
        A PNG file to write.
    """
    index = np.rint(np.linalg.inv(volume.affine) @ np.append(centre_mm, 1.0))[:3].astype(int)
    plane = int(np.clip(index[0], 0, len(volume.array) - 1))
    half = [round(_CLOSE_UP_MM / 2 / spacing) for spacing in volume.spacing_mm[1:]]
    rows, columns = (np.arange(i - h, i + h + 1) for i, h in zip(index[1:], half, strict=True))
    around = np.ix_(np.clip(rows, 0, volume.array.shape[1] - 1), np.clip(columns, 0, volume.array.shape[2] - 1))
    size = (_CLOSE_UP_PIXELS, _CLOSE_UP_PIXELS)
    grey = Image.fromarray(_windowed(volume.array[plane][around]).astype(np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    picture = np.repeat(np.asarray(grey)[..., None], 3, axis=2).copy()
    for labels, colour in ((reference, _REFERENCE), (found, _FOUND)):
        if labels is not None:
            mask = np.asarray(Image.fromarray(labels[plane][around]).resize(size, Image.Resampling.NEAREST))
            picture[_edges(mask)] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, optimize=True)


def _edges(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    inner = labels[1:-1, 1:-1]
    edge = np.zeros(labels.shape, dtype=np.bool_)
    for neighbour in (labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:]):
        edge[1:-1, 1:-1] |= (inner > 0) & (neighbour != inner)
    return edge


def _windowed(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.clip((hu + 1350) / 1500, 0, 1) * 255, dtype=np.float32)


def _painted(hu: NDArray[np.float32], labels: NDArray[np.uint8], tall: float) -> NDArray[np.uint8]:
    grey = _windowed(hu)[..., None]
    colour = np.where(labels[..., None] > 0, 0.6 * grey + 0.4 * _COLOURS[np.minimum(labels, 4)], grey)
    width = round(_HEIGHT * hu.shape[1] / (hu.shape[0] * tall))
    return np.asarray(Image.fromarray(colour.astype(np.uint8)).resize((width, _HEIGHT)))
