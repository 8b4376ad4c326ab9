"""Findings as a measurement report (PS3.16 TID 1500): one group for each segment, and the outcome of the run.

A report is written whether or not anything was found: a missing result could not be told from a lost one.
"""

from __future__ import annotations

from typing import Any

import highdicom as hd
import numpy as np
from highdicom.sr import MeasurementsAndQualitativeEvaluations as Group
from highdicom.sr import PlanarROIMeasurementsAndQualitativeEvaluations as PlanarGroup
from highdicom.sr import VolumetricROIMeasurementsAndQualitativeEvaluations as VolumeGroup
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode

from dicom_node.domain.encoding import encoded
from dicom_node.domain.finding import Landmark, Map, Measurement, Segment
from dicom_node.domain.model import OutputKind
from dicom_node.results.analysis import Analysis
from dicom_node.results.document import algorithm, comment, document, qualities, sites, summary_group
from dicom_node.results.header import code, series_description
from dicom_node.results.library import image_library
from dicom_node.results.pm import map_part
from dicom_node.results.words import BOX, CALCULATED, OF_MAP, because, certainty, made_from, nothing_found, registered

OUTCOMES = {  # (something was found, all of the model ran): PS3.16 CID 6047
    (True, True): codes.cid6047.AllAlgorithmsSucceededWithFindings,
    (False, True): codes.cid6047.AllAlgorithmsSucceededWithoutFindings,
    (True, False): codes.cid6047.NotAllAlgorithmsSucceededWithFindings,
    (False, False): codes.cid6047.NotAllAlgorithmsSucceededWithoutFindings,
}


def build_sr(analysis: Analysis) -> Dataset:
    """Write a Comprehensive 3D SR: preliminary, unverified. Only a human reader verifies.

    Parameters
    ----------
    analysis : Analysis
        Its segments get a group each, unless they are empty, and so do its points and the images that the model gave;
        the results made before it become evidence.

    Returns
    -------
    pydicom.Dataset
        COMPLETE, or PARTIAL where a part of the model was not run. Its image library lists the whole series when
        nothing was found ("nothing" has to say where), else the first, the largest and the last slice of each segment,
        and the slice of each point.
        All slices, those of further series that the model worked on, and all results made before it, are evidence in
        either case: it leads to everything (IHE AIR).
    """
    origin, findings = analysis.origin, analysis.findings
    summary = summary_group(
        origin,
        OUTCOMES[analysis.said, not analysis.not_run],
        _comments(analysis),
        findings.qualities,
        [numeric(each) for each in findings.measurements],
    )
    return document(
        origin,
        [
            summary,
            *(_segment_group(analysis, segment) for segment in findings.present),
            *(_point_group(analysis, point) for point in findings.points),
            *(_map_group(analysis, number, each) for number, each in enumerate(findings.maps, start=1)),
        ],
        image_library(origin, _used_images(analysis)),
        [*origin.slices, *origin.others, *analysis.made],
        series_description(origin, _what(analysis)),
        lacks=analysis.lacks,
        part=encoded(OutputKind.SR, analysis.encoding).value,
    )


def _what(analysis: Analysis) -> str:
    said = ["partial"] if analysis.not_run else []
    said += [] if analysis.said else ["no findings"]
    return ", ".join(["SR", *said])


def _comments(analysis: Analysis) -> list[str]:
    findings = analysis.findings
    said = [f"{part.text}." for part in findings.not_run] + because(findings.qualities)
    if not analysis.said:
        said.append(nothing_found(analysis.sought, len(analysis.origin.slices)))
    said += made_from(analysis.origin.job.inputs) + registered(findings.registration)
    said.append(analysis.origin.statement)
    return [*said, CALCULATED] if findings.qualities else said


