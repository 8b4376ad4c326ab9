"""Findings as a BINARY segmentation on the grid of the source (PS3.3 A.51), and the proof that it is one."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.domain.finding import Findings, Segment
from dicom_node.errors import ResultError
from dicom_node.results.header import (
    LO_LENGTH,
    RESEARCH_ONLY,
    Origin,
    code,
    complete,
    fit,
    instance_attributes,
    series_description,
)

Mask = Callable[[str], NDArray[np.bool_]]


def build_seg(origin: Origin, findings: Findings, mask: Mask) -> Dataset | None:
    """Write the segments that are present; empty ones are left out, since viewers stumble over them.

    Parameters
    ----------
    origin : Origin
        The job, the model and the source series.
    findings : Findings
        Segments, numbered from 1 where they have voxels.
    mask : callable
        Gives the voxels of one output: bool, shape (slices, rows, columns), on the grid of `origin.slices`.

    Returns
    -------
    pydicom.Dataset or None
        None when nothing was found: a segmentation without segments does not exist, the report says it alone.

    Raises
    ------
    ResultError
        If a mask is not on the grid of the source or does not hold what was measured.
    """
    if findings.is_negative:
        return None
    seg = hd.seg.Segmentation(
        source_images=origin.slices,
        pixel_array=_pixels(origin, findings.present, mask),
        segmentation_type="BINARY",
        segment_descriptions=[_describe(origin, segment) for segment in findings.present],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label=re.sub(r"[^A-Z0-9_ ]", "_", origin.card.name.upper())[:16].strip() or "AI",
        content_description=fit(f"{origin.card.title} {RESEARCH_ONLY}", LO_LENGTH),
        omit_empty_frames=True,
        **instance_attributes(origin, "seg", 1, series_description(origin, "SEG")),
    )
    seg.ContentCreatorName = ""  # type 2; nobody drew this
    seg.DerivationDescription = fit(
        f"Segmented by {origin.card.name} {origin.algorithm_version}. {origin.statement}", 1024
    )
    for keyword in ("BodyPartExamined", "Laterality"):
        if origin.patient.get(keyword):
            setattr(seg, keyword, origin.patient[keyword].value)
    _fix_dimension_uid(seg, origin.uid("seg/dimensions"))
    complete(seg, origin)
    return seg


def prove_seg(data: bytes, origin: Origin, findings: Findings, mask: Mask) -> None:
    """Read a written segmentation back, frame by frame, without the library that wrote it.

    Parameters
    ----------
    data : bytes
        The file as it will be stored and sent.
    origin, findings, mask
        What it was built from.

    Raises
    ------
    ResultError
        If a frame does not name the slice it lies on, lies elsewhere, or any voxel differs from the mask.
    """
    seg = dcmread(BytesIO(data))
    frame_of = _frames(seg)
    packed = np.frombuffer(seg.PixelData, np.uint8)
    size = int(seg.Rows) * int(seg.Columns)
    for segment in findings.present:
        voxels = mask(segment.output)
        for header, expected in zip(origin.slices, voxels, strict=True):
            frame = frame_of.pop((segment.number, str(header.SOPInstanceUID)), None)
            if frame is None:
                if expected.any():
                    raise ResultError(f"segment {segment.number} has no frame for slice {header.SOPInstanceUID}")
                continue
            index, position = frame
            if position != [float(x) for x in header.ImagePositionPatient]:
                raise ResultError(
                    f"frame {index + 1} of the segmentation is not where slice {header.SOPInstanceUID} is"
                )
            if not np.array_equal(_unpack(packed, index * size, size), expected.ravel()):
                raise ResultError(f"frame {index + 1} of the segmentation differs from what the model marked")
    if frame_of:
        raise ResultError(f"{len(frame_of)} frames of the segmentation belong to no slice or segment")


def _pixels(origin: Origin, segments: tuple[Segment, ...], mask: Mask) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """One label map while segments do not overlap, one channel for each when they do."""
    shape = (len(origin.slices), int(origin.slices[0].Rows), int(origin.slices[0].Columns))
    labels = np.zeros(shape, np.uint8 if len(segments) < 256 else np.uint16)
    for segment in segments:
        voxels = mask(segment.output)
        if voxels.shape != shape:
            raise ResultError(f"{segment.output!r} has the grid {voxels.shape}, its source {shape}")
        if np.count_nonzero(voxels) != segment.voxels:
            raise ResultError(f"{segment.output!r} is not the mask that was measured")
        if labels[voxels].any():
            return np.stack([mask(each.output) for each in segments], axis=-1).astype(np.uint8)
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


def _fix_dimension_uid(seg: Dataset, uid: str) -> None:
    """Replace the Dimension Organization UID, which highdicom draws by lot: a retry has to write the same one."""
    seg.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for item in seg.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid


def _frames(seg: Dataset) -> dict[tuple[int, str], tuple[int, list[float]]]:
    """(segment number, SOP Instance UID of the slice) -> (index of the frame, its position in mm)."""
    frames: dict[tuple[int, str], tuple[int, list[float]]] = {}
    shared = seg.SharedFunctionalGroupsSequence[0]
    for index, item in enumerate(seg.PerFrameFunctionalGroupsSequence):
        holder = item if "SegmentIdentificationSequence" in item else shared
        number = int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        sources = item.DerivationImageSequence[0].SourceImageSequence
        position = [float(x) for x in item.PlanePositionSequence[0].ImagePositionPatient]
        key = number, str(sources[0].ReferencedSOPInstanceUID)
        if len(sources) != 1 or key in frames:
            raise ResultError(f"frame {index + 1} of the segmentation does not belong to one slice and segment")
        frames[key] = index, position
    return frames


def _unpack(packed: NDArray[np.uint8], start: int, count: int) -> NDArray[np.bool_]:
    """Take the bits of one frame: frames follow each other unpadded (PS3.5 8.1.1), one may start inside a byte."""
    first = start // 8
    bits = np.unpackbits(packed[first : (start + count + 7) // 8], bitorder="little")
    return bits[start - 8 * first :][:count].astype(np.bool_)
