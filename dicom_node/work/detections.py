"""Which detections of a model count, and what is known of each before it becomes a finding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.contract import Detection, Prediction
from ai.measure.place import FARTHEST_MM, overlap, surface_distance_mm
from ai.measure.region import Box, centre_mm, grown
from dicom_node.domain.finding import NotRun
from dicom_node.domain.model import DetectionCard, SegmentCard
from dicom_node.domain.nodule import Attenuation
from dicom_node.volume import Volume
from dicom_node.work.measures import Marked, marked

_REACH_MM = 5.0  # around the outline of a nodule: segmentations of lungs leave out what touches the chest wall

Mask = NDArray[np.bool_]
_Organ = tuple[SegmentCard, Mask]


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
    outlined: bool = True


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
    inside: list[tuple[_Outline, Detection, _Organ | None]] = []
    lost = outside = 0
    for number, detection in sorted(wanted, key=lambda pair: -pair[1].score):
        box = boxes[number - 1] if number <= len(boxes) else None
        if box is None or prediction.instances is None:
            lost += 1
            continue
        outline = _Outline(number, prediction.instances, box, volume)
        if (organ := outline.organ(organs.values())) is None and card.within:
            outside += 1
        else:
            inside.append((outline, detection, organ))
    reported = [_found(card, *each) for each in inside[: card.max_count]]
    left_out = {
        "without a voxel on the grid of the images": lost,
        _outside(card, organs): outside,
        f"the card reports at most {card.max_count}": len(inside) - len(reported),
    }
    return reported, _left_out(card, left_out)


def _boxes(instances: NDArray[np.uint8] | None) -> Sequence[Box | None]:
    return [] if instances is None else ndimage.find_objects(instances)


@dataclass(frozen=True, slots=True, eq=False)
class _Outline:
    """Where one detection is: its number in the map of instances, and the box that holds it."""

    number: int
    instances: NDArray[np.uint8]
    box: Box
    volume: Volume

    def organ(self, organs: Iterable[_Organ]) -> _Organ | None:
        """Find the organ that most of it and its surroundings lie in."""
        around, mask, inner = self._around(_REACH_MM)
        affine = self.volume.affine
        shared = [(overlap(mask, organ[1][around], affine, inner, _REACH_MM), organ) for organ in organs]
        most, organ = max(shared, key=lambda each: each[0], default=(0, None))
        return organ if most else None

    def surface_mm(self, organ: Mask) -> float | None:
        """Measure to the surface of the organ."""
        around, mask, inner = self._around(FARTHEST_MM)
        return surface_distance_mm(mask, organ[around], self.volume.affine, inner)

    def crop(self) -> Marked:
        """Cut it out of the volume."""
        return marked(self.volume, self.instances[self.box] == self.number, self.box)

    def _around(self, margin_mm: float) -> tuple[Box, Mask, Box]:
        """Give a crop around it, its mask there, and its box in that crop."""
        around = grown(self.box, self.instances.shape, self.volume.spacing_mm, margin_mm)
        low, inner, high = (
            slice(part.start - out.start, part.stop - out.start) for part, out in zip(self.box, around, strict=True)
        )
        return around, self.instances[around] == self.number, (low, inner, high)


def _found(card: DetectionCard, outline: _Outline, detection: Detection, organ: _Organ | None) -> Found:
    """Look closer at a detection that is reported."""
    answers = _answers(detection, card)
    it = replace(
        outline.crop(),
        is_part_solid=answers.get("attenuation", ("",))[0] == Attenuation.PART_SOLID,
        surface_mm=outline.surface_mm(organ[1]) if organ else None,
    )
    name = f"{detection.output}/{outline.number}"
    where_mm = centre_mm(it.mask, it.affine)
    inside = organ[0] if organ else None
    return Found(card, name, detection.score, answers, inside, it, where_mm, detection.outlined)


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
