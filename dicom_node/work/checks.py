"""Answers that cannot be: they end the attempt with a reason, before anything is measured or written.

What is impossible is no finding: a score that is no number, lungs that were not found in a scan full of them, lungs
that fill the whole body, a left lung to the right of the right one. No retry helps.
What is merely too much (detections beyond the card's limit, outside of the lungs) is left out and said instead
(detections.py): the rest of the answer stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ai.contract import Detection, ModelInvalidOutput, Prediction
from ai.measure.plausible import centre_x_mm, look_at
from dicom_node.domain import codes
from dicom_node.domain.model import DetectionCard, ModelCard
from dicom_node.volume import Volume
from dicom_node.work.measures import voxel_volume_ml

_MUST_SHOW_ML = 1000.0  # of lung-like air in the body: less may be bowel, a collapsed lung, a child
_FOUND_SHARE = 0.1
_ALL_SHARE = 0.9
_SIDE_ML = 100.0  # less has no side worth a failed attempt

Mask = NDArray[np.bool_]


def check_prediction(prediction: Prediction, card: ModelCard) -> None:
    """Refuse detections that cannot be.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If a score or a probability is none, an answer is not on the card, or there are no outlines.
    """
    kinds = {detection.output: detection for detection in card.detections}
    for number, detection in enumerate(prediction.detections, start=1):
        if (kind := kinds.get(detection.output)) is not None:
            _check_detection(number, detection, kind)
    if prediction.detections and prediction.instances is None:
        raise ModelInvalidOutput("The model detects something, but outlines nothing.")


def _check_detection(number: int, detection: Detection, kind: DetectionCard) -> None:
    name = f"{kind.label} {number}"
    if not _is_share(detection.score):
        raise ModelInvalidOutput(f"The model gave {name} the score {detection.score:g}; a score is 0 to 1.")
    for question, asked in kind.classes.items():
        said = detection.classes.get(question, {})
        if not all(map(_is_share, said.values())):
            raise ModelInvalidOutput(f"The model gave {name} probabilities of its {question} that are none.")
        if unknown := sorted(set(said) - set(asked.answers)):
            raise ModelInvalidOutput(f"The model calls {name} {unknown[0]!r}, an answer that its card does not have.")


def _is_share(value: float) -> bool:
    return math.isfinite(value) and 0.0 <= value <= 1.0


def check_segments(masks: Mapping[str, Mask], card: ModelCard, volume: Volume) -> None:
    """Refuse lungs that cannot be.

    Parameters
    ----------
    masks : mapping of str to numpy.ndarray of bool
        Every segment of the card by its output, on the grid of `volume`.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If the lungs are missing, everywhere, or on the wrong sides.
    """
    lungs = [segment for segment in card.segments if segment.type.value == codes.LUNG.value]
    if not lungs or volume.datasets[0].get("Modality") != "CT":
        return
    _check_amount([masks[lung.output] for lung in lungs], volume)
    sides = {lung.laterality.value: masks[lung.output] for lung in lungs if lung.laterality}
    if codes.LEFT.value in sides and codes.RIGHT.value in sides:
        _check_sides(sides[codes.LEFT.value], sides[codes.RIGHT.value], volume)


def _check_amount(lungs: list[Mask], volume: Volume) -> None:
    body = look_at(volume.array, volume.affine)
    marked = np.any([body.sample(lung) for lung in lungs], axis=0)
    marked_ml = sum(np.count_nonzero(lung) for lung in lungs) * voxel_volume_ml(volume.affine)
    if body.lung_like_ml >= _MUST_SHOW_ML and marked_ml < _FOUND_SHARE * body.lung_like_ml:
        raise ModelInvalidOutput(
            f"The model marked {marked_ml:.0f} ml as lung, where the images show {body.lung_like_ml:.0f} ml of "
            "enclosed air that looks like it."
        )
    inside = np.count_nonzero(body.inside)
    if inside and np.count_nonzero(marked & body.inside) > _ALL_SHARE * inside:
        raise ModelInvalidOutput("The model marked nearly the whole body as lung.")


def _check_sides(left: Mask, right: Mask, volume: Volume) -> None:
    if min(np.count_nonzero(left), np.count_nonzero(right)) * voxel_volume_ml(volume.affine) < _SIDE_ML:
        return
    if centre_x_mm(left, volume.affine) <= centre_x_mm(right, volume.affine):
        raise ModelInvalidOutput("The model's left lung lies on the right of its right lung.")
