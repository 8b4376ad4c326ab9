"""Findings as a segmentation on the grid of the source (PS3.3 A.51), in each of its encodings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicom_node.domain.encoding import Encoding, encoded
from dicom_node.domain.finding import Segment
from dicom_node.domain.model import OutputKind
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis, Crop
from dicom_node.results.frames import Framed, Place, bit_pixels, functional_groups, order_of, rle_pixels
from dicom_node.results.header import (
    LO_LENGTH,
    RESEARCH_ONLY,
    Origin,
    as_single,
    code,
    complete,
    content_label,
    copy_body_part,
    fit,
    fix_dimension_uid,
    instance_attributes,
    series_description,
    whole_references,
)


def build_seg(analysis: Analysis) -> Framed | None:
    """Write the segments that are present as BINARY; empty ones are left out, since viewers stumble over them.

    Parameters
    ----------
    analysis : Analysis
        Its segments are numbered from 1 where they have voxels.

    Returns
    -------
    Framed or None
        None when nothing was found: a segmentation without segments does not exist, the report says it alone.

    Raises
    ------
    ResultError
        If a mask is not on the grid of the source or does not hold what was measured.
    """
    segments = analysis.findings.present
    if not segments:
        return None
    places: list[Place] = []
    pixels = bit_pixels(_planes(analysis, places))
    head = _head(analysis, Encoding.BINARY)
    head.SegmentsOverlap = "YES" if analysis.numbered().overlap else "NO"
    return _framed(head, analysis, places, pixels)


def build_labelmap(analysis: Analysis) -> Framed:
    """Write the segments that are present as a label map (PS3.3 A.51, Label Map Segmentation Storage).

    Raises
    ------
    NotEncodable
        If two segments overlap: one number for each pixel cannot say that.
    """
    numbered = analysis.numbered()
    if numbered.overlap:
        raise NotEncodable(f"{numbered.overlap[0]!r} and {numbered.overlap[1]!r} overlap")
    labels = numbered.labels
    order = order_of(analysis.origin.slices)
    places = [Place(k, 0) for k in sorted(np.flatnonzero(labels.any(axis=(1, 2))).tolist(), key=order)]
    head = _head(analysis, Encoding.LABELMAP)
    return _framed(head, analysis, places, rle_pixels(labels[place.slice] for place in places))


def build_fractional(analysis: Analysis) -> Framed:
    """Write how likely each voxel belongs to each segment that is present: 0 to 255 for 0 to 1.

    Raises
    ------
    NotEncodable
        If the model says that of some segments only, or of none.
    """
    likely = {segment.number: analysis.marks.probability(segment.output) for segment in analysis.findings.present}
    without = [segment.label for segment in analysis.findings.present if likely[segment.number] is None]
    if without:
        raise NotEncodable(f"the model gives no probabilities of {', '.join(map(repr, without[:3]))}")
    order = order_of(analysis.origin.slices)
    found = {n: array for n, array in likely.items() if array is not None}
    shown = {n: sorted(np.flatnonzero(a.any(axis=(1, 2))).tolist(), key=order) for n, a in found.items()}
    places = [Place(k, n) for n, slices in shown.items() for k in slices]
    planes = (found[place.segment][place.slice] for place in places)
    head = _head(analysis, Encoding.FRACTIONAL)
    head.SegmentsOverlap = "UNDEFINED"
    return _framed(head, analysis, places, rle_pixels(planes))


ENCODERS: Mapping[Encoding, Callable[[Analysis], Framed | None]] = {
    Encoding.BINARY: build_seg,
    Encoding.LABELMAP: build_labelmap,
    Encoding.FRACTIONAL: build_fractional,
}


class NotEncodable(Exception):
    """These segments cannot be written in this encoding; the text says why."""


def _head(analysis: Analysis, encoding: Encoding) -> Dataset:
    """Have highdicom write everything but the frames, from one slice; what tells of the others is put in."""
    origin, segments = analysis.origin, analysis.findings.present
    part = encoded(OutputKind.SEG, encoding).value
    what = "SEG" if encoding is Encoding.BINARY else f"SEG {encoding.value}"
    pixels = np.zeros((1, *analysis.shape[1:]), np.uint8)
    pixels[0, 0, 0] = segments[0].number
    seg = hd.seg.Segmentation(
        source_images=as_single(origin.slices[:1]),
        pixel_array=pixels,
        segmentation_type=encoding.name,
        segment_descriptions=[describe(origin, segment) for segment in segments],
        transfer_syntax_uid=ExplicitVRLittleEndian if encoding is Encoding.BINARY else RLELossless,
        content_label=content_label(origin),
        content_description=fit(f"{origin.card.title} {RESEARCH_ONLY}", LO_LENGTH),
        omit_empty_frames=True,
        **instance_attributes(origin, part, 1, series_description(origin, what)),
    )
    seg.ContentCreatorName = ""  # type 2; nobody drew this
    seg.DerivationDescription = fit(
        f"Segmented by {origin.card.name} {origin.algorithm_version}. {origin.statement}", 1024
    )
    copy_body_part(seg, origin)
    fix_dimension_uid(seg, origin.uid(f"{part}/dimensions"))
    complete(seg, origin)
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence = whole_references(origin.slices)
    seg.ReferencedSeriesSequence.extend(_other_series(origin))  # behind the one that it lies on: viewers take the first
    seg.SourceImageSequence = whole_references([*origin.slices, *origin.others])
    # where there is one segment, highdicom says it here; each frame says its own (PS3.3 C.7.6.16.1.1: never both)
    seg.SharedFunctionalGroupsSequence[0].pop("SegmentIdentificationSequence", None)
    for keyword in ("PerFrameFunctionalGroupsSequence", "PixelData", "DimensionOrganizationType"):
        if keyword in seg:
            delattr(seg, keyword)
    return seg


def _other_series(origin: Origin) -> list[Dataset]:
    """Name the further series that the model worked on (PS3.3 C.12.1.2)."""
    items = []
    for uid in dict.fromkeys(image.SeriesInstanceUID for image in origin.others):
        item = Dataset()
        item.SeriesInstanceUID = uid
        images = [image for image in origin.others if image.SeriesInstanceUID == uid]
        item.ReferencedInstanceSequence = whole_references(images)
        items.append(item)
    return items


def _framed(head: Dataset, analysis: Analysis, places: Sequence[Place], pixels: bytes) -> Framed:
    head.NumberOfFrames = len(places)
    return Framed(head, functional_groups(places, analysis.origin.slices) + pixels)


def _planes(analysis: Analysis, places: list[Place]) -> Iterator[NDArray[np.bool_]]:
    """Yield each slice that a segment has voxels on, segment after segment, and note its place."""
    order = order_of(analysis.origin.slices)
    for segment in analysis.findings.present:
        crop = _crop(analysis, segment)
        start, rows, columns = crop.start[0], *crop.box[1:]
        for k in sorted((np.flatnonzero(crop.voxels.any(axis=(1, 2))) + start).tolist(), key=order):
            plane = np.zeros(analysis.shape[1:], np.bool_)
            plane[rows, columns] = crop.voxels[k - start]
            places.append(Place(k, segment.number))
            yield plane


def _crop(analysis: Analysis, segment: Segment) -> Crop:
    crop = analysis.crop(segment.output)
    if np.count_nonzero(crop.voxels) != segment.voxels:
        raise ResultError(f"{segment.output!r} is not the mask that was measured")
    return crop


def describe(origin: Origin, segment: Segment) -> hd.seg.SegmentDescription:
    """Say what a segment is, and which model made it."""
    algorithm = hd.AlgorithmIdentificationSequence(
        name=fit(origin.card.name, LO_LENGTH),
        version=origin.algorithm_version,
        source=fit(origin.card.manufacturer, LO_LENGTH),
        family=codes.cid7162.ArtificialIntelligence,
        parameters=origin.known_digests,
    )
    item = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=fit(segment.label, LO_LENGTH),
        segmented_property_category=code(segment.category),
        segmented_property_type=code(segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_id=segment.tracking_id,
        tracking_uid=segment.tracking_uid,
        anatomic_regions=[code(segment.region)] if segment.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*segment.color_rgb),
    )
    item.SegmentDescription = origin.statement
    if segment.laterality is not None:  # highdicom has no argument for it
        side = [hd.sr.CodedConcept.from_code(code(segment.laterality))]
        if segment.region is not None:
            item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = side
        else:
            item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = side
    return item
