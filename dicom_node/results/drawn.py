"""Slices as they were acquired, with what was found drawn over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation

from dicom_node.domain.finding import Segment
from dicom_node.results.analysis import Analysis
from dicom_node.results.document import ANATOMICAL_STRUCTURE
from dicom_node.results.page import window
from dicom_node.results.planes import outline
from dicom_node.results.sheet import AMBER, font, plain
from dicom_node.results.words import NOT_FOR_DIAGNOSIS, titled

MOST_KEY_SLICES = 20
ARM = 6  # pixels of the cross at a point


def draw_slice(analysis: Analysis, k: int, segments: Sequence[Segment]) -> NDArray[np.uint8]:
    """Draw one slice pixel for pixel, windowed for what was looked for.

    Parameters
    ----------
    k : int
        Number of the slice, from 0.
    segments : sequence of Segment
        What to outline: organs on their last pixels, lesions on the first pixels around them, so that they are seen.

    Returns
    -------
    numpy.ndarray of uint8, shape (rows, columns, 3)
        RGB. It names the lesions and the points on it and says what it is not for; it names no patient.
    """
    center, width = window(analysis)
    grey = np.clip((analysis.shown[k] - (center - width / 2)) * (255 / width), 0, 255).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    names: list[tuple[float, float, str]] = []
    for segment in segments:
        crop = analysis.crop(segment.output)
        if not crop.start[0] <= k < crop.start[0] + len(crop.voxels) or not crop.voxels[k - crop.start[0]].any():
            continue
        mask = np.zeros(grey.shape, np.bool_)
        mask[crop.box[1:]] = crop.voxels[k - crop.start[0]]
        if segment.category.value == ANATOMICAL_STRUCTURE:
            rgb[outline(mask)] = segment.color_rgb
        else:
            rgb[binary_dilation(mask) & ~mask] = segment.color_rgb
            rows, columns = np.nonzero(mask)
            names.append((float(columns.max()) + 5, float(rows.mean()), titled(segment)))
    image = Image.fromarray(rgb)
    points = [point for point in analysis.findings.points if point.slice == k]
    for point in points:
        cross(ImageDraw.Draw(image), (point.at[2], point.at[1]), point.color_rgb)
    names += [(point.at[2] + ARM + 3, point.at[1], point.label) for point in points]
    _write(ImageDraw.Draw(image), image.size, names, f"{k + 1} of {len(analysis.origin.slices)}")
    return np.asarray(image)


def key_slices(analysis: Analysis) -> list[int]:
    """Give the slice on which each finding is largest and those of points, in their order; of many, the first."""
    largest = sorted(analysis.found, key=lambda segment: -segment.voxels)[:MOST_KEY_SLICES]
    chosen: set[int] = set()
    for segment in largest:
        crop = analysis.crop(segment.output)
        chosen.add(crop.start[0] + int(np.count_nonzero(crop.voxels, axis=(1, 2)).argmax()))
    for point in analysis.findings.points:
        if len(chosen) < MOST_KEY_SLICES:
            chosen.add(point.slice)
    return sorted(chosen)


def cross(pen: ImageDraw.ImageDraw, at: tuple[float, float], color: tuple[int, int, int]) -> None:
    """Mark a point, given in pixels that are whole at their centres; its own pixel stays to be seen."""
    x, y = at
    for a, b in ((-ARM, -2), (2, ARM)):
        pen.line((x + a, y, x + b, y), fill=color)
        pen.line((x, y + a, x, y + b), fill=color)


def _write(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], names: Sequence[tuple[float, float, str]], number: str
) -> None:
    width, height = size
    below = 18.0
    for x, y, name in sorted(names, key=lambda each: each[1]):
        below = max(y, below + 15)  # two names do not lie on each other
        room = font(13).getlength(plain(name))
        say(pen, (min(x, width - room - 4), below), plain(name), 13, "lm")
    say(pen, (4, 3), f"AI result, image {number}", 12, "la")
    say(pen, (width / 2, height - 4), NOT_FOR_DIAGNOSIS, 12, "md")


def say(pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, anchor: str) -> None:
    """Write on a picture, in letters that are read on bright and on dark."""
    pen.text(at, text, AMBER, font(size), anchor=anchor, stroke_width=2, stroke_fill="black")
