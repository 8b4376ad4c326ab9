"""What was found in single images becomes DICOM: a segmentation and a picture of each image, one report of them all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.finding import NotRun, Segment
from dicom_node.domain.job import Job
from dicom_node.domain.model import ModelCard, OutputKind
from dicom_node.errors import ResultError
from dicom_node.results.draft import Draft, stored
from dicom_node.results.header import Equipment
from dicom_node.results.single.analysed import AnalysedImage, Boxed, Corners, Images, Region
from dicom_node.results.single.headers import origin_of_images
from dicom_node.results.single.picture import build_image_picture
from dicom_node.results.single.proof import prove_image_seg, prove_images_sr
from dicom_node.results.single.seg import build_image_seg
from dicom_node.results.single.sr import build_images_sr
from dicom_node.spool import Spool

__all__ = ["AnalysedImage", "Boxed", "Corners", "Region", "build_image_results"]

_PICTURES = (OutputKind.SC, OutputKind.CAPTURES)


def build_image_results(
    job: Job,
    card: ModelCard,
    images: Sequence[AnalysedImage],
    equipment: Equipment,
    spool: Spool,
    steps_s: MutableMapping[str, float],
    also: Collection[OutputKind] = (),
) -> tuple[ResultObject, ...]:
    """Write every result object of a job on single images into the spool.

    Parameters
    ----------
    images : sequence of AnalysedImage
        In their order; those that the model was not run on as well.
    steps_s : mapping
        Receives the seconds of each step.
    also : collection of OutputKind
        Kinds that destinations want beyond those of the card. Of all kinds SEG, SC, CAPTURES and SR are made of single
        images; the report always is.

    Returns
    -------
    tuple of ResultObject
        In the order in which they have to be sent.

    Raises
    ------
    ResultError
        If the findings cannot become valid objects, or one does not read back as what was found.
    """
    kinds = {*card.outputs, *also}
    try:
        headers = [image.header for image in images]
        told = Images(origin_of_images(job, card, headers, job.instances, equipment), images)
        started = monotonic()
        drafts = _drafts(told, kinds)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ResultError(f"The results on single images cannot be written: {error}") from error
    steps_s["write"] = monotonic() - started
    _prove(drafts, told, job, spool)
    summary = _summary(told)
    if job.predecessors:
        summary["replaces"] = {document.kind: document.sop_instance_uid for document in job.predecessors}
    return tuple(stored(draft, job.id, summary, spool) for draft in drafts)


def _drafts(told: Images, kinds: Collection[OutputKind]) -> list[Draft]:
    segs = {}
    if OutputKind.SEG in kinds:
        made = {image.number: build_image_seg(told, image) for image in told.images}
        segs = {number: seg for number, seg in made.items() if seg is not None}
    drafts = [Draft.of(OutputKind.SEG, seg, n) for n, seg in enumerate(segs.values(), start=1)]
    for kind in _PICTURES:
        shown = [image for image in told.images if not image.why_not] if kind in kinds else []
        drafts += [Draft.of(kind, build_image_picture(told, each, kind), n) for n, each in enumerate(shown, start=1)]
    return [*drafts, Draft.of(OutputKind.SR, build_images_sr(told, segs))]


def _prove(drafts: Sequence[Draft], told: Images, job: Job, spool: Spool) -> None:
    """Let out nothing that contradicts its source; keep it for whoever looks into it."""
    outlined = iter([image for image in told.images if image.present])
    try:
        for draft in drafts:
            if draft.kind is OutputKind.SEG:
                prove_image_seg(draft.data, told, next(outlined))
            elif draft.kind is OutputKind.SR:
                prove_images_sr(draft.data, told)
    except ResultError:
        for draft in drafts:
            spool.write(f"quarantine/{job.id}", f"{draft.name}.dcm", draft.data)
        raise


def _summary(told: Images) -> dict[str, Any]:
    """Tell what a table or a web page shows of the results: no patient data."""
    regions = [(image, region.segment) for image in told.images for region in image.regions]
    boxes = [(image, boxed.segment) for image in told.images for boxed in image.boxes]
    return {
        "negative": not any(image.says_something for image in told.images),
        "segments": [_segment(image, segment) for image, segment in [*regions, *boxes]],
        "qualities": [
            {"name": f"{image.name}: {each.name.meaning}", "value": each.value.meaning, "note": each.note}
            for image in told.images
            for each in image.qualities
        ],
        "not_run": [{"what": part.what, "how": part.how, "why": part.why} for part in _not_run(told)],
    }


def _not_run(told: Images) -> Iterator[NotRun]:
    if note := told.origin.job.note:
        yield NotRun("Series", note, "not whole")
    for image in told.images:
        if image.why_not:
            yield NotRun(image.name, image.why_not, "not analysed")
        yield from (replace(part, what=f"{image.name}: {part.what}") for part in image.left_out)


def _segment(image: AnalysedImage, segment: Segment) -> dict[str, Any]:
    said: dict[str, Any] = {
        "label": f"{segment.label}, {image.name[0].lower()}{image.name[1:]}",
        "image": image.number,
        "number": segment.number,
        "voxels": segment.voxels,
        "area_mm2": next((each.value for each in segment.measurements), None),
    }
    if segment.score is not None:
        said |= {"detected": segment.type.meaning, "score": segment.score}
    return said
