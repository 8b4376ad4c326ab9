"""Findings as a BINARY segmentation on the grid of the source (PS3.3 A.51)."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.domain.finding import Segment
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.header import (
    LO_LENGTH,
    RESEARCH_ONLY,
    Origin,
    code,
    complete,
    content_label,
    copy_body_part,
    fit,
    fix_dimension_uid,
    instance_attributes,
    series_description,
)


def build_seg(analysis: Analysis) -> Dataset | None:
    """Write the segments that are present; empty ones are left out, since viewers stumble over them.

    Parameters
    ----------
    analysis : Analysis
        Its segments are numbered from 1 where they have voxels.

    Returns
    -------
    pydicom.Dataset or None
        None when nothing was found: a segmentation without segments does not exist, the report says it alone.

    Raises
    ------
    ResultError
        If a mask is not on the grid of the source or does not hold what was measured.
    """
    origin, segments = analysis.origin, analysis.findings.present
    if not segments:
        return None
    seg = hd.seg.Segmentation(
        source_images=origin.slices,
        pixel_array=_pixels(analysis),
        segmentation_type="BINARY",
        segment_descriptions=[_describe(origin, segment) for segment in segments],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label=content_label(origin),
        content_description=fit(f"{origin.card.title} {RESEARCH_ONLY}", LO_LENGTH),
        omit_empty_frames=True,
        **instance_attributes(origin, "seg", 1, series_description(origin, "SEG")),
    )
    seg.ContentCreatorName = ""  # type 2; nobody drew this
    seg.DerivationDescription = fit(
        f"Segmented by {origin.card.name} {origin.algorithm_version}. {origin.statement}", 1024
    )
    copy_body_part(seg, origin)
    fix_dimension_uid(seg, origin.uid("seg/dimensions"))
    complete(seg, origin)
    return seg


def _pixels(analysis: Analysis) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """One label map while segments do not overlap, one channel for each when they do."""
    segments = analysis.findings.present
    labels = np.zeros(analysis.shape, np.uint8 if len(segments) < 256 else np.uint16)
    for segment in segments:
        voxels = analysis.mask(segment.output)
        if np.count_nonzero(voxels) != segment.voxels:
            raise ResultError(f"{segment.output!r} is not the mask that was measured")
        if labels[voxels].any():
            return np.stack([analysis.mask(each.output) for each in segments], axis=-1).astype(np.uint8)
        labels[voxels] = segment.number
    return labels


def _describe(origin: Origin, segment: Segment) -> hd.seg.SegmentDescription:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=fit(origin.card.name, LO_LENGTH),
        version=origin.algorithm_version,
        source=fit(origin.card.manufacturer, LO_LENGTH),
        family=codes.cid7162.ArtificialIntelligence,
        parameters={"weights_sha256": origin.card.weights_digest, "bundle_sha256": origin.card.digest},
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
