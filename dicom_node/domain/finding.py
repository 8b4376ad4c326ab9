"""What a model says of a volume, in codes and units: no DICOM encoding here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8): value, coding scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number about a finding.

    `value` is None when it could not be computed; `reason` then says why (a code of CID 42, never a 0 in its place).
    `derivation` is e.g. (373098007, SCT, "Mean").
    """

    name: Code
    value: float | None
    unit: Code
    derivation: Code | None = None
    reason: Code | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """Something about a finding that is no number: a class that the model chose, a category that was calculated.

    `note` says in a sentence what it was derived from, e.g. ``"solid, 8.4 mm: at least 8 mm and below 15 mm"``.
    """

    name: Code
    value: Code
    note: str = ""


@dataclass(frozen=True, slots=True)
class NotRun:
    """A part of the model that was not run on this volume, and why: ``Nodule detection``, ``slice spacing 8 mm``.

    `how` tells what else did not happen: a calculation without its inputs is ``not calculated``, a detection outside of
    the lungs ``not reported``.
    """

    what: str
    why: str
    how: str = "not run"

    @property
    def is_part(self) -> bool:
        """Whether a part of the model did not run: the answer is then partial. A calculation is no part of a model."""
        return self.how == "not run"

    @property
    def text(self) -> str:
        """All of it, without a full stop: ``Nodule detection not run: slice spacing 8 mm``."""
        return f"{self.what} {self.how}: {self.why}"


Point = tuple[float, float, float]
Extent = tuple[Point, Point]  # two corners of a box along the axes of the patient, LPS in mm


@dataclass(frozen=True, slots=True)
class Axes:
    """Where callipers were set for the long and the short axis: both ends of each, LPS in mm."""

    long_ends_mm: tuple[Point, Point]
    short_ends_mm: tuple[Point, Point]


@dataclass(frozen=True, slots=True)
class Segment:
    """One structure that the model marked, or one thing that it detected.

    Attributes
    ----------
    output : str
        The model's own name of it; the mask is `Prediction.mask(output)`.
    number : int
        Segment Number (0062,0004) in the SEG, from 1; 0 when the mask is empty and no segment is written.
    voxels : int
        Count of marked voxels.
    volume_ml : float
        Zero for an empty mask: an absent organ is a finding, not an error.
    qualities : tuple of Quality
        What is said of it in codes.
    score : float or None
        How sure the model is that it is there, 0 to 1; None for a structure that everybody has.
    axes : Axes or None
        Where its axes were measured; None when they were not.
    outlined : bool
        Whether the mask is its outline; else it is the box that the model drew around it, and nothing is measured.
    extent_mm : Extent or None
        Of a detection: the box around it.
    """

    output: str
    number: int
    label: str
    category: Code
    type: Code
    laterality: Code | None
    region: Code | None
    color_rgb: tuple[int, int, int]
    tracking_id: str
    tracking_uid: str
    voxels: int
    volume_ml: float
    measurements: tuple[Measurement, ...]
    qualities: tuple[Quality, ...] = ()
    score: float | None = None
    axes: Axes | None = None
    outlined: bool = True
    extent_mm: Extent | None = None


@dataclass(frozen=True, slots=True)
class Landmark:
    """One point that the model named: it has a place and no size.

    Attributes
    ----------
    at : (float, float, float)
        Index (slice, row, column) in the volume, whole at the centres of voxels, as the model gave it.
    place_mm : Point
        The same in the patient, LPS.
    """

    output: str
    label: str
    category: Code
    type: Code
    laterality: Code | None
    region: Code | None
    color_rgb: tuple[int, int, int]
    tracking_id: str
    tracking_uid: str
    at: tuple[float, float, float]
    place_mm: Point

    @property
    def slice(self) -> int:
        """The slice that it lies in, or next to."""
        return round(self.at[0])


@dataclass(frozen=True, slots=True)
class Registration:
    """How the moving series of a study lies on the fixed one, in numbers; the places are the model's own.

    Attributes
    ----------
    fixed, moving : str
        Their roles.
    moving_frame_uid : str
        Frame of Reference UID (0020,0052) of the moving series; empty where it has none.
    is_one_frame : bool
        Whether that is the one of the fixed series as well.
    start_mm : Point
        By how much the moving series was shifted before the model saw it, LPS: where frames of reference differ, the
        middles of both were laid upon each other.
    voxel_mm : float
        The shortest side of a voxel of either.
    mean_mm, largest_mm : float
        How far what is in the body moved, from where it was shown to the model.
    folded_percent : float, optional
        How much of the body the field turns inside out; None for a matrix, which cannot.
    """

    fixed: str
    moving: str
    moving_frame_uid: str
    is_one_frame: bool
    start_mm: Point
    voxel_mm: float
    mean_mm: float
    largest_mm: float
    folded_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Map:
    """An image that the model answered with; its values are `Prediction.images`, in its unit.

    Attributes
    ----------
    measurements : tuple of Measurement
        Its mean and how far it spreads inside of the body, its lowest and its highest value there.
    window : (float, float)
        Center and width by which it is shown first.
    """

    output: str
    label: str
    quantity: Code
    unit: Code
    derivation: Code | None
    tracking_uid: str
    measurements: tuple[Measurement, ...]
    window: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Tracked:
    """Something that an earlier job on a series detected: under which output, where, and its Tracking UID."""

    output: str
    uid: str
    extent_mm: Extent


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything one attempt found. `segments` has the empty ones too; `present` only those with voxels.

    `qualities` and `measurements` are about the scan as a whole, e.g. the highest category of any nodule. `not_run` are
    the parts of the model that this volume was not fit for. `registration` is there where the model registers, `maps`
    are the images that it answers with.
    """

    segments: tuple[Segment, ...]
    qualities: tuple[Quality, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    points: tuple[Landmark, ...] = ()
    registration: Registration | None = None
    maps: tuple[Map, ...] = ()

    @property
    def present(self) -> tuple[Segment, ...]:
        """Segments that mark at least one voxel."""
        return tuple(s for s in self.segments if s.voxels)

    @property
    def is_negative(self) -> bool:
        """Whether the model ran, marked nothing, named no point, gave no image and said nothing of the whole scan."""
        if self.points:
            return False
        return not self.present and not (not self.segments and (self.qualities or self.measurements or self.maps))
