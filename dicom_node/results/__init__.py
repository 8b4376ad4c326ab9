"""Findings become DICOM, valid the moment they exist: `build_results`."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.finding import Findings, Quality, Segment
from dicom_node.domain.job import FailedJob, Job
from dicom_node.domain.model import ModelCard, OutputKind
from dicom_node.errors import ResultError
from dicom_node.results.header import Equipment, Origin, equipment_of, file_bytes
from dicom_node.results.seg import build_seg, prove_seg
from dicom_node.results.source import SourceVolume
from dicom_node.results.sr import build_sr
from dicom_node.results.unanalysed import MOST_LISTED, build_unanalysed
from dicom_node.spool import Spool

__all__ = ["BUILDERS", "Equipment", "build_report", "build_results", "equipment_of"]

Mask = Callable[[str], NDArray[np.bool_]]
BUILDERS: dict[OutputKind, Callable[[Origin, Findings, Mask], Dataset | None]] = {
    OutputKind.SEG: build_seg,
    OutputKind.SR: build_sr,
}


def build_results(
    job: Job,
    card: ModelCard,
    volume: SourceVolume,
    findings: Findings,
    mask: Mask,
    equipment: Equipment,
    spool: Spool,
    steps_s: MutableMapping[str, float] | None = None,
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
    mask : callable
        Gives the voxels of one output: bool, shape (slices, rows, columns), on the grid of `volume`.
    equipment : Equipment
        The node.
    spool : Spool
        Where the files go, synced before this returns.
    steps_s : mapping, optional
        Receives the seconds of each step: ``write SEG``, ``write SR``.

    Returns
    -------
    tuple of ResultObject
        In the order in which they have to be sent. No SEG when nothing was found: the SR says so.

    Raises
    ------
    ResultError
        If the findings cannot become valid objects, or a written segmentation does not read back voxel for voxel.
    """
    try:
        origin = Origin.of(job, card, volume, equipment)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ResultError(f"The headers of the source series cannot be carried over: {error}") from error
    results = []
    for kind, build in BUILDERS.items():
        started = monotonic()
        if kind in card.outputs and (result := _build(kind, build, origin, findings, mask)) is not None:
            results.append(_write(kind, result, origin, findings, mask, spool))
        if steps_s is not None:
            steps_s[f"write {kind.name}"] = monotonic() - started
    return tuple(results)


def build_report(
    failed: FailedJob, card: ModelCard, header: Dataset, equipment: Equipment, spool: Spool
) -> ResultObject:
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
        Where the file goes, synced before this returns.

    Raises
    ------
    ResultError
        If the header cannot be carried over into a valid object.
    """
    try:
        origin = Origin.of_received(failed.job, card, header, failed.job.instances[:MOST_LISTED], equipment)
        report = build_unanalysed(origin, failed)
        data = file_bytes(report)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ResultError(f"The report cannot be written: {error}") from error
    summary = {"negative": False, "segments": [], "not_analysed": failed.failure.value}
    return _stored(OutputKind.SR, report, data, failed.job.id, summary, spool)


def _build(
    kind: OutputKind,
    build: Callable[[Origin, Findings, Mask], Dataset | None],
    origin: Origin,
    findings: Findings,
    mask: Mask,
) -> Dataset | None:
    try:
        return build(origin, findings, mask)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ResultError(f"The {kind.name} cannot be written: {error}") from error


def _write(
    kind: OutputKind, result: Dataset, origin: Origin, findings: Findings, mask: Mask, spool: Spool
) -> ResultObject:
    data = file_bytes(result)
    if kind is OutputKind.SEG:
        prove_seg(data, origin, findings, mask)
    return _stored(kind, result, data, origin.job.id, _summary(findings), spool)


def _stored(
    kind: OutputKind, result: Dataset, data: bytes, job_id: str, summary: dict[str, Any], spool: Spool
) -> ResultObject:
    path, size, sha256 = spool.write(f"results/{job_id}", f"{kind.value}.dcm", data)
    return ResultObject(
        kind=kind,
        sop_class_uid=str(result.SOPClassUID),
        sop_instance_uid=str(result.SOPInstanceUID),
        series_instance_uid=str(result.SeriesInstanceUID),
        transfer_syntax_uid=str(result.file_meta.TransferSyntaxUID),
        path=path,
        size=size,
        sha256=sha256,
        summary=summary,
    )


def _summary(findings: Findings) -> dict[str, Any]:
    """Tell what a table or a web page shows of a result: no patient data."""
    return {
        "negative": findings.is_negative,
        "segments": [_segment_summary(segment) for segment in findings.segments],
        "qualities": [_quality_summary(quality) for quality in findings.qualities],
        "not_run": [{"what": left_out.what, "how": left_out.how, "why": left_out.why} for left_out in findings.not_run],
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
    if segment.qualities:
        said["qualities"] = [_quality_summary(quality) for quality in segment.qualities]
    return said


def _quality_summary(quality: Quality) -> dict[str, str]:
    return {"name": quality.name.meaning, "value": quality.value.meaning, "note": quality.note}
