"""The drawings of a report for viewers, read back from its own bytes without the library that wrote them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy.ndimage import binary_fill_holes, label
from skimage.draw import polygon2mask

from dicom_node.domain.finding import Landmark, Point, Segment
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.proof import MM, VOXELS, concept, measured, named_by, slices_by_name

_IMAGE_REGION, _LONG_AXIS, _SHORT_AXIS = "111030", "103339001", "103340004"
_ROUNDED_MM = 0.15  # what a coordinate of 32 bits and a length in tenths of a millimetre may be off

Points = NDArray[np.float64]


def prove_viewer_sr(data: bytes, analysis: Analysis) -> None:
    """Read the points of a report back and map them into the patient, by the header of the image that they lie on.

    Parameters
    ----------
    data : bytes
        The file as it will be stored and sent.
    analysis : Analysis
        What it was built from.

    Raises
    ------
    ResultError
        If an axis has not the ends that were measured, or not the length that is given for it, if an outline does not
        enclose what the model marked on its image, or a point is not where the model named it.
    """
    segments = {segment.tracking_uid: segment for segment in analysis.findings.present}
    named = {point.tracking_uid: point for point in analysis.findings.points}
    slices = slices_by_name(analysis)
    for uid, item in measured(dcmread(BytesIO(data))):
        if item.ValueType not in ("NUM", "SCOORD"):
            continue
        segment, points = segments.get(uid), np.array(_scoord(item).GraphicData, float).reshape(-1, 2) - 0.5
        k = slices.get(named_by(_scoord(item).ContentSequence[0].ReferencedSOPSequence[0]))
        if k is not None and uid in named:
            _prove_point(_in_patient(points, analysis.origin.slices[k]), named[uid], analysis, k)
            continue
        if segment is None or k is None:
            raise ResultError("the report for viewers draws something that was not found, or on no image of the source")
        if concept(item) == _IMAGE_REGION:
            _prove_outline(points, analysis, segment, k)
        else:
            _prove_axis(_in_patient(points, analysis.origin.slices[k]), item, segment)


def _scoord(item: Dataset) -> Dataset:
    found: Dataset = item if item.ValueType == "SCOORD" else item.ContentSequence[0]
    return found


def _in_patient(points: Points, header: Dataset) -> Points:
    """PS3.3 C.7.6.2.1.1: LPS in mm of points (column, row), counted from the centre of the first pixel."""
    cosines = np.array(header.ImageOrientationPatient, float)
    down, across = (float(mm) for mm in header.PixelSpacing)
    in_plane = points[:, :1] * cosines[:3] * across + points[:, 1:] * cosines[3:] * down
    return np.asarray(in_plane + np.array(header.ImagePositionPatient, float), np.float64)


def _prove_axis(ends: Points, item: Dataset, segment: Segment) -> None:
    assert segment.axes is not None
    expected: dict[str, tuple[Point, Point]] = {
        _LONG_AXIS: segment.axes.long_ends_mm,
        _SHORT_AXIS: segment.axes.short_ends_mm,
    }
    given = float(item.MeasuredValueSequence[0].NumericValue)
    if np.abs(ends - np.array(expected[concept(item)])).max() > _ROUNDED_MM:
        raise ResultError(f"the report for viewers draws an axis of {segment.label} elsewhere than it was measured")
    if abs(float(np.linalg.norm(ends[1] - ends[0])) - given) > _ROUNDED_MM:
        raise ResultError(f"the report for viewers draws an axis of {segment.label} that is not {given} mm long")


def _prove_point(places: Points, point: Landmark, analysis: Analysis, k: int) -> None:
    """Compare a point on an image with its place in the patient, as far from the image as the model named it."""
    off_plane = np.array(analysis.volume.affine[:3, 0]) * (point.at[0] - k)
    tolerance_mm = max(MM, VOXELS * max(analysis.volume.spacing_mm))
    off = np.linalg.norm(places + off_plane - np.array(point.place_mm), axis=1)
    if len(places) != 1 or k != point.slice or off[0] > tolerance_mm:
        raise ResultError(f"the report for viewers draws {point.label} elsewhere than the model named it")


def _prove_outline(points: Points, analysis: Analysis, segment: Segment, k: int) -> None:
    """Compare what an outline encloses with that part of the mask which it goes round."""
    marked = analysis.mask(segment.output)[k]
    parts, _ = label(marked)  # parts that touch at a corner only are two, as for the outline
    inside = polygon2mask(marked.shape, points[:, ::-1])  # type: ignore[no-untyped-call]
    part = np.bincount(parts[inside & marked], minlength=1).argmax() if (inside & marked).any() else 0
    if not part or not np.array_equal(inside, binary_fill_holes(parts == part)):
        raise ResultError(f"the report for viewers does not outline {segment.label} as the model marked it")
