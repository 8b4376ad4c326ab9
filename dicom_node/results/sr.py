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
from pydicom.uid import SegmentationStorage

from dicom_node.domain.finding import Findings, Measurement, Segment
from dicom_node.domain.model import OutputKind
from dicom_node.results.document import algorithm, document, library_entry, sites, summary_group
from dicom_node.results.header import Origin, code, series_description

Mask = Callable[[str], NDArray[np.bool_]]
_POSITION = (codes.DCM.ImagePositionPatientX, codes.DCM.ImagePositionPatientY, codes.DCM.ImagePositionPatientZ)


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
    outcomes = codes.cid6047
    outcome = (
        outcomes.AllAlgorithmsSucceededWithoutFindings
        if findings.is_negative
        else outcomes.AllAlgorithmsSucceededWithFindings
    )
    summary = summary_group(origin, outcome, _comment(origin, findings))
    images = _used_images(origin, findings, mask)
    return document(
        origin,
        [summary, *(_segment_group(origin, segment) for segment in findings.present)],
        _image_library(images, has_thickness=bool(origin.patient.get("SliceThickness"))),
        [*origin.slices, *_segmentation_evidence(origin, findings)],
        series_description(origin, what),
        is_complete=True,
    )


def _comment(origin: Origin, findings: Findings) -> str:
    if findings.is_negative:
        looked_for = ", ".join(segment.label for segment in findings.segments)
        return f"None of these was found in {len(origin.slices)} images: {looked_for}. {origin.statement}"
    return origin.statement


def _segment_group(origin: Origin, segment: Segment) -> Group | VolumeGroup:
    tracking = hd.sr.TrackingIdentifier(uid=segment.tracking_uid, identifier=segment.tracking_id)
    measurements = [_measurement(measurement) for measurement in segment.measurements]
    kind, category = code(segment.type), code(segment.category)
    places, model = sites([segment]), algorithm(origin)
    if OutputKind.SEG not in origin.card.outputs:  # no segment to point at: TID 1501
        return Group(
            tracking,
            finding_type=kind,
            finding_category=category,
            finding_sites=places,
            measurements=measurements,
            algorithm_id=model,
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
        finding_sites=places,
        measurements=measurements,
        algorithm_id=model,
    )


def _measurement(measurement: Measurement) -> hd.sr.Measurement:
    """Make one NUM; the 0 that highdicom wants where there is no value goes in `_empty_unmeasured`."""
    return hd.sr.Measurement(
        name=code(measurement.name),
        value=measurement.value if measurement.value is not None else 0.0,
        unit=code(measurement.unit),
        qualifier=code(measurement.reason) if measurement.reason else None,
        derivation=code(measurement.derivation) if measurement.derivation else None,
    )


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
    entries = [library_entry(image, [_position(image, axis) for axis in differ]) for image in images]
    group.ContentSequence = hd.sr.ContentSequence([*of_group, *shared, *entries])
    return library


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
