"""What was found in single images becomes DICOM: what is drawn of each image, and documents about all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.finding import NotRun, Segment
from dicom_node.domain.job import Job
from dicom_node.domain.model import ModelCard, OutputKind
from dicom_node.errors import ResultError
from dicom_node.results.draft import Draft, stored
from dicom_node.results.header import Equipment
from dicom_node.results.single.analysed import AnalysedImage, Boxed, Corners, Images, Marked, Region
from dicom_node.results.single.documents import build_images_kos, build_images_pdf
from dicom_node.results.single.gsps import build_image_gsps
from dicom_node.results.single.headers import origin_of_images
from dicom_node.results.single.picture import build_image_frame, build_image_picture
from dicom_node.results.single.proof import prove_image_gsps, prove_image_picture, prove_image_seg, prove_images_sr
from dicom_node.results.single.seg import build_image_seg
from dicom_node.results.single.sr import build_images_sr
from dicom_node.spool import Spool

__all__ = ["AnalysedImage", "Boxed", "Corners", "Marked", "Region", "build_image_results"]


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """What was built, and of which image; None of all of them."""

    draft: Draft
    image: AnalysedImage | None = None


def _frame(kind: OutputKind, told: Images, image: AnalysedImage) -> Dataset | None:
    """Draw a key image where something is marked, and every image as soon as anything is in one of them."""
    shown = image.pictured if kind is OutputKind.KEY_IMAGES else any(each.pictured for each in told.images)
    return build_image_frame(told, image, kind) if shown else None


def _picture(kind: OutputKind, told: Images, image: AnalysedImage) -> Dataset:
    return build_image_picture(told, image, kind)


_OF_EACH: dict[OutputKind, Callable[[Images, AnalysedImage], Dataset | None]] = {
    OutputKind.SEG: build_image_seg,
    OutputKind.SC: partial(_picture, OutputKind.SC),
    OutputKind.GSPS: build_image_gsps,
    OutputKind.KEY_IMAGES: partial(_frame, OutputKind.KEY_IMAGES),
    OutputKind.OVERLAY: partial(_frame, OutputKind.OVERLAY),
    OutputKind.CAPTURES: partial(_picture, OutputKind.CAPTURES),
}
_OF_ALL: dict[OutputKind, Callable[[Images], Dataset | None]] = {
    OutputKind.PDF: build_images_pdf,
    OutputKind.KOS: build_images_kos,
}
_PROOFS: dict[OutputKind, Callable[[bytes, Images, AnalysedImage], None]] = {
    OutputKind.SEG: prove_image_seg,
    OutputKind.SC: prove_image_picture,
    OutputKind.GSPS: prove_image_gsps,
    OutputKind.KEY_IMAGES: prove_image_picture,
    OutputKind.OVERLAY: prove_image_picture,
    OutputKind.CAPTURES: prove_image_picture,
}


def build_image_results(
    job: Job,
    card: ModelCard,
    images: Sequence[AnalysedImage],
    equipment: Equipment,
    spool: Spool,
    steps_s: MutableMapping[str, float],
    also: Collection[OutputKind] = (),
    if_silent: Collection[OutputKind] = (),
) -> tuple[ResultObject, ...]:
    """Write every result object of a job on single images into the spool.

    Parameters
    ----------
    images : sequence of AnalysedImage
        In their order; those that the model was not run on as well.
    steps_s : mapping
        Receives the seconds of each step.
    also : collection of OutputKind
        Kinds that destinations want beyond those of the card. What needs a place in the patient, or axes, is not made
        of single images (PM, RTSTRUCT, VIEWER_SR); the report always is.
    if_silent : collection of OutputKind
        Kinds that say that nothing was found, or that an image was not analysed: made in any case then.

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
        if told.lacks or not any(image.says_something for image in images):
            kinds |= {*if_silent}  # silence would pass for an answer
        made = list(_made(told, kinds))
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ResultError(f"The results on single images cannot be written: {error}") from error
    steps_s["write"] = monotonic() - started
    _prove(made, told, job, spool)
    summary = _summary(told)
    if job.predecessors:
        summary["replaces"] = {document.kind: document.sop_instance_uid for document in job.predecessors}
    return tuple(stored(one.draft, job.id, summary, spool) for one in made)


def _made(told: Images, kinds: Collection[OutputKind]) -> Iterator[_Made]:
    """Build what is wanted and can be made, in the order in which it has to be sent."""
    segs: dict[int, Dataset] = {}
    for kind, build in _OF_EACH.items():
        analysed = [image for image in told.images if not image.why_not] if kind in kinds else []
        made = ((image, build(told, image)) for image in analysed)
        for number, (image, built) in enumerate(((i, b) for i, b in made if b is not None), start=1):
            if kind is OutputKind.SEG:
                segs[image.number] = built
            yield _Made(Draft.of(kind, built, number), image)
    for kind, of_all in _OF_ALL.items():
        if kind in kinds and (document := of_all(told)) is not None:
            yield _Made(Draft.of(kind, document))
    yield _Made(Draft.of(OutputKind.SR, build_images_sr(told, segs)))


def _prove(made: Sequence[_Made], told: Images, job: Job, spool: Spool) -> None:
    """Let out nothing that contradicts its source; keep it for whoever looks into it."""
    try:
        for one in made:
            if one.image is not None:
                _PROOFS[one.draft.kind](one.draft.data, told, one.image)
            elif one.draft.kind is OutputKind.SR:
                prove_images_sr(one.draft.data, told)
    except ResultError:
        for one in made:
            spool.write(f"quarantine/{job.id}", f"{one.draft.name}.dcm", one.draft.data)
        raise


def _summary(told: Images) -> dict[str, Any]:
    """Tell what a table or a web page shows of the results: no patient data."""
    regions = [(image, region.segment) for image in told.images for region in image.regions]
    boxes = [(image, boxed.segment) for image in told.images for boxed in image.boxes]
    return {
        "negative": not any(image.says_something for image in told.images),
        "segments": [_segment(image, segment) for image, segment in [*regions, *boxes]],
        "points": [_point(image, marked) for image in told.images for marked in image.points],
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


def _point(image: AnalysedImage, marked: Marked) -> dict[str, Any]:
    across, down = marked.at
    where = f"column {across:.1f}, row {down:.1f}"
    uid = str(image.header.SOPInstanceUID)
    return {"label": f"{marked.landmark.label}, {image.in_words}", "image_uid": uid, "where": where}


def _segment(image: AnalysedImage, segment: Segment) -> dict[str, Any]:
    said: dict[str, Any] = {
        "label": f"{segment.label}, {image.in_words}",
        "image": image.number,
        "number": segment.number,
        "voxels": segment.voxels,
        "area_mm2": next((each.value for each in segment.measurements), None),
    }
    if segment.score is not None:
        said |= {"detected": segment.type.meaning, "score": segment.score}
    return said
