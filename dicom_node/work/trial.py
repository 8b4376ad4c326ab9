"""Runs a bundle once on a volume that was made up: whether it loads, runs, and answers on the right grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ai.contract import Images, ModelError, Prediction
from ai.contract import Volume as Pixels
from ai.interface import Gives
from ai.measure.motion import body_in, motion_of
from ai.process import ModelProcess
from ai.understand import understand
from dicom_node.domain.geometry import count
from dicom_node.domain.model import ModelCard
from dicom_node.errors import ModelFailed
from dicom_node.settings import Work
from dicom_node.work.process import process_of

_SHAPE = (60, 128, 144)
_SPACING_MM = (4.0, 2.5, 2.5)
_TIMEOUT_S = 1800.0
_APART_MM = 10.0
_COLOURS = np.array([(230, 110, 80), (80, 150, 230), (120, 200, 90), (220, 190, 60), (180, 120, 210)], dtype=np.float32)


def try_out(
    bundle: Path, modality: str, *, card: ModelCard | None = None, device: str = "auto", picture: Path | None = None
) -> str:
    """Run a model on a made-up chest.

    Parameters
    ----------
    bundle : pathlib.Path
        The model's folder; a bundle needs no card.
    modality : str
        Of the volume: Hounsfield units for CT, other brightness for the rest.
    card : ModelCard, optional
        With the values that it changes, or the command line that it is.
    device : str
        As ``work.device`` in the settings.
    picture : pathlib.Path, optional
        A PNG file to draw the answer into: an axial, a coronal and a sagittal plane.

    Returns
    -------
    str
        What came of it, in a sentence.

    Raises
    ------
    ModelFailed
        If it does not answer, or not usefully.
    """
    pixels = Pixels(_made_up(modality), _affine(), modality)
    try:
        with process_of(card, Work(device=device)) if card else ModelProcess(bundle, device=device) as model:
            images = pixels if card is not None and card.command else _images(bundle, pixels, card)
            answer = model.predict(images, timeout_s=_TIMEOUT_S)
    except ModelError as error:
        printed = f"; it printed last: {error.printed}" if error.printed else ""
        raise ModelFailed(f"{error}{printed}", retry=False) from error
    marked = _marked(answer)
    if picture is not None:
        first = next(iter(answer.images.values()), None)
        _draw(pixels if first is None or marked.any() else replace(pixels, array=first), marked, picture)
    names = [name for labels in answer.label_maps for name in labels.names.values()]
    share = 100.0 * np.count_nonzero(marked) / marked.size
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in answer.steps_s.items())
    what = f"{len(names)} outputs, {len(answer.detections)} detections, {share:.1f} % of the voxels marked"
    for shares in answer.classes.values():
        what += ", " + ", ".join(f"{name} {part:.0%}" for name, part in shares.items())
    what += "".join(f", {name} {value:g}" for name, value in answer.values.items())
    what += f", {count(len(answer.points), 'point')}" if answer.points else ""
    for name, image in answer.images.items():
        what += f", image {name}: {image.min():g} to {image.max():g}, of what was {pixels.array.min():g} to "
        what += f"{pixels.array.max():g}"
    if answer.registration is not None:
        far = motion_of(answer.registration, body_in(pixels.array, pixels.affine, is_ct=modality == "CT")).mean_mm
        what += f", registered: moved {far:.1f} mm on average, where the series lay {_APART_MM:g} mm apart"
    return f"it answered on {answer.device}: {what} ({steps})"


def _images(bundle: Path, pixels: Pixels, card: ModelCard | None) -> Images:
    """The volume once, or for each series that the bundle needs; its middle, where one image is asked about.

    Of a bundle that registers, the other series lies a little to the left of the first.
    """
    known = understand(bundle)
    wanted = known.inputs[0] if known.inputs else None
    if wanted is None:
        return pixels
    in_slices = (Gives.SEGMENTATION, Gives.IMAGE)
    if wanted.dimensions == 2 and not any(output.gives in in_slices for output in known.outputs):
        middle = len(pixels.array) // 2
        pixels = Pixels(pixels.array[middle : middle + 1], pixels.affine, pixels.modality)
    if any(output.gives is Gives.REGISTRATION for output in known.outputs) and len(wanted.roles) == 2:
        fixed = card.registration.fixed if card is not None and card.registration is not None else wanted.roles[0]
        moving = next(role for role in wanted.roles if role != fixed)
        affine = pixels.affine.copy()
        affine[0, 3] += _APART_MM
        return {fixed: pixels, moving: replace(pixels, affine=affine)}
    return dict.fromkeys(wanted.roles, pixels) if wanted.roles else pixels


def _made_up(modality: str) -> NDArray[np.float32]:
    """A body with two lungs, a heart and a spine; the left lung, on the right of the image, is the smaller one."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in _SHAPE), indexing="ij")
    hu = np.full(_SHAPE, -1000.0, np.float32)
    hu[(y / 0.7) ** 2 + (x / 0.95) ** 2 < 1] = 40
    hu[(z / 0.8) ** 2 + (y / 0.5) ** 2 + ((x + 0.42) / 0.3) ** 2 < 1] = -850
    hu[(z / 0.8) ** 2 + ((y + 0.05) / 0.4) ** 2 + ((x - 0.42) / 0.25) ** 2 < 1] = -850
    hu[(z / 0.35) ** 2 + ((y + 0.2) / 0.25) ** 2 + ((x - 0.12) / 0.25) ** 2 < 1] = 60
    hu[(y - 0.5) ** 2 + x**2 < 0.01] = 400
    hu += np.random.default_rng(0).normal(0, 15, _SHAPE).astype(np.float32)
    return hu if modality == "CT" else np.clip((hu + 1000) / 2, 0, None).astype(np.float32)


