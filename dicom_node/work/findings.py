"""What the model marked becomes findings: coded by its card, measured on the voxels of the source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ai.contract import Prediction
from ai.measure.diameter import axial_axis
from ai.measure.place import heights_mm, third_of
from dicom_node.domain import codes
from dicom_node.domain.finding import Axes, Code, Findings, Measurement, NotRun, Quality, Segment, Tracked
from dicom_node.domain.model import Derived, DetectionCard, Measure, ModelCard, SegmentCard
from dicom_node.domain.uids import result_uid
from dicom_node.errors import ConfigurationError
from dicom_node.volume import Volume
from dicom_node.work.checks import check_prediction, check_segments
from dicom_node.work.derived import Calculated, Context, answer_qualities, calculate, grade_quality, zone_quality
from dicom_node.work.detections import Found, choose
from dicom_node.work.landmarks import landmarks_from
from dicom_node.work.maps import maps_from
from dicom_node.work.measures import MEASURES, Marked, marked, voxel_volume_ml
from dicom_node.work.overall import numbers_of_all, said_of_all
from dicom_node.work.registration import Start, measured, registration_from
from dicom_node.work.scan import family_history, header_of
from dicom_node.work.tracking import extent_of, tracking_uids

Mask = NDArray[np.bool_]
_CUT_MM2 = 100.0  # lung on the first or last slice beyond which the scan does not show all of it


def findings_from(
    prediction: Prediction,
    card: ModelCard,
    volume: Volume,
    job_id: str,
    *,
    series_id: str = "",
    not_run: Mapping[str, str] | None = None,
    tracked: Sequence[Tracked] = (),
    start: Start | None = None,
) -> Findings:
    """Measure every segment that the card names, and every detection that counts.

    Parameters
    ----------
    prediction : ai.contract.Prediction
        Masks on the grid of `volume`.
    card : ModelCard
        Says which outputs are segments and detections, in which codes, and what to measure and calculate of each.
    volume : dicom_node.volume.Volume
        The volume that was analysed.
    job_id : str
        Tracking UIDs derive from it where there is no series.
    series_id : str
        Tracking UIDs derive from it, from the model's name and from what is found: of a segment its output, of a
        detection where it lies.
    not_run : mapping of str to str, optional
        Outputs of detections that were not run on this volume, and why.
    tracked : sequence of Tracked
        What earlier jobs on the series detected: what is found again keeps its Tracking UID.
    start : Start, optional
        How the moving series was laid, for a model that registers.

    Returns
    -------
    Findings
        One segment for each of the card, in its order, then one for each detection, surest first; those with voxels
        are numbered from 1. Beside them the points and the images of the card.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If the model has no output of a name that the card uses, or what it says cannot be.
    ConfigurationError
        If the card asks for a measurement that does not exist.
    GeometryError
        If a voxel of `volume` has no volume.
    """
    voxel_volume_ml(volume.affine)
    check_prediction(prediction, card)
    masks = {name: prediction.mask(name) for name in _asked_in_full(card)}
    check_segments(masks, card, volume)
    barred = not_run or {}
    organs = {each.output: _cut_out(volume, prediction, each.output) for each in card.segments}
    segments = [_segment(each, card, organs[each.output], series_id or job_id) for each in card.segments]
    qualities: list[Quality] = []
    left_out = [NotRun(d.name, barred[d.output]) for d in card.detections if d.output in barred]
    for detection in card.detections:
        if detection.output not in barred:
            kind = _Kind(detection, card, volume, masks, organs)
            found, dropped = choose(prediction, detection, kind.within, volume)
            derive = detection.derive if all(it.outlined for it in found) else ()  # a box has no size to go by
            calculated = calculate(derive, found, _labels(found), kind.context())
            names = tracking_uids(found, card.name, series_id or job_id, tracked)
            segments += [_detected(it, n, names[n], calculated, kind) for n, it in enumerate(found)]
            qualities += calculated.of_scan
            left_out += [*dropped, *calculated.not_run]
    qualities += said_of_all(prediction, card)
    points, nowhere = landmarks_from(prediction, card, volume, series_id or job_id)
    registration = registration_from(prediction, card, volume, start)
    numbers = (*numbers_of_all(prediction, card), *measured(registration))
    maps = maps_from(prediction, card, volume, series_id or job_id)
    return Findings(_numbered(segments), tuple(qualities), (*left_out, *nowhere), numbers, points, registration, maps)


def _asked_in_full(card: ModelCard) -> set[str]:
    """Outputs whose mask is needed on the whole grid: lungs, and what detections lie in. Of all others a box will do.

    Masks of a hundred organs on 600 slices would take 18 GB.
    """
    within = {output for detection in card.detections for output in detection.within}
    return {each.output for each in card.segments if each.type.value == codes.LUNG.value or each.output in within}


def _cut_out(volume: Volume, prediction: Prediction, output: str) -> Marked:
    box = prediction.box(output)
    return marked(volume, prediction.within(output, box), box, prediction.instances)


class _Kind:
    """One kind of detection, and the organs that it lies in."""

    def __init__(
        self,
        detection: DetectionCard,
        card: ModelCard,
        volume: Volume,
        masks: Mapping[str, Mask],
        organs: Mapping[str, Marked],
    ) -> None:
        self.detection, self.card, self.volume = detection, card, volume
        inside = [segment for segment in card.segments if segment.output in detection.within]
        self.within = {segment.output: (segment, masks[segment.output]) for segment in inside}
        self.organs = {segment.output: organs[segment.output] for segment in inside}

    def context(self) -> Context:
        """Tell what calculations need beyond one nodule."""
        history = family_history(self.volume)
        return Context(header_of(self.volume), history, self._emphysema_percent(), self._why_incomplete())

    def zone(self, found: Found) -> tuple[Quality, ...]:
        """Say at what height of its lung it lies; a lung may be outlined in several lobes."""
        if Derived.ZONE not in self.detection.derive or found.organ is None:
            return ()
        low_mm, high_mm = self._heights_mm(found.organ.laterality)
        return (zone_quality(third_of(found.centre_mm[2], low_mm, high_mm)),)

    def _heights_mm(self, side: Code | None) -> tuple[float, float]:
        """Find where a lung ends below and above."""
        parts = [self.organs[card.output] for card, _ in self.within.values() if card.laterality == side]
        ends = [heights_mm(part.mask.shape, part.affine) for part in parts if part.voxels]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def _emphysema_percent(self) -> float | None:
        lungs = [organ for organ in self.organs.values() if organ.density is not None]
        voxels = sum(lung.voxels for lung in lungs)
        if not voxels:
            return None
        return sum(lung.voxels * lung.density.emphysema_percent for lung in lungs if lung.density) / voxels

    def _why_incomplete(self) -> str:
        """Say why a nodule may lie where nobody looked."""
        if not self.within:
            return "the card names no lungs to look in"
        empty = [segment.label.lower() for segment, _ in self.within.values() if not self.organs[segment.output].voxels]
        if empty:
            return f"{' and '.join(empty)} not found"
        axis = axial_axis(self.volume.affine)
        if axis is None:
            return "the images are not axial"
        area_mm2 = 1000 * voxel_volume_ml(self.volume.affine) / self.volume.spacing_mm[axis]
        for _, mask in self.within.values():
            planes = np.moveaxis(mask, axis, 0)
            if max(np.count_nonzero(planes[0]), np.count_nonzero(planes[-1])) * area_mm2 > _CUT_MM2:
                return "the lungs are not wholly in the scan"
        return ""


def _segment(segment: SegmentCard, card: ModelCard, it: Marked, named_by: str) -> Segment:
    opacified = Derived.OPACIFICATION_GRADE in segment.derive and it.voxels and it.opacified_percent is not None
    return Segment(
        output=segment.output,
        number=0,
        label=segment.label,
        category=segment.category,
        type=segment.type,
        laterality=segment.laterality,
        region=segment.region,
        color_rgb=segment.color_rgb,
        tracking_id=segment.label,
        tracking_uid=result_uid(named_by, f"track/{card.name}/{segment.output}"),
        voxels=it.voxels,
        volume_ml=round(it.volume_ml, 3),
        measurements=_measure(segment.measurements, segment.output, card, it),
        qualities=(grade_quality(it.opacified_percent or 0.0),) if opacified else (),
    )


def _detected(found: Found, n: int, tracking_uid: str, calculated: Calculated, kind: _Kind) -> Segment:
    card, organ = found.card, found.organ
    lobe = organ.type if organ and organ.type.value != codes.LUNG.value else None
    label = f"{card.label} {n + 1}"
    measured = _measure(card.measurements, card.output, kind.card, found.marked) if found.outlined else ()
    return Segment(
        output=found.name,
        number=0,
        label=label,
        category=card.category,
        type=card.type,
        laterality=organ.laterality if organ else None,
        region=lobe or card.region,
        color_rgb=card.color_rgb,
        tracking_id=label,
        tracking_uid=tracking_uid,
        voxels=found.marked.voxels,
        volume_ml=round(found.marked.volume_ml, 3),
        measurements=(*measured, *calculated.measurements[n]),
        qualities=(*answer_qualities(found), *kind.zone(found), *calculated.qualities[n]),
        score=round(found.score, 4),
        extent_mm=extent_of(found.marked),
        axes=_axes(found.marked) if Measure.LONG_AXIS in card.measurements and found.outlined else None,
        outlined=found.outlined,
    )


def _axes(it: Marked) -> Axes | None:
    return Axes(it.diameters.long_ends_mm, it.diameters.short_ends_mm) if it.diameters else None


def _labels(found: Sequence[Found]) -> list[str]:
    return [f"{it.card.label} {n}" for n, it in enumerate(found, start=1)]


def _measure(names: Iterable[str], output: str, card: ModelCard, it: Marked) -> tuple[Measurement, ...]:
    for name in names:
        if name not in MEASURES:
            known = ", ".join(MEASURES)
            raise ConfigurationError(f"model {card.name}: segment {output!r}: no measurement {name!r}; use {known}")
    measured = [MEASURES[name](it) for name in names]
    return tuple(measurement for measurement in measured if measurement is not None)


def _numbered(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Number those with voxels from 1: Segment Number (0062,0004)."""
    numbered: list[Segment] = []
    number = 0
    for each in segments:
        number += bool(each.voxels)
        numbered.append(replace(each, number=number if each.voxels else 0))
    return tuple(numbered)
