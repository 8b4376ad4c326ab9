"""What a model said of single images, as one measurement report of the series (PS3.16 TID 1500).

Each image has groups of its own: what is said of it as a whole names it as its source (TID 1501), what is outlined
points at its segment, boxes and points are drawn in the image (TID 1410, SCOORD).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.sr import MeasurementsAndQualitativeEvaluations as Group
from highdicom.sr import PlanarROIMeasurementsAndQualitativeEvaluations as PlanarGroup
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.domain import codes as words
from dicom_node.domain.finding import Segment
from dicom_node.results.document import algorithm, comment, document, library_entry, qualities, sites, summary_group
from dicom_node.results.header import code, series_description
from dicom_node.results.single.analysed import AnalysedImage, Boxed, Images, Marked, Region
from dicom_node.results.single.seg import frame_of
from dicom_node.results.sr import OUTCOMES, certainty_of, numeric
from dicom_node.results.words import because, certainty

AT_DETECTOR = "Millimetres are those of the detector: what is in the patient is smaller, by an unknown magnification."
UNKNOWN_SIZE = "The image does not say how large its pixels are: nothing was measured."
_MODALITIES = {  # PS3.16 CID 29
    "CR": codes.cid29.ComputedRadiography,
    "DX": codes.cid29.DigitalRadiography,
    "MG": codes.cid29.Mammography,
    "IO": codes.cid29.IntraOralRadiography,
    "US": codes.cid29.Ultrasound,
    "XA": codes.cid29.XRayAngiography,
    "RF": codes.cid29.Radiofluoroscopy,
    "ES": codes.cid29.Endoscopy,
    "OP": codes.cid29.OphthalmicPhotography,
    "XC": codes.cid29.ExternalCameraPhotography,
    "GM": codes.cid29.GeneralMicroscopy,
}
_ACQUIRED = hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
_PIXELS = hd.sr.CodedConcept("{pixels}", "UCUM", "Pixels")
_SIDES = {"L": words.LEFT, "R": words.RIGHT}


def build_images_sr(told: Images, segs: Mapping[int, Dataset]) -> Dataset:
    """Write the report.

    Parameters
    ----------
    segs : mapping of int to pydicom.Dataset
        The segmentations that were made, by the number of their image.
    """
    origin, images = told.origin, told.images
    said = any(image.says_something for image in images)
    summary = summary_group(origin, OUTCOMES[said, not told.lacks], list(_comments(told, said=said)))
    groups = [group for image in images for group in _groups(told, image, segs.get(image.number))]
    kind = ["SR", *(["partial"] if told.lacks else []), *([] if said else ["no findings"])]
    return document(
        origin,
        [summary, *groups],
        _library(told),
        [*origin.slices, *segs.values()],
        series_description(origin, ", ".join(kind)),
        lacks=told.lacks,
    )


def _comments(told: Images, *, said: bool) -> Iterator[str]:
    if told.origin.job.note:
        yield f"Series not whole: {told.origin.job.note}."
    for image in told.images:
        if image.why_not:
            yield f"{image.name} not analysed: {image.why_not}."
        yield from (f"{image.name}: {part.text}." for part in image.left_out)
    if not said:
        yield told.silence
    yield told.origin.statement


def _groups(told: Images, image: AnalysedImage, seg: Dataset | None) -> Iterator[Group | PlanarGroup]:
    if image.qualities or image.measurements:
        yield _of_image(told, image)
    for region in image.present:
        yield _of_region(told, image, region, seg)
    for boxed in image.boxes:
        yield _of_box(told, image, boxed)
    for marked in image.points:
        yield _of_point(told, image, marked)


def _of_image(told: Images, image: AnalysedImage) -> Group:
    """What is said of the image as a whole."""
    header = told.header(image)
    group = Group(
        tracking_identifier=hd.sr.TrackingIdentifier(told.origin.uid(f"track/image/{image.number}"), image.name),
        algorithm_id=algorithm(told.origin),
        measurements=[numeric(each) for each in image.measurements] or None,
        qualitative_evaluations=qualities(image.qualities),
        source_images=[hd.sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)],
    )
    for text in because(image.qualities):
        group[0].ContentSequence.append(comment(text))
    return group


def _of_region(told: Images, image: AnalysedImage, region: Region, seg: Dataset | None) -> Group | PlanarGroup:
    header, segment = told.header(image), region.segment
    content = _finding(told, segment)
    if seg is None:  # the card wants no segmentation: what was measured stands, and names its image
        source = hd.sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)
        group: Group | PlanarGroup = Group(source_images=[source], **content)
    else:
        reference = hd.sr.ReferencedSegmentationFrame(
            seg.SOPClassUID,
            seg.SOPInstanceUID,
            frame_of(seg, segment.number),
            segment.number,
            hd.sr.SourceImageForSegmentation(header.SOPClassUID, header.SOPInstanceUID),
        )
        del reference[0].ReferencedSOPSequence[0].ReferencedFrameNumber  # PS3.3 10.3: this or the segment, not both
        group = PlanarGroup(referenced_segment=reference, **content)
    for text in _about(image, segment):
        group[0].ContentSequence.append(comment(text))
    return group


def _of_box(told: Images, image: AnalysedImage, boxed: Boxed) -> PlanarGroup:
    header = told.header(image)
    left, top, right, bottom = boxed.corners
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], np.float64)
    region = hd.sr.ImageRegion(
        "POLYLINE", corners, hd.sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID)
    )
    group = PlanarGroup(referenced_region=region, **_finding(told, boxed.segment))
    for text in _about(image, boxed.segment):
        group[0].ContentSequence.append(comment(text))
    return group


def _of_point(told: Images, image: AnalysedImage, marked: Marked) -> PlanarGroup:
    header, point = told.header(image), marked.landmark
    source = hd.sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID)
    return PlanarGroup(
        referenced_region=hd.sr.ImageRegion("POINT", np.array([marked.at]), source),
        tracking_identifier=hd.sr.TrackingIdentifier(uid=point.tracking_uid, identifier=point.tracking_id),
        finding_type=code(point.type),
        finding_category=code(point.category),
        finding_sites=sites([point]),
        algorithm_id=algorithm(told.origin),
    )


def _finding(told: Images, segment: Segment) -> dict[str, Any]:
    return {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=segment.tracking_uid, identifier=segment.tracking_id),
        "finding_type": code(segment.type),
        "finding_category": code(segment.category),
        "finding_sites": sites([segment]),
        "measurements": [*(numeric(each) for each in segment.measurements), *certainty_of(segment)] or None,
        "algorithm_id": algorithm(told.origin),
    }


def _about(image: AnalysedImage, segment: Segment) -> Iterator[str]:
    if segment.score is not None:
        yield certainty(segment.score)
    yield from about_size(image, segment)


def about_size(image: AnalysedImage, segment: Segment) -> Iterator[str]:
    """Say whose millimetres those of a finding are."""
    if segment.measurements and image.spacing == "detector":
        yield AT_DETECTOR
    if not image.spacing and segment.outlined:
        yield UNKNOWN_SIZE


def _library(told: Images) -> hd.sr.ContainerContentItem:
    """List every image, with its modality, size, side and view (PS3.16 TID 1600, 1602)."""
    library = _container(codes.DCM.ImageLibrary)
    group = _container(codes.DCM.ImageLibraryGroup)
    entries = [library_entry(told.header(image), list(_descriptors(image))) for image in told.images]
    group.ContentSequence = hd.sr.ContentSequence(entries)
    library.ContentSequence = hd.sr.ContentSequence([group])
    return library


def _container(name: Any) -> hd.sr.ContainerContentItem:
    return hd.sr.ContainerContentItem(name=name, relationship_type="CONTAINS")


def _descriptors(image: AnalysedImage) -> Iterator[hd.sr.ContentItem]:
    header = image.header
    if modality := _MODALITIES.get(str(header.get("Modality", ""))):
        yield hd.sr.CodeContentItem(codes.DCM.Modality, modality, _ACQUIRED)
    if side := _SIDES.get(str(header.get("ImageLaterality") or "")):
        yield hd.sr.CodeContentItem(codes.DCM.ImageLaterality, code(side), _ACQUIRED)
    for view in (header.get("ViewCodeSequence") or [])[:1]:
        if view.get("CodeValue") and view.get("CodeMeaning"):
            coded = hd.sr.CodedConcept(view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning)
            yield hd.sr.CodeContentItem(codes.DCM.ImageView, coded, _ACQUIRED)
    orientation = header.get("PatientOrientation")
    if orientation and not isinstance(orientation, str) and len(orientation) == 2:
        yield hd.sr.TextContentItem(codes.DCM.PatientOrientationRow, str(orientation[0]), _ACQUIRED)
        yield hd.sr.TextContentItem(codes.DCM.PatientOrientationColumn, str(orientation[1]), _ACQUIRED)
    for name, size in ((codes.DCM.PixelDataRows, header.Rows), (codes.DCM.PixelDataColumns, header.Columns)):
        yield hd.sr.NumContentItem(name, int(size), _PIXELS, relationship_type=_ACQUIRED)
