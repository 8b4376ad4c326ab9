"""The card of a model: what it accepts, what it marks and in which codes, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from dicom_node.domain.eligibility import Accepts
from dicom_node.domain.finding import Code
from dicom_node.domain.volumes import Choice

__all__ = [
    "Accepts",
    "ClassCard",
    "ClassificationCard",
    "CommandCard",
    "Derived",
    "DetectionCard",
    "ImageValues",
    "MapCard",
    "Measure",
    "ModelCard",
    "OutputKind",
    "PointCard",
    "RegistrationCard",
    "SegmentCard",
    "ValueCard",
]


class OutputKind(StrEnum):
    """Kinds of result objects, in the order in which they are made and sent: the SR refers to the others.

    `results.BUILDERS` has one builder for each. Further encodings of a segmentation, with the report that refers to
    each, are kinds of their own that only destinations ask for (domain/encoding.py). A rejection is made when a job
    takes the place of earlier ones. Of maps, captures and rejections there may be several, which their names tell
    apart: ``rejection-2``.
    """

    SEG = "seg"
    SEG_LABELMAP = "seg-labelmap"
    SEG_FRACTIONAL = "seg-fractional"
    PM = "pm"
    GREY = "grey"
    REGISTRATION = "registration"
    DEFORMATION = "deformation"
    SC = "sc"
    RTSTRUCT = "rtstruct"
    GSPS = "gsps"
    KEY_IMAGES = "key_images"
    OVERLAY = "overlay"
    CAPTURES = "captures"
    PDF = "pdf"
    KOS = "kos"
    VIEWER_SR = "viewer_sr"
    SR = "sr"
    SR_LABELMAP = "sr-labelmap"
    SR_FRACTIONAL = "sr-fractional"
    REJECTION = "rejection"

    @classmethod
    def of(cls, name: str) -> OutputKind:
        """Give the kind of an object by its name among the results of its job."""
        return cls(name.rstrip("0123456789").removesuffix("-"))


class Measure(StrEnum):
    """What can be measured of anything marked; docs/measurements.md defines each."""

    VOLUME = "volume"
    MEAN_ATTENUATION = "mean_attenuation"
    MIN_ATTENUATION = "min_attenuation"
    MAX_ATTENUATION = "max_attenuation"
    LONG_AXIS = "long_axis"
    SHORT_AXIS = "short_axis"
    MEAN_DIAMETER = "mean_diameter"
    SOLID_DIAMETER = "solid_diameter"
    SURFACE_DISTANCE = "surface_distance"
    EMPHYSEMA_INDEX = "emphysema_index"
    DENSITY_PERCENTILE_15 = "density_percentile_15"
    OPACIFICATION = "opacification"


class Derived(StrEnum):
    """What can be calculated from measurements; docs/measurements.md gives the source of each."""

    ZONE = "zone"
    LUNG_RADS = "lung_rads_2022"
    FLEISCHNER = "fleischner_2017"
    TNM_T_SIZE = "tnm_t_size"
    BROCK = "brock"
    OPACIFICATION_GRADE = "opacification_grade"


class ImageValues(StrEnum):
    """What a model is given of a grey image that stands alone; white is high in either."""

    MODALITY = "modality"  # after the Modality LUT, as MONAI's own reader would have
    DISPLAY = "display"  # as on a display: after the VOI LUT or window, 0 black to 255 white


@dataclass(frozen=True, slots=True)
class SegmentCard:
    """How one output of the bundle becomes a coded segment."""

    output: str
    label: str
    category: Code
    type: Code
    laterality: Code | None = None
    region: Code | None = None
    color_rgb: tuple[int, int, int] = (128, 174, 128)
    measurements: tuple[str, ...] = ("volume",)
    derive: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassCard:
    """A question that the model answers of each thing it detects, and the codes of question and answers."""

    concept: Code
    answers: Mapping[str, Code]


@dataclass(frozen=True, slots=True)
class ClassificationCard:
    """A question that the model answers of the whole image: the bundle's name of the output, and the codes."""

    output: str
    concept: Code
    answers: Mapping[str, Code]


@dataclass(frozen=True, slots=True)
class ValueCard:
    """A number that the model gives of the whole image: the bundle's own name of it, what it is, and its unit."""

    output: str
    concept: Code
    unit: Code
    decimals: int = 1


@dataclass(frozen=True, slots=True)
class PointCard:
    """How one point of the bundle becomes a coded landmark.

    `corner_mm` is for models that put what they do not see at the corner of the image: so close to one it is none.
    """

    output: str
    label: str
    category: Code
    type: Code
    laterality: Code | None = None
    region: Code | None = None
    color_rgb: tuple[int, int, int] = (250, 210, 60)
    corner_mm: float = 0.0


