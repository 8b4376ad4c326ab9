"""The report of a job that ended without a result: no study stays silent, or silence would pass for "no findings"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.domain.header import texts
from dicom_node.domain.job import FailedJob, Failure, Job, JobInput
from dicom_node.results.document import document, library_entry, summary_group
from dicom_node.results.header import LO_LENGTH, RESEARCH_ONLY, Origin, fit

MOST_LISTED = 500  # instances: a report on ten thousand of them is read by nobody and taken by few archives
_LONGEST_REASON = 500
_MODALITIES = {
    code.value: code for name in codes.cid29.dir() if (code := getattr(codes.cid29, name)).scheme_designator == "DCM"
}
_PATH = re.compile(
    r"(?<!\w)(['\"])[^'\"]*[/\\][^'\"]*\1"  # in quotes, with spaces maybe
    r"|(?<![\w)])(?:[A-Za-z]:)?[/\\][\w.~+@%=-]+(?:[/\\][\w.~+@%=-]*)*"  # absolute
    r"|[\w.~-]+(?:[/\\][\w.~+@%=-]+)+\.\w+"  # relative: only with a suffix, or "CT/PT" would be one
)


def build_unanalysed(origin: Origin, failed: FailedJob) -> Dataset:
    """Write a Comprehensive 3D SR that says in codes and in words that there is no result.

    Parameters
    ----------
    origin : Origin
        Made by `Origin.of_received` of the instances of `listed_of`.
    failed : FailedJob
        Why there is none, and how much was received.

    Returns
    -------
    pydicom.Dataset
        PARTIAL, since nothing that was asked for is in it; (111245, DCM, "No algorithms succeeded; without findings").
    """
    comment = comment_on(origin, failed)
    outcome = codes.cid6047.NoAlgorithmsSucceededWithoutFindings
    return document(
        origin,
        [summary_group(origin, outcome, [comment])],
        _image_library(origin),
        [*origin.slices, *origin.others],
        describe(origin, failed.failure),
        lacks=f"NOT ANALYSED: {failed.failure.value}",
    )


def listed_of(job: Job) -> Job:
    """Give a job with the instances that are listed of it: at most `MOST_LISTED`, of several series some of each."""
    most = MOST_LISTED // max(1, len(job.inputs))
    inputs = tuple(replace(one, instances=one.instances[:most]) for one in job.inputs)
    return replace(job, instances=job.instances[:most], inputs=inputs)


def describe(origin: Origin, failure: Failure) -> str:
    """Give the Series Description (0008,103E)."""
    head = f"NOT ANALYSED ({failure.value}) AI"
    room = LO_LENGTH - len(f"{head}  {RESEARCH_ONLY}")
    return f"{head} {fit(origin.card.title, room)} {RESEARCH_ONLY}"


def comment_on(origin: Origin, failed: FailedJob) -> str:
    """Say in words that there is no result and why, what ran and what came; nothing names the patient."""
    said = [
        f"NOT ANALYSED ({failed.failure.value}).",
        for_readers(failed.reason, origin.patient),
        _what_ran(failed),
        "This report says nothing about what the images show.",
        _what_came(failed.job, len(origin.slices) + len(origin.others)),
        origin.statement,
    ]
    return " ".join(said)


def _what_ran(failed: FailedJob) -> str:
    n = failed.job.attempt
    if n == 0 or failed.failure is Failure.NOT_ELIGIBLE:
        return "No model was run."
    return f"{n} attempt{'s' if n > 1 else ''} ended without a result."


def _what_came(job: Job, listed: int) -> str:
    received = sum(len(one.instances) for one in job.inputs) or len(job.instances)
    came = "1 instance was received" if received == 1 else f"{received} instances were received"
    if job.inputs:
        each = (f"{len(one.instances)} of the series for {one.role}{_described(one)}" for one in job.inputs)
        came += f": {', '.join(each)}"
    return f"{came}." if listed == received else f"{came}; the first {listed} are listed here."


def _described(one: JobInput) -> str:
    found = " ".join(texts(one.instances[0].header, "SeriesDescription")) if one.instances else ""
    return f" ({found})" if found else ""


def for_readers(reason: str, patient: Dataset) -> str:
    """Make one clean sentence of a reason: no path, no further lines, nothing that names the patient.

    Reasons are ours, but some quote what a library said about a file.
    """
    text = _PATH.sub("(file)", reason.strip().splitlines()[0] if reason.strip() else "The job failed.")
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "PatientAddress"):
        for word in re.split(r"[\^=\\,\s]+", str(patient.get(keyword) or "")):
            if len(word) > 3:
                text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "(removed)", text, flags=re.IGNORECASE)
    text = fit(text, _LONGEST_REASON)
    return text if text.endswith((".", "...")) else f"{text}."


def _image_library(origin: Origin) -> Dataset | None:
    """List the images that came (PS3.16 TID 1600), by series; objects without pixels are evidence alone."""
    received = [*origin.job.instances, *(each for one in origin.job.inputs[1:] for each in one.instances)]
    groups: dict[tuple[str, str], list[Dataset]] = {}
    for header, instance in zip([*origin.slices, *origin.others], received, strict=True):
        if texts(instance.header, "Rows"):
            groups.setdefault((header.SeriesInstanceUID, header.Modality), []).append(header)
    if not groups:
        return None
    library = hd.sr.ContainerContentItem(name=codes.DCM.ImageLibrary, relationship_type="CONTAINS")
    library.ContentSequence = hd.sr.ContentSequence([_group(key[1], images) for key, images in groups.items()])
    return library


def _group(modality: str, images: Sequence[Dataset]) -> hd.sr.ContainerContentItem:
    group = hd.sr.ContainerContentItem(name=codes.DCM.ImageLibraryGroup, relationship_type="CONTAINS")
    shared = []
    if modality in _MODALITIES:
        value = _MODALITIES[modality]
        shared.append(hd.sr.CodeContentItem(codes.DCM.Modality, value, relationship_type="HAS ACQ CONTEXT"))
    group.ContentSequence = hd.sr.ContentSequence([*shared, *(library_entry(image) for image in images)])
    return group
