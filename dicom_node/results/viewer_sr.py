"""Each finding's axes and outline on the image where they were measured: a report that viewers turn into measurements.

The machine's report (`sr.py`) points at segments in three dimensions, which OHIF and its like do not show. This one is
planar: long and short axis each with its own two points on one image (PS3.16 TID 1501), the outline as a region on it
(TID 1410), and points on the image next to them. Cornerstone takes a
group over as an editable measurement when its tracking identifier begins with the name of the tool that draws such
ones, its first number rests on coordinates, and the meanings (not the values) of the codes are those that it knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.sr import MeasurementsAndQualitativeEvaluations as Group
from highdicom.sr import PlanarROIMeasurementsAndQualitativeEvaluations as PlanarGroup
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from skimage.measure import find_contours

from dicom_node.domain.finding import Axes, Landmark, Segment
from dicom_node.results.analysis import Analysis
from dicom_node.results.document import algorithm, comment, document, frame_numbers, qualities, sites
from dicom_node.results.header import LO_LENGTH, code, fit, series_description
from dicom_node.results.library import image_library

TRACKED_BY = "Cornerstone3DTools@^0.1.0:Bidirectional"
LONG_AXIS, SHORT_AXIS = Code("103339001", "SCT", "Long Axis"), Code("103340004", "SCT", "Short Axis")
_ON_IMAGE = (
    0.3  # of the distance between slices: as far as an end may lie from the plane of the image that it is drawn on
)

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Drawing:
    """One finding on one image; points are (column, row) with 0 at the outer corner of the first pixel."""

    image: Dataset
    outline: Points
    long_axis: Points
    short_axis: Points


def build_viewer_sr(analysis: Analysis) -> Dataset | None:
    """Write a Comprehensive SR of planar measurements.

    Parameters
    ----------
    analysis : Analysis
        Each of its segments that has axes gets a group for them and one for its outline, when they lie on one image;
        each of its points gets one.

    Returns
    -------
    pydicom.Dataset or None
        None when there is nothing to draw: no finding, or images that are not axial. The machine's report says it all.
    """
    origin = analysis.origin
    drawn = [(segment, drawing) for segment in analysis.found if (drawing := _draw(analysis, segment)) is not None]
    points = analysis.findings.points
    if not drawn and not points:
        return None
    on = {id(drawing.image) for _, drawing in drawn} | {id(origin.slices[point.slice]) for point in points}
    used = [image for image in origin.slices if id(image) in on]
    groups = [group for segment, drawing in drawn for group in _groups(analysis, segment, drawing)]
    return document(
        origin,
        [*groups, *(_point(analysis, point) for point in points)],
        image_library(origin, used),
        used,
        series_description(origin, "SR for viewers"),
        lacks=analysis.lacks,
        part="viewer_sr",
        position=9,
        sop_class=hd.sr.ComprehensiveSR,
    )


def _draw(analysis: Analysis, segment: Segment) -> _Drawing | None:
    axes = segment.axes
    if axes is None:
        return None
    ends = _indices(analysis, axes)
    slice_index = round(float(ends[0, 0]))
    if np.abs(ends[:, 0] - slice_index).max() > _ON_IMAGE:
        return None
    in_plane = ends[:, :0:-1] + 0.5  # PS3.3 C.18.6.1.1: the centre of the first pixel is 0.5\0.5
    outline = _outline(analysis, segment, slice_index, in_plane[0])
    return _Drawing(analysis.origin.slices[slice_index], outline, in_plane[:2], in_plane[2:])


def _indices(analysis: Analysis, axes: Axes) -> Points:
    """Slice, row and column of the four ends, as fractions of voxels."""
    inverse = np.linalg.inv(analysis.volume.affine)
    ends = np.array([*axes.long_ends_mm, *axes.short_ends_mm])
    return np.asarray(ends @ inverse[:3, :3].T + inverse[:3, 3], np.float64)


def _outline(analysis: Analysis, segment: Segment, slice_index: int, end: Points) -> Points:
    """Follow the edge of the mask on one slice, of its parts the one that the axes belong to: a closed polyline."""
    crop = analysis.crop(segment.output)
    first, row, column = crop.start
    plane = np.pad(crop.voxels[slice_index - first], 1).astype(np.float64)
    found: list[Points] = find_contours(plane, 0.5)  # type: ignore[no-untyped-call]
    parts = [part[:, ::-1] + (column - 0.5, row - 0.5) for part in found]
    return min(parts, key=lambda part: float(np.linalg.norm(part - end, axis=1).min()))


def _groups(analysis: Analysis, segment: Segment, drawing: _Drawing) -> tuple[Group, PlanarGroup]:
    """Axes and outline of one finding. Two groups, since the numbers of a region have no coordinates of their own."""
    source = _source(drawing.image)
    axes = Group(
        tracking_identifier=hd.sr.TrackingIdentifier(segment.tracking_uid, f"{TRACKED_BY}:{segment.tracking_id}"),
        measurements=[
            _axis(LONG_AXIS, segment, drawing.long_axis, source),
            _axis(SHORT_AXIS, segment, drawing.short_axis, source),
        ],
        qualitative_evaluations=qualities(segment.qualities),
        **_finding(analysis, segment),
    )
    axes[0].ContentSequence.append(comment(_label(segment)))
    outline = PlanarGroup(
        tracking_identifier=hd.sr.TrackingIdentifier(segment.tracking_uid, segment.tracking_id),
        referenced_region=hd.sr.ImageRegion("POLYLINE", drawing.outline, source),
        **_finding(analysis, segment),
    )
    return axes, outline


def _point(analysis: Analysis, point: Landmark) -> PlanarGroup:
    """A point on the image next to it; where it lies between two, a comment says how far off."""
    source, (k, row, column) = _source(analysis.origin.slices[point.slice]), point.at
    place = np.array([[column + 0.5, row + 0.5]])
    group = PlanarGroup(
        tracking_identifier=hd.sr.TrackingIdentifier(point.tracking_uid, point.tracking_id),
        referenced_region=hd.sr.ImageRegion("POINT", place, source),
        **_finding(analysis, point),
    )
    group[0].ContentSequence.append(comment(fit(f"{point.label} (AI)", LO_LENGTH)))
    if abs(k - point.slice) > _ON_IMAGE:
        off_mm = abs(k - point.slice) * analysis.volume.spacing_mm[0]
        group[0].ContentSequence.append(comment(f"It lies {off_mm:.1f} mm from this image."))
    return group


def _source(image: Dataset) -> hd.sr.SourceImageForRegion:
    return hd.sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID, frame_numbers(image))


def _finding(analysis: Analysis, segment: Segment | Landmark) -> dict[str, Any]:
    return {
        "finding_type": code(segment.type),
        "finding_category": code(segment.category),
        "finding_sites": sites([segment]),
        "algorithm_id": algorithm(analysis.origin),
    }


def _axis(name: Code, segment: Segment, ends: Points, source: hd.sr.SourceImageForRegion) -> hd.sr.Measurement:
    """Give the number of the machine's report, with the points that it was measured between."""
    measured = next(each for each in segment.measurements if each.name.value == name.value)
    assert measured.value is not None  # it has ends
    return hd.sr.Measurement(
        name=name,
        value=measured.value,
        unit=code(measured.unit),
        referenced_coordinates=[hd.sr.CoordinatesForMeasurement("POLYLINE", ends, source)],
    )


def _label(segment: Segment) -> str:
    """What a viewer writes beside it: ``Nodule 1 (AI, certainty 93%)``."""
    certainty = "" if segment.score is None else f", certainty {segment.score:.0%}"
    return fit(f"{segment.label} (AI{certainty})", LO_LENGTH)