def _affine() -> NDArray[np.float64]:
    """Axial, feet to head, rows to posterior, columns to left."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = (*_SPACING_MM, 1.0)
    affine[:3, 3] = [-spacing * (size - 1) / 2 for spacing, size in zip(_SPACING_MM[::-1], _SHAPE[::-1], strict=True)]
    return affine


def _marked(answer: Prediction) -> NDArray[np.int32]:
    """All outputs in one array, numbered in their order; where they overlap the last one shows."""
    marked = np.zeros(_shape_of(answer), np.int32)
    number = 0
    for labels in answer.label_maps:
        for value in labels.names:
            number += 1
            marked[labels.array == value] = number
    if answer.instances is not None:
        found = answer.instances > 0
        marked[found] = number + answer.instances[found]
    for n, point in enumerate(answer.points, start=1):
        near = tuple(slice(max(0, round(at) - 1), max(0, round(at) + 2)) for at in point.at)
        marked[near] = number + n
    return marked


def _shape_of(answer: Prediction) -> tuple[int, ...]:
    return answer.label_maps[0].array.shape if answer.label_maps else _SHAPE


def _draw(pixels: Pixels, marked: NDArray[np.int32], file: Path) -> None:
    low, high = np.percentile(pixels.array, (1, 99))
    grey = np.clip((pixels.array - low) / max(high - low, 1e-6), 0, 1) * 255
    slices, rows, columns = (n // 2 for n in _SHAPE)
    planes = [
        (grey[slices], marked[slices], _SPACING_MM[1]),
        (grey[::-1, rows], marked[::-1, rows], _SPACING_MM[0]),
        (grey[::-1, :, columns], marked[::-1, :, columns], _SPACING_MM[0]),
    ]
    pictures = [_painted(plane, labels, high_mm / _SPACING_MM[2]) for plane, labels, high_mm in planes]
    height = max(picture.height for picture in pictures)
    sheet = Image.new("RGB", (sum(p.width for p in pictures) + 8 * (len(pictures) - 1), height))
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, (height - picture.height) // 2))
        left += picture.width + 8
    sheet.save(file, "PNG")


def _painted(grey: NDArray[np.float32], labels: NDArray[np.int32], aspect: float) -> Image.Image:
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    rgb = np.where(labels[..., None] > 0, 0.6 * rgb + 0.4 * _COLOURS[(labels - 1) % len(_COLOURS)], rgb)
    rows, columns = labels.shape
    size = (columns * 3, round(rows * 3 * aspect))
    return Image.fromarray(rgb.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
