"""Findings as a measurement report (PS3.16 TID 1500): one group for each segment, and the outcome of the run.

A report is written whether or not anything was found: a missing result could not be told from a lost one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import highdicom as hd
import numpy as np
from highdicom.sr import MeasurementsAndQualitativeEvaluations as Group
from highdicom.sr import VolumetricROIMeasurementsAndQualitativeEvaluations as VolumeGroup
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from dicom_node.domain.finding import Code, Findings, Measurement, Segment
from dicom_node.domain.model import OutputKind, SegmentCard
from dicom_node.results.header import LO_LENGTH, Origin, code, complete, fit, instance_attributes, series_description

Mask = Callable[[str], NDArray[np.bool_]]
ANATOMICAL_STRUCTURE = "91723000"  # SCT, CID 7150
_POSITION = (codes.DCM.ImagePositionPatientX, codes.DCM.ImagePositionPatientY, codes.DCM.ImagePositionPatientZ)
_PROCEDURES = {  # CID 100
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
}


def build_sr(origin: Origin, findings: Findings, mask: Mask) -> Dataset:
    """Write a Comprehensive 3D SR: complete, preliminary, unverified. Only a human reader verifies.

    Parameters
    ----------
    origin : Origin
        The job, the model and the source series.
    findings : Findings
        Segments with their measurements; empty ones get no group.
    mask : callable
        Gives the voxels of one output: it says which slices belong into the image library.

    Returns
    -------
    pydicom.Dataset
        Its image library lists the whole series when nothing was found ("nothing" has to say where), else the first,
        the largest and the last slice of each segment. All slices are evidence in either case.
    """
    what = "SR: no findings" if findings.is_negative else "SR"
    summary = _summary_group(origin, findings)
    report = hd.sr.MeasurementReport(
        observation_context=_observer(origin),
        procedure_reported=_procedures(origin),
        imaging_measurements=[summary, *(_segment_group(origin, segment) for segment in findings.present)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    library = _image_library(
        _used_images(origin, findings, mask), has_thickness=bool(origin.patient.get("SliceThickness"))
    )
    report[0].ContentSequence.insert(-1, library)  # TID 1500: before the measurements
    sr = hd.sr.Comprehensive3DSR(
        evidence=[*origin.slices, *_segmentation_evidence(origin, findings)],
        content=report[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        performed_procedure_codes=[],
        requested_procedures=_requests(origin),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **instance_attributes(origin, "sr", 2, series_description(origin, what)),
    )
    _empty_unmeasured(sr)
    complete(sr, origin)
    return sr


def _observer(origin: Origin) -> hd.sr.ObservationContext:
    """Name the model as the observer, in the words of Contributing Equipment (IHE AIR table 6.5.3.1-1)."""
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=origin.device_uid,
        name=origin.equipment.model_name,
        manufacturer_name=fit(origin.card.manufacturer, LO_LENGTH),
        model_name=fit(origin.card.name, LO_LENGTH),
        serial_number=fit(origin.equipment.serial, LO_LENGTH),
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=attributes
        )
    )


def _procedures(origin: Origin) -> list[PydicomCode]:
    """Name the scan, never the algorithm: what the source says, else the modality alone."""
    found = []
    for item in origin.patient.get("ProcedureCodeSequence", ()):
        value, scheme = item.get("CodeValue"), item.get("CodingSchemeDesignator")
        if value and scheme and item.get("CodeMeaning"):
            found.append(PydicomCode(value, scheme, item.CodeMeaning))
    return found or [_PROCEDURES.get(origin.slices[0].Modality, codes.cid100.ImagingProcedure)]


def _algorithm(origin: Origin) -> hd.sr.AlgorithmIdentification:
    # without manufacturer and family: dcmqi reads both as findings (PS3.16 TID 4019 has them optional)
    return hd.sr.AlgorithmIdentification(name=fit(origin.card.name, LO_LENGTH), version=origin.algorithm_version)


def _summary_group(origin: Origin, findings: Findings) -> Group:
    """How the run ended (PS3.16 CID 6047), in a group of its own: highdicom has no other place for it."""
    outcomes = codes.cid6047
    outcome = (
        outcomes.AllAlgorithmsSucceededWithoutFindings
        if findings.is_negative
        else outcomes.AllAlgorithmsSucceededWithFindings
    )
    group = Group(
        tracking_identifier=hd.sr.TrackingIdentifier(origin.uid("track/summary"), "Analysis summary"),
        finding_sites=_sites(origin.card.segments),
        algorithm_id=_algorithm(origin),
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(codes.DCM.CADProcessingAndFindingsSummary, outcome)],
    )
    comment = hd.sr.TextContentItem(
        name=codes.DCM.Comment, value=_comment(origin, findings), relationship_type="CONTAINS"
    )
    group[0].ContentSequence.append(comment)  # TID 1501 takes TEXT evaluations, highdicom codes only
    return group


def _comment(origin: Origin, findings: Findings) -> str:
    if findings.is_negative:
        looked_for = ", ".join(segment.label for segment in findings.segments)
        return f"None of these was found in {len(origin.slices)} images: {looked_for}. {origin.statement}"
    return origin.statement


def _segment_group(origin: Origin, segment: Segment) -> Group | VolumeGroup:
    tracking = hd.sr.TrackingIdentifier(uid=segment.tracking_uid, identifier=segment.tracking_id)
    measurements = [_measurement(measurement) for measurement in segment.measurements]
    kind, category = code(segment.type), code(segment.category)
    sites, algorithm = _sites([segment]), _algorithm(origin)
    if OutputKind.SEG not in origin.card.outputs:  # no segment to point at: TID 1501
        return Group(
            tracking,
            finding_type=kind,
            finding_category=category,
            finding_sites=sites,
            measurements=measurements,
            algorithm_id=algorithm,
        )
    reference = hd.sr.ReferencedSegment(
        sop_class_uid=SegmentationStorage,
        sop_instance_uid=origin.uid("seg"),
        segment_number=segment.number,
        source_series=hd.sr.SourceSeriesForSegmentation(origin.slices[0].SeriesInstanceUID),
    )
    return VolumeGroup(
        tracking,
        referenced_segment=reference,
        finding_type=kind,
        finding_category=category,
        finding_sites=sites,
        measurements=measurements,
        algorithm_id=algorithm,
    )


def _sites(segments: Sequence[Segment | SegmentCard]) -> list[hd.sr.FindingSite] | None:
    """Where to look: the region of a lesion, or the organ itself, with its side."""
    places: dict[tuple[Code, Code | None], None] = {}
    for segment in segments:
        place = segment.region or (segment.type if segment.category.value == ANATOMICAL_STRUCTURE else None)
        if place is not None:
            places[place, segment.laterality] = None
    sites = [hd.sr.FindingSite(code(place), laterality=code(side) if side else None) for place, side in places]
    return sites or None


def _measurement(measurement: Measurement) -> hd.sr.Measurement:
    """Make one NUM; the 0 that highdicom wants where there is no value goes in `_empty_unmeasured`."""
    return hd.sr.Measurement(
        name=code(measurement.name),
        value=measurement.value if measurement.value is not None else 0.0,
        unit=code(measurement.unit),
        qualifier=code(measurement.reason) if measurement.reason else None,
        derivation=code(measurement.derivation) if measurement.derivation else None,
    )


def _empty_unmeasured(item: Dataset) -> None:
    """A number that could not be computed is empty and says why, never a 0 (PS3.3 C.18.1, PS3.16 CID 42)."""
    for child in item.get("ContentSequence", ()):
        if "NumericValueQualifierCodeSequence" in child:
            child.MeasuredValueSequence = []
        _empty_unmeasured(child)


def _used_images(origin: Origin, findings: Findings, mask: Mask) -> list[Dataset]:
    if findings.is_negative:
        return list(origin.slices)
    chosen: set[int] = set()
    for segment in findings.present:
        areas = np.count_nonzero(mask(segment.output), axis=(1, 2))
        marked = np.flatnonzero(areas)
        chosen |= {int(marked[0]), int(areas.argmax()), int(marked[-1])}
    return [origin.slices[index] for index in sorted(chosen)]


def _image_library(images: Sequence[Dataset], *, has_thickness: bool) -> Dataset:
    """List images with what they share stated once, for their group (PS3.16 TID 1600): a fifth of the size.

    Slices of one volume differ in nothing but their position.
    """
    library = hd.sr.ImageLibrary(images[:1])[0]
    (group,) = library.ContentSequence
    *of_group, first = group.ContentSequence
    said = {_concept(item) for item in of_group} | {concept.value for concept in _POSITION}
    said |= set() if has_thickness else {codes.DCM.SliceThickness.value}
    shared = [item for item in first.ContentSequence if _concept(item) not in said]
    differ = [axis for axis in range(3) if len({float(image.ImagePositionPatient[axis]) for image in images}) > 1]
    shared += [_position(images[0], axis) for axis in range(3) if axis not in differ]
    entries = [_library_entry(image, differ) for image in images]
    group.ContentSequence = hd.sr.ContentSequence([*of_group, *shared, *entries])
    return library


def _library_entry(image: Dataset, axes: Sequence[int]) -> hd.sr.ImageContentItem:
    entry = hd.sr.ImageContentItem(
        name=PydicomCode("260753009", "SCT", "Source"),
        referenced_sop_class_uid=image.SOPClassUID,
        referenced_sop_instance_uid=image.SOPInstanceUID,
        relationship_type="CONTAINS",
    )
    if axes:
        entry.ContentSequence = hd.sr.ContentSequence([_position(image, axis) for axis in axes])
    return entry


def _position(image: Dataset, axis: int) -> hd.sr.NumContentItem:
    return hd.sr.NumContentItem(
        name=_POSITION[axis],
        value=float(image.ImagePositionPatient[axis]),
        unit=codes.UCUM.Millimeter,
        relationship_type="HAS ACQ CONTEXT",
    )


def _concept(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _segmentation_evidence(origin: Origin, findings: Findings) -> list[Dataset]:
    if findings.is_negative or OutputKind.SEG not in origin.card.outputs:
        return []
    seg = Dataset()
    seg.StudyInstanceUID = origin.slices[0].StudyInstanceUID
    seg.SeriesInstanceUID = origin.uid("seg/series")
    seg.SOPClassUID = SegmentationStorage
    seg.SOPInstanceUID = origin.uid("seg")
    return [seg]


def _requests(origin: Origin) -> list[Dataset] | None:
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
