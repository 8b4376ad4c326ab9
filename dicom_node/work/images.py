"""The road of single images: each is looked at by itself, and all of a series are told of in one report."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from ai.contract import Detection, Images, Index, Prediction, Volume
from dicom_node.domain import codes
from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.eligibility import scan_of, why_unfit
from dicom_node.domain.finding import Measurement, NotRun, Segment
from dicom_node.domain.geometry import count
from dicom_node.domain.job import Job, JobInstance
from dicom_node.domain.model import DetectionCard, ModelCard, SegmentCard
from dicom_node.domain.uids import result_uid
from dicom_node.errors import NotEligible
from dicom_node.results.single import AnalysedImage, Boxed, Corners, Marked, Region, build_image_results
from dicom_node.single_image import SingleImage, Spacing, load_image
from dicom_node.work.checks import check_prediction
from dicom_node.work.landmarks import landmarks_from
from dicom_node.work.overall import numbers_of_all, said_of_all
from dicom_node.work.scan import asked_for

if TYPE_CHECKING:
    from dicom_node.work.attempt import WorkNode


def analyse_images(
    job: Job, card: ModelCard, node: WorkNode, steps_s: MutableMapping[str, float]
) -> tuple[tuple[ResultObject, ...], Dataset, Prediction | None]:
    """Run a model on every image of a series, one by one, and write what it found.

    Returns
    -------
    tuple of ResultObject
        In the order in which they have to be sent.
    pydicom.Dataset
        Header of the first image.
    ai.contract.Prediction or None
        The last answer.

    Raises
    ------
    NotEligible
        If the model was made for none of them.
    GeometryError, SpoolError, ResultError
        If an image cannot be read, or what was found cannot be written.
    ai.contract.ModelError
        If the model gives no usable answer to one of them.
    """
    if card.command is not None:
        raise NotEligible(f"{card.name} was not run: a program is given volumes, these are single images.")
    if card.maps:
        raise NotEligible(
            f"{card.name} was not run: it answers with images, and a single image has no place in the patient for one."
        )
    answers: list[Prediction] = []
    looked = [
        _look(number, instance, job, card, node, steps_s, answers) for number, instance in enumerate(job.instances, 1)
    ]
    if all(image.why_not for image in looked):
        reasons = "; ".join(dict.fromkeys(image.why_not for image in looked))
        raise NotEligible(f"{card.name} was not run: {reasons}.")
    out = node.out or node.spool
    results = build_image_results(job, card, looked, node.equipment, out, steps_s, node.also, node.if_silent)
    return results, looked[0].header, answers[-1] if answers else None


def _look(
    number: int,
    instance: JobInstance,
    job: Job,
    card: ModelCard,
    node: WorkNode,
    steps_s: MutableMapping[str, float],
    answers: list[Prediction],
) -> AnalysedImage:
    started = monotonic()
    image = load_image(node.spool, instance, card.image_values)
    steps_s["read"] = steps_s.get("read", 0.0) + monotonic() - started
    if reason := _unfit(image, card):
        return AnalysedImage(number, image.header, image.planes, image.spacing.value, why_not=reason)
    model = node.model_for(card)
    prediction = model.predict(_given(image), timeout_s=card.timeout_s, cancelled=node.cancelled)
    answers.append(prediction)
    for step, seconds in prediction.steps_s.items():
        name = "load model" if step == "load" else step
        steps_s[name] = steps_s.get(name, 0.0) + seconds
    return _found(number, image, prediction, job, card)


def _unfit(image: SingleImage, card: ModelCard) -> str:
    """Why the model was not made for an image; empty when it was."""
    rows, columns = image.shape
    scan = scan_of(asked_for(image.header), (1, rows, columns), (0.0, *image.spacing_mm), (0.0, 0.0, 0.0))
    limits = ("pixel_spacing_mm", "field_of_view_mm")
    limited = any(getattr(card.accepts, f"{end}_{what}") is not None for end in ("min", "max") for what in limits)
    if image.spacing is Spacing.UNKNOWN and limited:
        return "the image does not say how large its pixels are, made for some sizes only"
    return why_unfit(card.accepts, scan)


def _given(image: SingleImage) -> Images:
    """One slice of its own, or one for each colour; its affine says how far apart its pixels are, and no more."""
    affine = _affine(image)
    modality = str(image.header.get("Modality", ""))
    planes = {name: Volume(plane[None], affine, modality, is_single=True) for name, plane in image.planes.items()}
    return planes[""] if list(planes) == [""] else planes


def _affine(image: SingleImage) -> NDArray[np.float64]:
    """Slice, row and column to mm of the image's own: x to the right, y down."""
    down, right = image.spacing_mm
    return np.diag([1.0, down, right, 1.0])[[2, 1, 0, 3]]


