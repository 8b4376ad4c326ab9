"""Points of a report, read back from its own bytes: each lies in the images, at the voxel that the model named."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from dicom_node.domain.finding import Landmark
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.proof import MM, VOXELS, measured

_HALF = 0.5


def prove_landmarks(data: bytes, analysis: Analysis) -> None:
    """Map each point of a report onto the slices, by their own headers.

    Parameters
    ----------
    data : bytes
        The file as it will be stored and sent.
    analysis : Analysis
        What it was built from.

    Raises
    ------
    ResultError
        If it is in another frame of reference, outside of the images or at another voxel than the model named, or if
        not every point of the model is there, and once.
    """
    left = {point.tracking_uid: point for point in analysis.findings.points}
    for uid, item in measured(dcmread(BytesIO(data))):
        if item.ValueType != "SCOORD3D":
            continue
        point = left.pop(uid, None)
        if point is None or str(item.GraphicType) != "POINT" or len(item.GraphicData) != 3:
            raise ResultError("the report draws something in the patient that is no point of the model")
        if str(item.ReferencedFrameOfReferenceUID) != str(analysis.origin.slices[0].FrameOfReferenceUID):
            raise ResultError(f"{point.label} has another frame of reference than its source")
        _prove_place(np.array(item.GraphicData, float), point, analysis)
    if left:
        raise ResultError(f"the report lacks {len(left)} of the points that the model named")


def _prove_place(place_mm: NDArray[np.float64], point: Landmark, analysis: Analysis) -> None:
    spacing = np.array(analysis.volume.spacing_mm)
    at = np.array(_index(place_mm, point.slice, analysis))
    tolerance = np.maximum(VOXELS, MM / spacing)
    if (np.abs(at - point.at) > tolerance).any():
        raise ResultError(f"{point.label} lies elsewhere in the patient than the model named it")
    if (at < -_HALF - tolerance).any() or (at > np.array(analysis.shape) - _HALF + tolerance).any():
        raise ResultError(f"{point.label} lies outside of the images")


def _index(place_mm: NDArray[np.float64], k: int, analysis: Analysis) -> tuple[float, float, float]:
    """Slice, row and column of a place, by the header of the slice next to it (PS3.3 C.7.6.2.1.1)."""
    header = analysis.origin.slices[k]
    cosines = np.array(header.ImageOrientationPatient, float)
    down, across = (float(mm) for mm in header.PixelSpacing)
    offset = place_mm - np.array(header.ImagePositionPatient, float)
    step = np.array(analysis.volume.affine[:3, 0])
    normal = np.cross(cosines[:3], cosines[3:])
    off_plane = float(offset @ normal) / float(step @ normal)
    in_plane = offset - off_plane * step
    return k + off_plane, float(in_plane @ cosines[3:]) / down, float(in_plane @ cosines[:3]) / across
