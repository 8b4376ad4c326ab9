"""What was outlined in a single image, as a segmentation of that image alone (PS3.3 A.51).

It has no frame of reference, as its source has none: its derivation image says which pixels are meant, one for one.
"""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from dicom_node.domain.model import OutputKind
from dicom_node.results.header import (
    LO_LENGTH,
    RESEARCH_ONLY,
    complete,
    content_label,
    fit,
    fix_dimension_uid,
    instance_attributes,
    series_description,
)
from dicom_node.results.seg import describe
from dicom_node.results.single.analysed import AnalysedImage, Images


def build_image_seg(told: Images, image: AnalysedImage) -> Dataset | None:
    """Write the regions of one image; None where nothing was outlined.

    Each image has an object of its own, all in one series: they differ in size.
    """
    regions = image.present
    if not regions:
        return None
    origin = told.origin
    part = f"{OutputKind.SEG.value}/{image.number}"
    source = told.header(image)
    seg = hd.seg.Segmentation(
        source_images=[_of_one_frame(source)],
        pixel_array=np.stack([region.mask for region in regions], axis=-1)[None].astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[describe(origin, region.segment) for region in regions],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label=content_label(origin),
        content_description=fit(f"{origin.card.title} {RESEARCH_ONLY}", LO_LENGTH),
        **instance_attributes(origin, part, 1, series_description(origin, "SEG")),
    )
    seg.SeriesInstanceUID = origin.uid("seg/series")
    seg.InstanceNumber = image.number
    for element in seg.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = source.SOPClassUID
    seg.ContentCreatorName = ""  # type 2; nobody drew this
    seg.DerivationDescription = fit(
        f"Segmented by {origin.card.name} {origin.algorithm_version}. {origin.statement}", 1024
    )
    if part_of_body := image.header.get("BodyPartExamined"):
        seg.BodyPartExamined = part_of_body
    seg.PatientOrientation = image.header.get("PatientOrientation") or ""
    fix_dimension_uid(seg, origin.uid(f"{part}/dimensions"))
    complete(seg, origin)
    return seg


def _of_one_frame(header: Dataset) -> Dataset:
    """Give the header a class of single frames: highdicom asks those that may hold more about all of them."""
    copy = Dataset()
    copy.update(header)
    copy.add_new("SOPClassUID", "UI", ComputedRadiographyImageStorage)  # assigning would change what both share
    return copy


def frame_of(seg: Dataset, number: int) -> int:
    """Which frame, from 1, shows a segment; what all frames share, as the only one does, stands apart."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    for frame, item in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1):
        named = item if "SegmentIdentificationSequence" in item else shared
        if named.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            return frame
    raise KeyError(number)