def _found(number: int, image: SingleImage, prediction: Prediction, job: Job, card: ModelCard) -> AnalysedImage:
    check_prediction(prediction, card)
    names = _Names(job, card, image)
    regions = [names.region(segment, prediction.mask(segment.output)[0]) for segment in card.segments]
    boxes: list[Boxed] = []
    left_out: list[NotRun] = []
    for detection in card.detections:
        chosen, dropped = _chosen(prediction, detection)
        left_out += dropped
        for n, (at, it) in enumerate(chosen, start=1):
            segment = names.detected(detection, it, n)
            if it.box is not None and not it.outlined:
                boxes.append(_boxed(segment, _corners(it.box, image.shape)))
            elif prediction.instances is not None:
                regions.append(names.measured(segment, prediction.instances[0] == at))
    first = next(iter(image.planes.values()))
    named, nowhere = landmarks_from(prediction, card, Volume(first[None], _affine(image)), *names.of_points)
    return AnalysedImage(
        number,
        image.header,
        image.planes,
        image.spacing.value,
        _numbered(regions),
        tuple(boxes),
        tuple(Marked(point, (point.at[2] + 0.5, point.at[1] + 0.5)) for point in named),
        tuple(said_of_all(prediction, card)),
        numbers_of_all(prediction, card),
        (*left_out, *nowhere),
        window=image.window,
    )


class _Names:
    """Codes, names and sizes of what was found in one image."""

    def __init__(self, job: Job, card: ModelCard, image: SingleImage) -> None:
        self._card, self._image = card, image
        self._named_by = job.series_id or job.id
        self._uid = str(image.header.SOPInstanceUID)

    @property
    def of_points(self) -> tuple[str, str]:
        """What the tracking UIDs of its points derive from."""
        return self._named_by, self._uid

    def region(self, card: SegmentCard, mask: NDArray[np.bool_]) -> Region:
        """Something that the card outlines in every image."""
        segment = Segment(
            output=card.output,
            number=0,
            label=card.label,
            category=card.category,
            type=card.type,
            laterality=card.laterality,
            region=card.region,
            color_rgb=card.color_rgb,
            tracking_id=card.label,
            tracking_uid=self._tracking_uid(card.output),
            voxels=0,
            volume_ml=0.0,
            measurements=(),
        )
        return self.measured(segment, mask)

    def detected(self, card: DetectionCard, it: Detection, number: int) -> Segment:
        """Something that was found one by one."""
        label = f"{card.label} {number}"
        return Segment(
            output=f"{card.output}/{number}",
            number=0,
            label=label,
            category=card.category,
            type=card.type,
            laterality=None,
            region=card.region,
            color_rgb=card.color_rgb,
            tracking_id=label,
            tracking_uid=self._tracking_uid(f"{card.output}/{number}"),
            voxels=0,
            volume_ml=0.0,
            measurements=(),
            score=round(it.score, 4),
            outlined=it.outlined,
        )

    def measured(self, segment: Segment, mask: NDArray[np.bool_]) -> Region:
        """Count the pixels, and give their area where they have a size."""
        pixels = int(np.count_nonzero(mask))
        area = Measurement(codes.AREA, round(pixels * _area_mm2(self._image), 2), codes.SQUARE_MILLIMETER)
        known = self._image.spacing is not Spacing.UNKNOWN
        return Region(replace(segment, voxels=pixels, measurements=(area,) if known else ()), mask)

    def _tracking_uid(self, output: str) -> str:
        return result_uid(self._named_by, f"track/{self._card.name}/{self._uid}/{output}")


def _area_mm2(image: SingleImage) -> float:
    return image.spacing_mm[0] * image.spacing_mm[1]


def _chosen(prediction: Prediction, card: DetectionCard) -> tuple[list[tuple[int, Detection]], list[NotRun]]:
    """Detections of one kind that count, surest first, each with its number in the map of instances."""
    wanted = [
        (number, it)
        for number, it in enumerate(prediction.detections, start=1)
        if it.output == card.output and it.score >= card.min_score
    ]
    wanted.sort(key=lambda pair: -pair[1].score)
    more = len(wanted) - card.max_count
    if more <= 0:
        return wanted, []
    what = f"{count(more, f'further {card.label.lower()} candidate')}"
    return wanted[: card.max_count], [NotRun(what, f"the card reports at most {card.max_count}", "not reported")]


def _boxed(segment: Segment, corners: Corners) -> Boxed:
    left, top, right, bottom = corners
    return Boxed(replace(segment, voxels=round((right - left) * (bottom - top))), corners)


def _corners(box: tuple[Index, Index], shape: tuple[int, int]) -> Corners:
    """Left, top, right and bottom with 0 at the outer edge of the first pixel (PS3.3 C.18.6.1.1), within the image."""
    (_, top, left), (_, bottom, right) = box
    rows, columns = shape
    across = np.clip([left + 0.5, right + 0.5], 0, columns)
    down = np.clip([top + 0.5, bottom + 0.5], 0, rows)
    return float(across[0]), float(down[0]), float(across[1]), float(down[1])


def _numbered(regions: Sequence[Region]) -> tuple[Region, ...]:
    """Number those with pixels from 1: Segment Number (0062,0004)."""
    numbered, number = [], 0
    for region in regions:
        number += bool(region.segment.voxels)
        own = number if region.segment.voxels else 0
        numbered.append(replace(region, segment=replace(region.segment, number=own)))
    return tuple(numbered)