@dataclass(frozen=True, slots=True)
class MapCard:
    """How an image that the model answers with becomes a parametric map.

    Attributes
    ----------
    output : str
        The bundle's own name of it.
    label : str
        What people call it: ``Denoised CT``.
    quantity, unit : Code
        What its values are (PS3.16 CID 7180), and in which unit (UCUM).
    derivation : Code, optional
        How it was made of the source (CID 7203): ``Smoothing``.
    slope, intercept : float
        Make values in that unit of the numbers that the model gives.
    window : (float, float), optional
        Center and width by which it is shown first; else what nearly all of its values lie within.
    may_be_constant : bool
        Whether it may have one value everywhere: a map of what is not there, perhaps.
    """

    output: str
    label: str
    quantity: Code
    unit: Code
    derivation: Code | None = None
    slope: float = 1.0
    intercept: float = 0.0
    window: tuple[float, float] | None = None
    may_be_constant: bool = False


@dataclass(frozen=True, slots=True)
class RegistrationCard:
    """A model that finds how one series lies on another: which role is the fixed one and which the moving one.

    `max_folded_percent` is how much of the body a field may turn inside out before it is no answer.
    """

    fixed: str
    moving: str
    max_folded_percent: float = 1.0

    @property
    def roles(self) -> tuple[str, str]:
        """As a rule has to name them: results lie on the first."""
        return self.fixed, self.moving


@dataclass(frozen=True, slots=True)
class DetectionCard:
    """How what a model detects one by one becomes coded findings.

    Attributes
    ----------
    output : str
        The bundle's own name of what it looks for; that of a detection is ``nodule``, of its mask ``nodule/2``.
    label : str
        Name of one of them; a number follows: ``Nodule 1``.
    name : str
        Name of this part of the model, for when it is not run: ``Nodule detection``.
    min_score : float
        Operating threshold: a detection with a lower score is none.
    max_count : int
        How many are reported, those with the highest scores.
    classes : mapping of str to ClassCard
        By the model's own name of the question.
    within : tuple of str
        Outputs of the segments that it has to lie in or touch; empty is anywhere.
    accepts : Accepts
        Volumes that this part of the model was made for, beyond those that the whole model was made for.
    derive : tuple of str
        What is calculated of each and of all of them.
    """

    output: str
    label: str
    name: str
    category: Code
    type: Code
    region: Code | None = None
    color_rgb: tuple[int, int, int] = (220, 60, 60)
    min_score: float = 0.5
    max_count: int = 20
    measurements: tuple[str, ...] = ("volume",)
    classes: Mapping[str, ClassCard] = field(default_factory=dict)
    within: tuple[str, ...] = ()
    accepts: Accepts = field(default_factory=Accepts)
    derive: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandCard:
    """How a program outside of the node that is a model is called, and what its answer means.

    Attributes
    ----------
    argv : tuple of str
        The words of the command line; ``{input}``, ``{output}``, ``{device}``, ``{model}``, ``{python}`` and ``{home}``
        stand for what is known when it is run.
    input : str
        ``nifti``: one file. ``dicom``: a folder with a file for each slice.
    says : str
        What the answer to `version` has to hold.
    labels : mapping of int to str
        Of a program that writes one label map: the name of each number. Else empty.
    structures : tuple of str
        Of a program that writes a file for each structure: their names. Else empty.
    version : tuple of str
        The words that ask for its version; empty when it is not asked.
    devices : mapping of str to str
        The program's own words for ``cpu`` and ``cuda``.
    environment : mapping of str to str
        Variables beside those of every model.
    reads : tuple of str
        Folders outside of the model's own that it may read.
    parallel : bool
        Whether its processes share memory and talk to each other through local sockets.
    """

    argv: tuple[str, ...]
    input: str
    says: str
    labels: Mapping[int, str] = field(default_factory=dict)
    structures: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    devices: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    parallel: bool = False


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model as the node knows it.

    `digest` is the SHA-256 over the whole bundle, `weights_digest` that over its weights. `changes` are values in place
    of those of the bundle's inference configuration. `volume` says which one it takes of several in one series.
    `amp` lets it compute in half precision. `command` is there where the model is no bundle.
    """

    name: str
    version: str
    title: str
    manufacturer: str
    summary: str
    training: str
    bundle: Path
    digest: str
    weights_digest: str
    timeout_s: float
    accepts: Accepts
    segments: tuple[SegmentCard, ...]
    outputs: tuple[OutputKind, ...] = (OutputKind.SEG, OutputKind.SR)
    detections: tuple[DetectionCard, ...] = ()
    classifications: tuple[ClassificationCard, ...] = ()
    values: tuple[ValueCard, ...] = ()
    points: tuple[PointCard, ...] = ()
    registration: RegistrationCard | None = None
    maps: tuple[MapCard, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    volume: Choice = field(default_factory=dict)
    command: CommandCard | None = None
    image_values: ImageValues = ImageValues.MODALITY
    amp: bool = False
