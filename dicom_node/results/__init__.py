"""Findings become DICOM, valid the moment they exist: `build_results`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from time import monotonic
from types import MappingProxyType
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.encoding import Encoding, encoded
from dicom_node.domain.finding import Findings, Landmark, Map, Quality, Registration, Segment
from dicom_node.domain.job import FailedJob, Job
from dicom_node.domain.model import ModelCard, OutputKind
from dicom_node.domain.outdated import Outdated
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis, Marks
from dicom_node.results.anatomy import prove_anatomy
from dicom_node.results.captures import build_captures
from dicom_node.results.draft import Draft, stored
from dicom_node.results.frames import Framed
from dicom_node.results.grey import build_grey, prove_grey
from dicom_node.results.gsps import build_gsps
from dicom_node.results.header import Equipment, Origin, equipment_of
from dicom_node.results.key_images import build_key_images
from dicom_node.results.kos import build_kos
from dicom_node.results.landmark_proof import prove_landmarks
from dicom_node.results.notice import build_notice_pdf, build_notice_sc
from dicom_node.results.outline_proof import prove_gsps, prove_rtstruct
from dicom_node.results.overlay import build_overlay
from dicom_node.results.pdf import build_pdf
from dicom_node.results.pm import build_pm
from dicom_node.results.proof import prove_fractional, prove_labelmap, prove_places, prove_pm, prove_seg
from dicom_node.results.registration import build_deformation, build_registration
from dicom_node.results.registration_proof import prove_deformation, prove_registration
from dicom_node.results.rejection import build_rejection
from dicom_node.results.rtstruct import build_rtstruct
from dicom_node.results.sc import build_sc
from dicom_node.results.seg import ENCODERS, NotEncodable, build_seg
from dicom_node.results.source import SourceVolume
from dicom_node.results.sr import build_sr
from dicom_node.results.unanalysed import build_unanalysed, listed_of
from dicom_node.results.viewer_sr import build_viewer_sr
from dicom_node.results.viewer_sr_proof import prove_viewer_sr
from dicom_node.results.words import mapped, placed
from dicom_node.spool import Spool

__all__ = ["BUILDERS", "PROOFS", "Equipment", "build_rejections", "build_report", "build_results", "equipment_of"]

Made = Dataset | Framed | Sequence[Dataset] | None
Builder = Callable[[Analysis], Made]
BUILDERS: dict[OutputKind, Builder] = {  # the SR refers to those before it
    OutputKind.SEG: build_seg,
    OutputKind.PM: build_pm,
    OutputKind.GREY: build_grey,
    OutputKind.REGISTRATION: build_registration,
    OutputKind.DEFORMATION: build_deformation,
    OutputKind.SC: build_sc,
    OutputKind.RTSTRUCT: build_rtstruct,
    OutputKind.GSPS: build_gsps,
    OutputKind.KEY_IMAGES: build_key_images,
    OutputKind.OVERLAY: build_overlay,
    OutputKind.CAPTURES: build_captures,
    OutputKind.PDF: build_pdf,
    OutputKind.KOS: build_kos,
    OutputKind.VIEWER_SR: build_viewer_sr,
    OutputKind.SR: build_sr,
}
_NOTICES: dict[OutputKind, Callable[[Origin, FailedJob], Dataset]] = {
    OutputKind.PDF: build_notice_pdf,
    OutputKind.SC: build_notice_sc,
    OutputKind.SR: build_unanalysed,
}
PROOFS: dict[OutputKind, Callable[[bytes, Analysis], None]] = {  # of every kind with a place in the patient
    OutputKind.SEG: prove_seg,
    OutputKind.SEG_LABELMAP: prove_labelmap,
    OutputKind.SEG_FRACTIONAL: prove_fractional,
    OutputKind.PM: prove_pm,
    OutputKind.GREY: prove_grey,
    OutputKind.REGISTRATION: prove_registration,
    OutputKind.DEFORMATION: prove_deformation,
    OutputKind.RTSTRUCT: prove_rtstruct,
    OutputKind.GSPS: prove_gsps,
    OutputKind.KEY_IMAGES: prove_places,
    OutputKind.OVERLAY: prove_places,
    OutputKind.VIEWER_SR: prove_viewer_sr,
    OutputKind.SR: prove_landmarks,
    OutputKind.SR_LABELMAP: prove_landmarks,
    OutputKind.SR_FRACTIONAL: prove_landmarks,
}


def build_results(
    job: Job,
    card: ModelCard,
    volume: SourceVolume,
    findings: Findings,
    marks: Marks,
    equipment: Equipment,
    spool: Spool,
    steps_s: MutableMapping[str, float] | None = None,
    encodings: Collection[Encoding] = (),
    also: Collection[OutputKind] = (),
    if_silent: Collection[OutputKind] = (OutputKind.SR,),
) -> tuple[ResultObject, ...]:
    """Write every result object of a job into the spool.

    Parameters
    ----------
    job : Job
        Its id and time determine every UID, date and time: another attempt writes the same bytes to the same files.
    card : ModelCard
        Which model, and which kinds of objects it makes.
    volume : SourceVolume
        The volume that was analysed.
    findings : Findings
        What the model found, measured.
    marks : Marks
        The voxels of each output and the saliency, on the grid of `volume`.
    equipment : Equipment
        The node.
    spool : Spool
        Where the files go, synced before this returns.
    steps_s : mapping, optional
        Receives the seconds of each step: ``write SEG``, ``write SR``, ``prove``.
    encodings : collection of Encoding
        In which the segmentation is wanted beside BINARY, each with a report that points at it.
    also : collection of OutputKind
        Kinds that destinations want beyond those of the card.
    if_silent : collection of OutputKind
        Kinds that say that nothing was found, or that a part of the model was not run: made in any case then.

    Returns
    -------
    tuple of ResultObject
        In the order in which they have to be sent. No SEG and no PM when nothing was found: SC and SR say so. An
        encoding that these segments cannot have is left out; the summary of the SEG says why, under ``not_as``.

    Raises
    ------
    ResultError
        If the findings cannot become valid objects, if one does not read back voxel for voxel where it belongs, or if
        what was marked cannot be what it is called. All that was written is then put into quarantine for whoever looks
        into it, and nothing is sent.
    """
    try:
        origin = Origin.of(job, card, volume, equipment)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ResultError(f"The headers of the source series cannot be carried over: {error}") from error
    analysis, steps_s = Analysis(origin, volume, findings, marks), {} if steps_s is None else steps_s
    not_as: dict[str, str] = {}
    kinds = {*card.outputs, *also}
    if not analysis.found or analysis.lacks:
        kinds |= {OutputKind.SR, *if_silent}  # silence would pass for an answer
    drafts = _drafts(analysis, steps_s, kinds, _wanted(encodings), not_as)
    started = monotonic()
    _prove(drafts, analysis, spool)
    steps_s["prove"] = monotonic() - started
    summary = _summary(findings, analysis) | ({"not_as": not_as} if not_as else {})
    if job.predecessors:
        summary["replaces"] = {document.kind: document.sop_instance_uid for document in job.predecessors}
    return tuple(stored(draft, job.id, summary, spool) for draft in drafts)


def build_report(
    failed: FailedJob,
    card: ModelCard,
    header: Dataset,
    equipment: Equipment,
    spool: Spool,
    forms: Collection[OutputKind] = (),
) -> tuple[ResultObject, ...]:
    """Write the report of a job that ended without a result into the spool.

    Parameters
    ----------
    failed : FailedJob
        What failed and why; its UIDs, dates and times derive from the job, so that writing it again writes the same.
    card : ModelCard
        The model that was asked for.
    header : pydicom.Dataset
        Header of one instance of the series: whose it is.
    equipment : Equipment
        The node.
    spool : Spool
        Where the files go, synced before this returns.
    forms : collection of OutputKind
        In which it is wanted beside SR: PDF, SC.

    Raises
    ------
    ResultError
        If the header cannot be carried over into a valid object.
    """
    try:
        listed = listed_of(failed.job)
        origin = Origin.of_received(listed, card, header, listed.instances, equipment)
        builders = {kind: build for kind, build in _NOTICES.items() if kind is OutputKind.SR or kind in forms}
        drafts = [Draft.of(kind, build(origin, failed)) for kind, build in builders.items()]
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ResultError(f"The report cannot be written: {error}") from error
    summary = {"negative": False, "segments": [], "not_analysed": failed.failure.value}
    return tuple(stored(draft, failed.job.id, summary, spool) for draft in drafts)


def build_rejections(
    job: Job,
    card: ModelCard,
    header: Dataset,
    equipment: Equipment,
    outdated: Sequence[Outdated],
    spool: Spool,
    summary: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[ResultObject, ...]:
    """Write a document for each group of destinations that are to reject what they hold of earlier jobs.

    Parameters
    ----------
    header : pydicom.Dataset
        Of one of the images: whose they are.
    outdated : sequence of Outdated
        What is held; groups that nobody asks are left out.
    spool : Spool
        Where the files go, synced before this returns.
    summary : mapping
        What the results of the job say of themselves: each of its objects says it.

    Raises
    ------
    ResultError
        If the header cannot be carried over into a valid object.
    """
    made: list[ResultObject] = []
    for number, group in enumerate((each for each in outdated if not each.why_left), start=1):
        try:
            document = build_rejection(job, card, header, equipment, group.objects, number)
            draft = Draft.of(OutputKind.REJECTION, document, number)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            raise ResultError(f"The older results cannot be rejected: {error}") from error
        rejects = [each.sop_instance_uid for each in group.objects]
        made.append(stored(draft, job.id, {**summary, "rejects": rejects}, spool, group.destinations))
    return tuple(made)


def _wanted(encodings: Collection[Encoding]) -> tuple[Encoding, ...]:
    return tuple(each for each in Encoding if each in encodings and each is not Encoding.BINARY)


def _drafts(
    analysis: Analysis,
    steps_s: MutableMapping[str, float],
    kinds: Collection[OutputKind],
    encodings: Sequence[Encoding],
    not_as: MutableMapping[str, str],
) -> list[Draft]:
    drafts: list[Draft] = []
    segs: Mapping[Encoding, Draft] = {}
    for kind, build in BUILDERS.items():
        if kind not in kinds:
            continue
        started = monotonic()
        for number, made in enumerate(_listed(_build(kind, build, analysis)), start=1):
            drafts.append(Draft.of(kind, made, number))
            analysis = analysis.after(drafts[-1].result)
            if kind is OutputKind.SEG:
                segs = _encoded(analysis, encodings, not_as)
                drafts += segs.values()
            elif kind is OutputKind.SR:
                drafts += _reports(analysis, segs)
        steps_s[f"write {kind.name}"] = monotonic() - started
    return drafts


def _listed(made: Made) -> Sequence[Dataset | Framed]:
    if made is None:
        return ()
    return (made,) if isinstance(made, Dataset | Framed) else made


def _encoded(
    analysis: Analysis, encodings: Sequence[Encoding], not_as: MutableMapping[str, str]
) -> dict[Encoding, Draft]:
    """Write the segmentation in further encodings; note why it cannot have one."""
    made: dict[Encoding, Draft] = {}
    for encoding in encodings:
        kind = encoded(OutputKind.SEG, encoding)
        try:
            written = _build(kind, ENCODERS[encoding], analysis)
        except NotEncodable as reason:
            not_as[encoding.value] = str(reason)
            continue
        assert isinstance(written, Dataset | Framed)  # the BINARY one was
        made[encoding] = Draft.of(kind, written)
    return made


def _reports(analysis: Analysis, segs: Mapping[Encoding, Draft]) -> Iterator[Draft]:
    """Write the report once more for each encoding: what it points at has to be where it is sent."""
    own = analysis.origin.uid(OutputKind.SR.value)
    before = replace(analysis, made=tuple(result for result in analysis.made if result.SOPInstanceUID != own))
    for encoding, seg in segs.items():
        kind = encoded(OutputKind.SR, encoding)
        report = _build(kind, build_sr, before.encoded(encoding, seg.result))
        assert isinstance(report, Dataset)
        yield Draft.of(kind, report)


def _prove(drafts: Sequence[Draft], analysis: Analysis, spool: Spool) -> None:
    """Let out nothing that contradicts its source; keep it for whoever looks into it."""
    try:
        prove_anatomy(analysis)
        for draft in drafts:
            if draft.kind in PROOFS:
                PROOFS[draft.kind](draft.data, analysis)
    except ResultError:
        for draft in drafts:
            spool.write(f"quarantine/{analysis.origin.job.id}", f"{draft.name}.dcm", draft.data)
        raise


def _build(kind: OutputKind, build: Builder, analysis: Analysis) -> Made:
    try:
        return build(analysis)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ResultError(f"The {kind.name} cannot be written: {error}") from error


def _summary(findings: Findings, analysis: Analysis) -> dict[str, Any]:
    """Tell what a table or a web page shows of a result: no patient data."""
    return {
        "negative": findings.is_negative,
        "segments": [_segment_summary(segment) for segment in findings.segments],
        "points": [_point_summary(point, analysis) for point in findings.points],
        "qualities": [_quality_summary(quality) for quality in findings.qualities],
        "not_run": [{"what": left_out.what, "how": left_out.how, "why": left_out.why} for left_out in findings.not_run],
        **({"registration": _registration_summary(findings.registration)} if findings.registration else {}),
        **({"maps": [_map_summary(each) for each in findings.maps]} if findings.maps else {}),
    }


def _segment_summary(segment: Segment) -> dict[str, Any]:
    said: dict[str, Any] = {
        "label": segment.label,
        "number": segment.number,
        "voxels": segment.voxels,
        "volume_ml": segment.volume_ml,
    }
    if segment.score is not None:
        said |= {"detected": segment.type.meaning, "score": segment.score}
    if segment.extent_mm is not None:  # by which a later job finds it again
        said |= {"output": segment.output, "tracking_uid": segment.tracking_uid, "extent_mm": segment.extent_mm}
    if segment.qualities:
        said["qualities"] = [_quality_summary(quality) for quality in segment.qualities]
    return said


def _point_summary(point: Landmark, analysis: Analysis) -> dict[str, Any]:
    return {
        "label": point.label,
        "image_uid": str(analysis.origin.slices[point.slice].SOPInstanceUID),
        "place_mm": [round(mm, 2) for mm in point.place_mm],
        "where": placed(point.place_mm),
    }


def _registration_summary(found: Registration) -> dict[str, Any]:
    numbers = {"mean_mm": found.mean_mm, "largest_mm": found.largest_mm, "folded_percent": found.folded_percent}
    return {"fixed": found.fixed, "moving": found.moving, **numbers}


def _map_summary(each: Map) -> dict[str, Any]:
    return {"label": each.label, "said": mapped(each)}


def _quality_summary(quality: Quality) -> dict[str, str]:
    return {"name": quality.name.meaning, "value": quality.value.meaning, "note": quality.note}
