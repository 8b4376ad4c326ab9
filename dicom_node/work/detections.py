"""Which detections of a model count, and what is known of each before it becomes a finding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.contract import Detection, Prediction
from ai.measure.place import overlap, surface_distance_mm
from ai.measure.region import Box, centre_mm
from dicom_node.domain.finding import NotRun
from dicom_node.domain.model import DetectionCard, SegmentCard
from dicom_node.domain.nodule import Attenuation
from dicom_node.volume import Volume
from dicom_node.work.measures import Marked, marked

_REACH_MM = 5.0  # around the outline of a nodule: segmentations of lungs leave out what touches the chest wall

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One detection that counts.

    Attributes
    ----------
    name : str
        Name of its mask: ``nodule/2``.
    answers : mapping of str to (str, float)
        The most probable answer to each question of the card, and its probability.
    organ : SegmentCard or None
        The segment that it lies in.
    centre_mm : (float, float, float)
        LPS.
    """

    card: DetectionCard
    name: str
    score: float
    answers: Mapping[str, tuple[str, float]]
    organ: SegmentCard | None
    marked: Marked
    centre_mm: tuple[float, float, float]


def choose(
    prediction: Prediction, card: DetectionCard, organs: Mapping[str, tuple[SegmentCard, Mask]], volume: Volume
) -> tuple[list[Found], list[NotRun]]:
    """Choose the detections of one kind that are reported, surest first.

    Parameters
    ----------
    organs : mapping of str to (SegmentCard, mask)
        The segments that a detection has to lie in or touch, by their outputs, on the grid of `volume`.

    Returns
    -------
    list of Found
        At most as many as the card allows.
    list of NotRun
        What was left out, and why: nothing that the model said with enough certainty is dropped in silence.
    """
    wanted = [
        (number, detection)
        for number, detection in enumerate(prediction.detections, start=1)
        if detection.output == card.output and detection.score >= card.min_score
    ]
    boxes = _boxes(prediction.instances) if wanted else []
    found: list[Found] = []
    lost = outside = 0
    for number, detection in sorted(wanted, key=lambda pair: -pair[1].score):
        box = boxes[number - 1] if number <= len(boxes) else None
        if box is None:
            lost += 1
        elif (it := _found(prediction, card, number, detection, box, organs, volume)) is None:
            outside += 1
        else:
            found.append(it)
    left_out = _left_out(card, {"without a voxel on the grid of the images": lost, _outside(card, organs): outside})
    excess = _left_out(card, {f"the card reports at most {card.max_count}": len(found) - card.max_count})
    return found[: card.max_count], [*left_out, *excess]


def _boxes(instances: NDArray[np.uint8] | None) -> Sequence[Box | None]:
    return ndimage.find_objects(instances) if instances is not None else []


def _found(
    prediction: Prediction,
    card: DetectionCard,
    number: int,
    detection: Detection,
    box: Box,
    organs: Mapping[str, tuple[SegmentCard, Mask]],
    volume: Volume,
) -> Found | None:
    """Look closer at one detection; None when it lies outside of every organ that it has to lie in."""
    name = f"{detection.output}/{number}"
    mask = prediction.mask(name)
    organ = _organ_of(mask, box, organs.values(), volume)
    if card.within and organ is None:
        return None
    surface_mm = surface_distance_mm(mask, organ[1], volume.affine, box) if organ else None
    answers = _answers(detection, card)
    it = replace(
        marked(volume, mask),
        is_part_solid=answers.get("attenuation", ("",))[0] == Attenuation.PART_SOLID,
        surface_mm=surface_mm,
    )
    return Found(card, name, detection.score, answers, organ[0] if organ else None, it, centre_mm(it.mask, it.affine))


def _organ_of(
    mask: Mask, box: Box, organs: Iterable[tuple[SegmentCard, Mask]], volume: Volume
) -> tuple[SegmentCard, Mask] | None:
    """Find the organ that most of the nodule and its surroundings lie in."""
    shared = [(overlap(mask, organ, volume.affine, box, _REACH_MM), card, organ) for card, organ in organs]
    most, card, organ = max(shared, key=lambda each: each[0], default=(0, None, None))
    return (card, organ) if most and card is not None and organ is not None else None


def _answers(detection: Detection, card: DetectionCard) -> dict[str, tuple[str, float]]:
    answers = {}
    for question in card.classes:
        if said := detection.classes.get(question):
            answer = max(said, key=lambda answer: said[answer])
            answers[question] = (answer, float(said[answer]))
    return answers


def _outside(card: DetectionCard, organs: Mapping[str, tuple[SegmentCard, Mask]]) -> str:
    return f"outside of {' and '.join(organ.label.lower() for organ, _ in organs.values()) or 'everything'}"


def _left_out(card: DetectionCard, reasons: Mapping[str, int]) -> list[NotRun]:
    label = card.label.lower()
    return [
        NotRun(f"{count} further {label} candidate{'' if count == 1 else 's'}", why, "not reported")
        for why, count in reasons.items()
        if count > 0
    ]
