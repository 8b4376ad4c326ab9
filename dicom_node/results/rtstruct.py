"""Findings as contours in patient coordinates (PS3.3 A.19), for viewers and planning systems that show no SEG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import RTStructureSetStorage

from dicom_node.domain.finding import Code, Segment
from dicom_node.results.analysis import Analysis
from dicom_node.results.contours import Ring, halved, keyholes, slices, straightened
from dicom_node.results.document import ANATOMICAL_STRUCTURE
from dicom_node.results.header import (
    LO_LENGTH,
    RESEARCH_ONLY,
    ST_LENGTH,
    Origin,
    code,
    complete,
    content_label,
    fit,
    instance_attributes,
    merged_references,
    plain_object,
    references,
    series_description,
)

_LONGEST = 65_534  # bytes of a DS in an explicit VR (PS3.5 7.1.2)
_CONTOUR_DATA = Tag("ContourData")
_STUDY = "1.2.840.10008.3.1.2.3.1"  # retired, and still what readers find here
_DECIMALS = 3  # of a millimetre


def build_rtstruct(analysis: Analysis) -> Dataset | None:
    """Write the outline of every segment on every slice, holes joined to what surrounds them.

    Returns
    -------
    pydicom.Dataset or None
        An ROI for each segment that is present, under its number; None when nothing was found.
    """
    origin, segments = analysis.origin, analysis.findings.present
    if not segments:
        return None
    attributes = instance_attributes(origin, "rtstruct", 5, series_description(origin, "contours"))
    del attributes["content_date"], attributes["content_time"]  # it has times of its own
    structures = plain_object(origin, RTStructureSetStorage, "RTSTRUCT", attributes)
    structures.OperatorsName = ""
    structures.StructureSetLabel = content_label(origin)
    structures.StructureSetName = fit(f"{origin.card.title} {RESEARCH_ONLY}", LO_LENGTH)
    structures.StructureSetDescription = fit(origin.statement, ST_LENGTH)
    structures.StructureSetDate, structures.StructureSetTime = structures.SeriesDate, structures.SeriesTime
    structures.ApprovalStatus = "UNAPPROVED"
    structures.FrameOfReferenceUID = origin.slices[0].FrameOfReferenceUID
    structures.PositionReferenceIndicator = origin.slices[0].PositionReferenceIndicator
    structures.ReferencedFrameOfReferenceSequence = [_frame_of_reference(origin)]
    structures.StructureSetROISequence = [_roi(origin, segment) for segment in segments]
    structures.RTROIObservationsSequence = [_observation(segment) for segment in segments]
    complete(structures, origin)
    structures.ROIContourSequence = [_contours(analysis, segment) for segment in segments]
    return structures


def _frame_of_reference(origin: Origin) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = origin.slices[0].SeriesInstanceUID
    series.ContourImageSequence = merged_references(origin.slices)
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY, origin.slices[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    item = Dataset()
    item.FrameOfReferenceUID = origin.slices[0].FrameOfReferenceUID
    item.RTReferencedStudySequence = [study]
    return item


def _roi(origin: Origin, segment: Segment) -> Dataset:
    item = Dataset()
    item.ROINumber = segment.number
    item.ReferencedFrameOfReferenceUID = origin.slices[0].FrameOfReferenceUID
    item.ROIName = fit(segment.label, LO_LENGTH)
    item.ROIDescription = fit(f"{segment.tracking_id} {segment.tracking_uid}", ST_LENGTH)
    item.ROIVolume = f"{segment.volume_ml:.3f}"  # cm3
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = fit(f"{origin.card.name} {origin.algorithm_version}", LO_LENGTH)
    return item


def _observation(segment: Segment) -> Dataset:
    """Say what a contour is. ORGAN is the one interpreted type that is a fact; what is a target, people decide."""
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = segment.number
    item.RTROIInterpretedType = "ORGAN" if segment.category.value == ANATOMICAL_STRUCTURE else ""
    item.ROIInterpreter = ""
    concept = _coded(segment.type)
    if segment.laterality is not None and segment.region is None:
        concept.SegmentedPropertyTypeModifierCodeSequence = [_coded(segment.laterality)]
    item.RTROIIdentificationCodeSequence = [concept]
    return item


def _coded(concept: Code) -> Dataset:
    return hd.sr.CodedConcept.from_code(code(concept))


def _contours(analysis: Analysis, segment: Segment) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = segment.number
    item.ROIDisplayColor = list(segment.color_rgb)
    found: list[Dataset] = []
    for number, outlines in slices(analysis.crop(segment.output)):
        image = analysis.origin.slices[number]
        for points in _written(outlines, image):
            found.append(_contour(points, image, len(found) + 1))
    item.ContourSequence = found
    return item


def _contour(points: bytes, image: Dataset, number: int) -> Dataset:
    item = Dataset()
    item.ContourImageSequence = references([image])
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = (points.count(b"\\") + 1) // 3
    item.ContourNumber = number
    item[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(points), points, 0, False, True)
    return item


def _written(outlines: Sequence[Ring], image: Dataset) -> Iterator[bytes]:
    """Encode one closed line for each island; one that is too long for an explicit VR becomes several."""
    shape = int(image.Rows), int(image.Columns)
    for ring in keyholes(outlines):
        for part in halved(straightened(ring), shape, lambda each: len(_encoded(each, image)) <= _LONGEST):
            yield _encoded(part, image)


def _placed(ring: Ring, image: Dataset) -> NDArray[np.float64]:
    """Map rows and columns of a slice into the patient, by its own header (PS3.3 C.7.6.2.1.1)."""
    position, cosines = (np.array(v, float) for v in (image.ImagePositionPatient, image.ImageOrientationPatient))
    down, across = (float(mm) for mm in image.PixelSpacing)
    return np.asarray(position + ring[:, 1:] * across * cosines[:3] + ring[:, :1] * down * cosines[3:], np.float64)


def _encoded(ring: Ring, image: Dataset) -> bytes:
    values = (np.round(_placed(ring, image), _DECIMALS) + 0.0).ravel().tolist()
    text = "\\".join(map(repr, values)).encode()
    return text + b" " * (len(text) % 2)
