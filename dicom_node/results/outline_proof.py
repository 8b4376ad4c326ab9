"""Outlines read back from their own bytes: what they enclose has to be what the model marked, voxel by voxel."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.contours import filled
from dicom_node.results.graphics import layer_name
from dicom_node.results.proof import MM, VOXELS, named_by, named_slice, slices_by_name

_OUTLINE = ("PIXEL", "POLYLINE")


def prove_rtstruct(data: bytes, analysis: Analysis) -> None:
    """Read contours back: mapped onto the grid of the source, they enclose the centres of the voxels that were marked.

    No two of a slice may overlap, so that adding them up and taking what lies in an odd number of them are the same.
    """
    structures = dcmread(BytesIO(data))
    slice_of = slices_by_name(analysis)
    frame_uid = str(analysis.origin.slices[0].FrameOfReferenceUID)
    named = [structures.ReferencedFrameOfReferenceSequence[0], *structures.StructureSetROISequence]
    used = {str(item.get("ReferencedFrameOfReferenceUID", item.get("FrameOfReferenceUID"))) for item in named}
    if used != {frame_uid}:
        raise ResultError("the contours have another frame of reference than their source")
    drawn = {int(item.ReferencedROINumber): item.get("ContourSequence", ()) for item in structures.ROIContourSequence}
    for segment in analysis.findings.present:
        found = np.zeros(analysis.shape, np.uint8)
        for contour in drawn.pop(segment.number, ()):
            k = slice_of.get(named_by(contour.ContourImageSequence[0]))
            if k is None:
                raise ResultError(f"a contour of ROI {segment.number} belongs to no slice")
            found[k] += filled(_on_slice(contour, analysis, k), analysis.shape[1:])
        for k, expected in enumerate(analysis.mask(segment.output)):
            if not np.array_equal(found[k], expected):
                where = f"slice {named_slice(analysis, k)}"
                raise ResultError(f"the contours of ROI {segment.number} on {where} do not enclose what was marked")
    if drawn:
        raise ResultError(f"{len(drawn)} ROIs belong to no segment")


def _on_slice(contour: Dataset, analysis: Analysis, k: int) -> NDArray[np.float64]:
    """Rows and columns of a contour's points, which all have to lie in the plane of slice `k`."""
    text = contour.get_item("ContourData").value
    points = np.fromstring(text.decode("ascii"), sep="\\").reshape(-1, 3)
    inverse = np.linalg.inv(analysis.volume.affine)
    found = points @ inverse[:3, :3].T + inverse[:3, 3]
    if (np.abs(found[:, 0] - k) > max(VOXELS, MM / analysis.volume.spacing_mm[0])).any():
        raise ResultError(f"a contour on slice {named_slice(analysis, k)} leaves its plane")
    return np.asarray(found[:, 1:])


def prove_gsps(data: bytes, analysis: Analysis) -> None:
    """Read graphic annotations back: on each image, the outlines of a finding enclose what was marked of it."""
    state = dcmread(BytesIO(data))
    slice_of = slices_by_name(analysis)
    number_of = {layer_name(segment): segment.number for segment in analysis.found}
    found = {segment.number: np.zeros(analysis.shape, np.bool_) for segment in analysis.found}
    for annotation in state.GraphicAnnotationSequence:
        for graphic in annotation.get("GraphicObjectSequence", ()):
            images = annotation.get("ReferencedImageSequence", ())
            k = slice_of.get(named_by(images[0])) if len(images) == 1 else None
            number = number_of.get(str(annotation.GraphicLayer))
            if k is None or number is None or (graphic.GraphicAnnotationUnits, graphic.GraphicType) != _OUTLINE:
                raise ResultError("a graphic annotation is no outline of one finding on one slice")
            points = np.array(graphic.GraphicData, float).reshape(-1, 2)[:, ::-1] - 0.5
            if not np.array_equal(points[0], points[-1]):
                raise ResultError(f"an outline on slice {named_slice(analysis, k)} is not closed")
            found[number][k] ^= filled(points[:-1], analysis.shape[1:])
    for segment in analysis.found:
        for k, expected in enumerate(analysis.mask(segment.output)):
            if not np.array_equal(found[segment.number][k], expected):
                where = f"slice {named_slice(analysis, k)}"
                raise ResultError(f"the outlines of {segment.label!r} on {where} do not enclose what was marked")
