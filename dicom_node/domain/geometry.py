"""Whether slices form one regular grid: positions along the normal, tolerances, and the words for what is wrong.

Positions are DICOM patient space (LPS, mm). Nothing is repaired: a series in doubt is refused with the reason.

What is tolerated is rounding, not physics. Orientations may differ by 0.001 in a direction cosine, pixel spacings by
one in ten thousand (0.04 mm across a whole CT slice). A step between slices may differ from the usual one by 2 %, or
by 0.1 mm where that is more (positions written with one decimal), never by more than a quarter of the step; no slice
may lie further than that from its place on the grid, so that small steps cannot add up. Sideways, a slice may lie off
the straight line by 0.1 mm or a quarter of a pixel, whichever is more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low

from dicom_node.errors import GeometryError, MissingSlices

Vector = tuple[float, ...]

FEWEST_SLICES = 3  # two show a distance, not that it is regular
SAME_PLACE_MM = 0.01
TILT_DEGREES = 0.5
_ORIENTATION = 1e-3
_PIXEL_SPACING = 1e-4
_STEP = 0.02
_STEP_MM = 0.1
_GAP = 1.5
_SIDEWAYS_MM = 0.1
_ARITHMETIC_MM = 1e-6  # 0.7 - 0.6 is not 0.1


@dataclass(frozen=True, slots=True)
class Plane:
    """Where one slice lies (Image Plane Module, PS3.3 C.7.6.2).

    Attributes
    ----------
    position : 3 floats
        Centre of the first voxel, LPS in mm.
    orientation : 6 floats
        Direction of a row (towards growing column index), then of a column.
    spacing_mm : 2 floats
        Between rows, then between columns.
    size : 2 ints
        Rows, columns.
    """

    uid: str
    position: Vector
    orientation: Vector
    spacing_mm: Vector
    size: tuple[int, int]

    @property
    def normal(self) -> Vector:
        """Unit vector across the plane: row direction x column direction."""
        return _cross(self.orientation[:3], self.orientation[3:])


def sorted_along_normal(planes: Sequence[Plane]) -> list[Plane]:
    """Slices by ascending position along the normal of the first."""
    normal = planes[0].normal
    return sorted(planes, key=lambda plane: (_dot(plane.position, normal), plane.uid))


def positions_mm(ordered: Sequence[Plane]) -> list[float]:
    """Place of each slice along the normal of the first, in mm."""
    normal = ordered[0].normal
    return [_dot(plane.position, normal) for plane in ordered]


def usual_step_mm(ordered: Sequence[Plane]) -> float | None:
    """Return the step that most neighbours keep, in mm; None when no two slices lie apart."""
    steps = [step for step in _steps(positions_mm(ordered)) if step > SAME_PLACE_MM]
    return median_low(steps) if steps else None


def check_possible(planes: Sequence[Plane]) -> None:
    """Refuse planes that cannot be: no pixel size, or an orientation that is none.

    Raises
    ------
    GeometryError
        With the values.
    """
    for plane in planes:
        row, column = plane.orientation[:3], plane.orientation[3:]
        if abs(_dot(row, column)) > _ORIENTATION or any(abs(_length(v) - 1) > _ORIENTATION for v in (row, column)):
            raise GeometryError(
                f"ImageOrientationPatient {_list(plane.orientation)} is not two perpendicular directions of length 1."
            )
        if min(plane.spacing_mm) <= 0 or min(plane.size) <= 0:
            raise GeometryError(f"PixelSpacing {_list(plane.spacing_mm)} or the size {plane.size} cannot be.")


def check_alike(planes: Sequence[Plane]) -> None:
    """Refuse planes that differ in size, orientation or pixel spacing.

    Raises
    ------
    GeometryError
        With the counts of what differs.
    """
    _one_group(planes, "sizes", lambda p: p.size, lambda p: f"{p.size[0]} x {p.size[1]} pixels", 0.0)
    _one_group(planes, "orientations", lambda p: p.orientation, lambda p: _list(p.orientation), _ORIENTATION)
    spacing = _PIXEL_SPACING * max(planes[0].spacing_mm)
    _one_group(planes, "pixel spacings", lambda p: p.spacing_mm, lambda p: f"{_list(p.spacing_mm)} mm", spacing)


def places(ordered: Sequence[Plane]) -> list[list[Plane]]:
    """Group slices by their places."""
    at_mm = positions_mm(ordered)
    groups = [[ordered[0]]]
    for before, place, plane in zip(at_mm, at_mm[1:], ordered[1:], strict=False):
        if place - before < SAME_PLACE_MM:
            groups[-1].append(plane)
        else:
            groups.append([plane])
    return groups


def shared_places(ordered: Sequence[Plane]) -> list[list[Plane]]:
    """Group the slices that share a place; those that lie alone are left out."""
    return [group for group in places(ordered) if len(group) > 1]


def check_straight(ordered: Sequence[Plane], tilt_degrees: float | None) -> None:
    """Refuse slices that shift sideways: a tilted gantry, told or not, or displaced slices.

    Parameters
    ----------
    tilt_degrees : float, optional
        Gantry/Detector Tilt (0018,1120), where the slices are as the scanner made them and say so.

    Raises
    ------
    GeometryError
        With the shift or the angle.
    """
    first, normal, places = ordered[0], ordered[0].normal, positions_mm(ordered)
    offsets = [
        _minus(_minus(plane.position, first.position), _times(normal, place - places[0]))
        for plane, place in zip(ordered, places, strict=True)
    ]
    most = max(map(_length, offsets))
    allowed = max(_SIDEWAYS_MM, min(first.spacing_mm) / 4)
    length = places[-1] - places[0]
    if most > allowed:
        line = [_times(offsets[-1], (place - places[0]) / length) for place in places]
        if max(_length(_minus(offset, on)) for offset, on in zip(offsets, line, strict=True)) > allowed:
            raise GeometryError(f"The slices are displaced against each other within their plane, by up to {mm(most)}.")
        angle = math.degrees(math.atan2(_length(offsets[-1]), length))
        told = "" if tilt_degrees else ", although Gantry/Detector Tilt does not say so"
        raise GeometryError(
            f"The slices are stacked askew, as with a tilted gantry: from the first to the last the positions shift by "
            f"{mm(most)} across the normal, which is {angle:.1f} degrees{told}. Tilted series are not supported."
        )
    if tilt_degrees and abs(tilt_degrees) >= TILT_DEGREES and _off_axis_degrees(normal) < TILT_DEGREES:
        raise GeometryError(
            f"Gantry/Detector Tilt is {tilt_degrees:g} degrees, but the orientation and the positions of the slices "
            "show no tilt: one of the two is wrong."
        )


def check_regular(ordered: Sequence[Plane]) -> float:
    """Distance between neighbouring slices, in mm, once it is proved to be the same everywhere.

    Raises
    ------
    MissingSlices
        Naming the place of a gap.
    GeometryError
        Naming the steps that differ.
    """
    if len(ordered) < FEWEST_SLICES:
        raise GeometryError(
            f"{count(len(ordered), 'slice')} cannot show a regular spacing; a volume needs {FEWEST_SLICES}."
        )
    places = positions_mm(ordered)
    steps = _steps(places)
    usual = median_low(steps)
    gaps = [k for k, step in enumerate(steps) if step > _GAP * usual]
    if gaps:
        k = gaps[0]
        missing = max(1, round(steps[k] / usual) - 1)
        more = f", and {count(len(gaps) - 1, 'more gap')}" if len(gaps) > 1 else ""
        raise MissingSlices(
            f"A gap: {mm(steps[k])} between the slices at {mm(places[k])} and {mm(places[k + 1])}, where the step is "
            f"{mm(usual)}; about {count(missing, 'slice')} missing there{more}."
        )
    allowed = max(_STEP * usual, min(_STEP_MM, usual / 4)) + _ARITHMETIC_MM
    if max(steps) - usual > allowed or usual - min(steps) > allowed:
        raise GeometryError(
            f"The spacing is uneven: steps between slices range from {mm(min(steps))} to {mm(max(steps))}; "
            f"{mm(allowed)} around {mm(usual)} would be rounding."
        )
    spacing = (places[-1] - places[0]) / (len(places) - 1)
    drift = max(abs(place - places[0] - k * spacing) for k, place in enumerate(places))
    if drift > allowed:
        raise GeometryError(f"The spacing drifts: a slice lies {mm(drift)} from its place on a grid of {mm(spacing)}.")
    return spacing


def affine(first: Plane, last: Plane, slices: int) -> list[list[float]]:
    """4 x 4 matrix from (slice, row, column, 1) to LPS in mm, at the voxel's centre (PS3.3 C.7.6.2.1.1).

    Exact at the first and at the last of so many slices; the others lie within the tolerances of this module.
    """
    step = _times(_minus(last.position, first.position), 1 / (slices - 1))
    down = _times(first.orientation[3:], first.spacing_mm[0])
    right = _times(first.orientation[:3], first.spacing_mm[1])
    return [[*(float(v) for v in row)] for row in zip(step, down, right, first.position, strict=True)] + [
        [0, 0, 0, 1.0]
    ]


def mm(value: float) -> str:
    """Millimetres as a person writes them: at most three decimals."""
    return f"{round(value, 3) + 0.0:.3f}".rstrip("0").rstrip(".") + " mm"


def count(n: int, what: str) -> str:
    """``1 slice``, ``3 slices``."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _one_group(
    planes: Sequence[Plane], what: str, key: Callable[[Plane], Vector], say: Callable[[Plane], str], tolerance: float
) -> None:
    groups: list[list[Plane]] = []
    for plane in planes:
        for group in groups:
            if all(abs(a - b) <= tolerance for a, b in zip(key(plane), key(group[0]), strict=True)):
                group.append(plane)
                break
        else:
            groups.append([plane])
    if len(groups) > 1:
        groups.sort(key=len, reverse=True)
        told = ", ".join(f"{count(len(group), 'slice')} with {say(group[0])}" for group in groups[:3])
        raise GeometryError(f"{len(groups)} {what} in one series: {told}{', ...' if len(groups) > 3 else ''}.")


def _off_axis_degrees(normal: Vector) -> float:
    return math.degrees(math.acos(min(1.0, max(map(abs, normal)))))


def _steps(at_mm: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(at_mm)]


def _list(values: Sequence[float]) -> str:
    return "\\".join(f"{value:.6g}" for value in values)


def _cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _length(a: Vector) -> float:
    return math.hypot(*a)


def _minus(a: Vector, b: Vector) -> Vector:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


def _times(a: Vector, factor: float) -> Vector:
    return (a[0] * factor, a[1] * factor, a[2] * factor)