def _segment_group(analysis: Analysis, segment: Segment) -> Group | VolumeGroup:
    seg = analysis.made_of(OutputKind.SEG)
    content: dict[str, Any] = {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=segment.tracking_uid, identifier=segment.tracking_id),
        "finding_type": code(segment.type),
        "finding_category": code(segment.category),
        "finding_sites": sites([segment]),
        "measurements": [*map(numeric, segment.measurements), *certainty_of(segment)],
        "qualitative_evaluations": qualities(segment.qualities),
        "algorithm_id": algorithm(analysis.origin),
    }
    group = VolumeGroup(referenced_segment=_reference(segment, seg), **content) if seg else Group(**content)
    for text in _about(segment):
        group[0].ContentSequence.append(comment(text))
    return group


def _point_group(analysis: Analysis, point: Landmark) -> PlanarGroup:
    """One point in the patient (PS3.16 TID 1410, SCOORD3D)."""
    place = hd.sr.ImageRegion3D("POINT", np.array([point.place_mm]), analysis.origin.slices[0].FrameOfReferenceUID)
    return PlanarGroup(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=point.tracking_uid, identifier=point.tracking_id),
        referenced_region=place,
        finding_type=code(point.type),
        finding_category=code(point.category),
        finding_sites=sites([point]),
        algorithm_id=algorithm(analysis.origin),
    )


def _map_group(analysis: Analysis, number: int, each: Map) -> Group:
    """What an image that the model gave holds inside of the body, and which object it is."""
    uid = analysis.origin.uid(map_part(number))
    made = [result for result in analysis.made if result.SOPInstanceUID == uid]
    group = Group(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=each.tracking_uid, identifier=each.label),
        measurements=[numeric(measurement) for measurement in each.measurements],
        algorithm_id=algorithm(analysis.origin),
        source_images=[
            hd.sr.SourceImageForMeasurementGroup(result.SOPClassUID, result.SOPInstanceUID) for result in made
        ],
    )
    group[0].ContentSequence.append(comment(OF_MAP))
    return group


def _reference(segment: Segment, seg: Dataset) -> hd.sr.ReferencedSegment:
    return hd.sr.ReferencedSegment(
        sop_class_uid=seg.SOPClassUID,
        sop_instance_uid=seg.SOPInstanceUID,
        segment_number=segment.number,
        source_series=hd.sr.SourceSeriesForSegmentation(seg.ReferencedSeriesSequence[0].SeriesInstanceUID),
    )


def _about(segment: Segment) -> list[str]:
    """Say what classes and categories of a segment rest on; a structure that is only measured needs no comment."""
    said = because(segment.qualities)
    if segment.score is not None:
        said.append(certainty(segment.score))
    if not segment.outlined:
        said.append(BOX)
    return [*said, CALCULATED] if said or segment.qualities else []


def numeric(measurement: Measurement) -> hd.sr.Measurement:
    """Make one NUM; the 0 that highdicom wants where there is no value goes in `_empty_unmeasured`."""
    return hd.sr.Measurement(
        name=code(measurement.name),
        value=measurement.value if measurement.value is not None else 0.0,
        unit=code(measurement.unit),
        qualifier=code(measurement.reason) if measurement.reason else None,
        derivation=code(measurement.derivation) if measurement.derivation else None,
    )


def certainty_of(segment: Segment) -> list[hd.sr.Measurement]:
    """Give the detector's score: how likely it is what it is called (PS3.16 annex D). Not 111047, likely cancer."""
    if segment.score is None:
        return []
    percent = round(100 * segment.score, 1)
    return [hd.sr.Measurement(codes.DCM.CertaintyOfFinding, percent, PydicomCode("%", "UCUM", "percent"))]


def _used_images(analysis: Analysis) -> list[Dataset]:
    origin, points = analysis.origin, analysis.findings.points
    if not analysis.found and not points:
        return list(origin.slices)
    chosen = {point.slice for point in points}
    for segment in analysis.findings.present:
        crop = analysis.crop(segment.output)
        areas, first = np.count_nonzero(crop.voxels, axis=(1, 2)), crop.start[0]
        chosen |= {first, first + int(areas.argmax()), first + len(areas) - 1}
    return [origin.slices[index] for index in sorted(chosen)]
