"""What every report of ours has (PS3.16 TID 1500): who says it, of which scan, how the run ended, on which images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
from highdicom.sr import MeasurementsAndQualitativeEvaluations as Group
from highdicom.sr import PlanarROIMeasurementsAndQualitativeEvaluations as PlanarGroup
from highdicom.sr import VolumetricROIMeasurementsAndQualitativeEvaluations as VolumeGroup
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.domain.encoding import plain
from dicom_node.domain.finding import Code, Landmark, Quality, Segment
from dicom_node.domain.job import Document
from dicom_node.domain.model import OutputKind, SegmentCard
from dicom_node.results.header import LO_LENGTH, Origin, code, complete, fit, instance_attributes, instances_of

ANATOMICAL_STRUCTURE = "91723000"  # SCT, CID 7150
_PROCEDURES = {  # CID 100
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
}


def document(
    origin: Origin,
    groups: Sequence[Group | PlanarGroup | VolumeGroup],
    library: Dataset | None,
    evidence: Sequence[Dataset],
    description: str,
    *,
    lacks: str = "",
    part: str = "sr",
    position: int = 2,
    sop_class: type[hd.sr.Comprehensive3DSR | hd.sr.ComprehensiveSR] = hd.sr.Comprehensive3DSR,
) -> Dataset:
    """Write a report: preliminary, unverified. Only a human reader verifies.

    Parameters
    ----------
    origin : Origin
        The job, the model and the source series.
    groups : sequence
        Measurement groups, at least one.
    library : pydicom.Dataset, optional
        The image library; None where there is no image to list.
    evidence : sequence of pydicom.Dataset
        Every instance that the report refers to or rests on.
    description : str
        Series Description (0008,103E).
    lacks : str
        What is missing makes Completion Flag (0040,A491) PARTIAL.
    part, position
        As `header.instance_attributes` has them.
    sop_class : type
        A Comprehensive SR has no points in three dimensions, and more archives take it.
    """
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer(origin)),
        procedure_reported=_procedures(origin),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    if library is not None:
        report[0].ContentSequence.insert(-1, library)  # TID 1500: before the measurements
    sr = sop_class(
        evidence=instances_of(evidence),
        content=report[0],
        is_complete=not lacks,
        is_final=False,
        is_verified=False,
        performed_procedure_codes=[],
        requested_procedures=requests(origin),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **instance_attributes(origin, part, position, description),
    )
    if lacks:
        sr.CompletionFlagDescription = fit(lacks, LO_LENGTH)
    before = [each for each in origin.job.predecessors if each.kind == part]
    if before or (before := [each for each in origin.job.predecessors if each.kind == plain(OutputKind(part))]):
        sr.PredecessorDocumentsSequence = [_predecessors(origin, before)]
    _empty_unmeasured(sr)
    complete(sr, origin)
    return sr


def _predecessors(origin: Origin, documents: Sequence[Document]) -> Dataset:
    """Name the documents that this one takes the place of (PS3.3 C.17.2.3): each form of a report that of its own."""
    study = Dataset()
    study.StudyInstanceUID = origin.job.study_instance_uid
    study.ReferencedSeriesSequence = []
    for document in documents:
        series, item = Dataset(), Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = document.sop_class_uid, document.sop_instance_uid
        series.SeriesInstanceUID, series.ReferencedSOPSequence = document.series_instance_uid, [item]
        study.ReferencedSeriesSequence.append(series)
    return study


def summary_group(
    origin: Origin,
    outcome: PydicomCode,
    comments: Sequence[str],
    categories: Sequence[Quality] = (),
    numbers: Sequence[hd.sr.Measurement] = (),
) -> Group:
    """How the run ended (PS3.16 CID 6047), in a group of its own: highdicom has no other place for it.

    Parameters
    ----------
    comments : sequence of str
        What is said of the run in words.
    categories : sequence of Quality
        What is said of the whole scan in codes.
    numbers : sequence of highdicom.sr.Measurement
        And in numbers.
    """
    ended = hd.sr.QualitativeEvaluation(codes.DCM.CADProcessingAndFindingsSummary, outcome)
    group = Group(
        tracking_identifier=hd.sr.TrackingIdentifier(origin.uid("track/summary"), "Analysis summary"),
        finding_sites=sites(origin.card.segments),
        algorithm_id=algorithm(origin),
        measurements=list(numbers) or None,
        qualitative_evaluations=[ended, *qualities(categories)],
    )
    for text in comments:
        group[0].ContentSequence.append(comment(text))
    return group


def qualities(found: Sequence[Quality]) -> list[hd.sr.QualitativeEvaluation]:
    """Classes and categories in codes."""
    return [hd.sr.QualitativeEvaluation(code(quality.name), code(quality.value)) for quality in found]


def comment(text: str) -> hd.sr.TextContentItem:
    """Make a text of a group: TID 1411 and 1501 take TEXT evaluations, highdicom codes only."""
    return hd.sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type="CONTAINS")


def sites(segments: Sequence[Segment | SegmentCard | Landmark]) -> list[hd.sr.FindingSite] | None:
    """Where to look: the region of a lesion, or the organ itself, with its side."""
    places: dict[tuple[Code, Code | None], None] = {}
    for segment in segments:
        place = segment.region or (segment.type if segment.category.value == ANATOMICAL_STRUCTURE else None)
        if place is not None:
            places[place, segment.laterality] = None
    return [hd.sr.FindingSite(code(place), laterality=code(side) if side else None) for place, side in places] or None


def algorithm(origin: Origin) -> hd.sr.AlgorithmIdentification:
    """Name the model that answers for a group (PS3.16 TID 4019)."""
    # without manufacturer and family: dcmqi reads both as findings (PS3.16 TID 4019 has them optional)
    return hd.sr.AlgorithmIdentification(name=fit(origin.card.name, LO_LENGTH), version=origin.algorithm_version)


def library_entry(image: Dataset, descriptors: Sequence[Any] = ()) -> hd.sr.ImageContentItem:
    """List one image in the image library (PS3.16 TID 1601), with what is its own."""
    entry = hd.sr.ImageContentItem(
        name=PydicomCode("260753009", "SCT", "Source"),
        referenced_sop_class_uid=image.SOPClassUID,
        referenced_sop_instance_uid=image.SOPInstanceUID,
        referenced_frame_numbers=frame_numbers(image),
        relationship_type="CONTAINS",
    )
    if descriptors:
        entry.ContentSequence = hd.sr.ContentSequence(descriptors)
    return entry


def frame_numbers(image: Dataset) -> list[int] | None:
    """Which frame of its instance an image is; None where it is the whole."""
    frame = image.get("ReferencedFrameNumber")
    return [int(frame)] if frame else None


def observer(origin: Origin) -> hd.sr.ObserverContext:
    """Name the model as the observer, in the words of Contributing Equipment (IHE AIR table 6.5.3.1-1)."""
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=origin.device_uid,
        name=origin.equipment.model_name,
        manufacturer_name=fit(origin.card.manufacturer, LO_LENGTH),
        model_name=fit(origin.card.name, LO_LENGTH),
        serial_number=fit(origin.equipment.serial, LO_LENGTH),
    )
    return hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=attributes)


def _procedures(origin: Origin) -> list[PydicomCode]:
    """Name the scan, never the algorithm: what the source says, else the modality alone."""
    found = []
    for item in origin.patient.get("ProcedureCodeSequence", ()):
        value, scheme = item.get("CodeValue"), item.get("CodingSchemeDesignator")
        if value and scheme and item.get("CodeMeaning"):
            found.append(PydicomCode(value, scheme, item.CodeMeaning))
    return found or [_PROCEDURES.get(str(origin.patient.get("Modality", "")), codes.cid100.ImagingProcedure)]


def _empty_unmeasured(item: Dataset) -> None:
    """A number that could not be computed is empty and says why, never a 0 (PS3.3 C.18.1, PS3.16 CID 42)."""
    for child in item.get("ContentSequence", ()):
        if "NumericValueQualifierCodeSequence" in child:
            child.MeasuredValueSequence = []
        _empty_unmeasured(child)


def requests(origin: Origin) -> list[Dataset] | None:
    """Name the order behind the study (PS3.3 C.17.2, Referenced Request Sequence), when there is one."""
    if not origin.patient.AccessionNumber:
        return None
    item = Dataset()
    item.StudyInstanceUID = origin.slices[0].StudyInstanceUID
    item.ReferencedStudySequence = []
    for keyword in (
        "AccessionNumber",
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
        "RequestedProcedureID",
        "RequestedProcedureDescription",
    ):
        setattr(item, keyword, origin.patient.get(keyword) or "")
    item.RequestedProcedureCodeSequence = origin.patient.get("RequestedProcedureCodeSequence") or []
    return [item]
