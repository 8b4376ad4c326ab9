"""A model's card.toml: its keys, what has to fit together on it, and the card that the node works with."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from ai.digest import bundle_digest, weights_digest
from dicom_node.domain.eligibility import Accepts, Contrast
from dicom_node.domain.encoding import refuse_encodings
from dicom_node.domain.finding import Code
from dicom_node.domain.model import (
    ClassCard,
    ClassificationCard,
    Derived,
    DetectionCard,
    ImageValues,
    MapCard,
    Measure,
    ModelCard,
    OutputKind,
    PointCard,
    RegistrationCard,
    SegmentCard,
    ValueCard,
)
from dicom_node.domain.nodule import Attenuation, Margin
from dicom_node.domain.volumes import TELLS_APART, Wanted
from dicom_node.program import Command, command_card, command_problems, is_program, program_file
from dicom_node.settings import explain

CARD = "card.toml"
_REGISTERED = (OutputKind.REGISTRATION, OutputKind.DEFORMATION)  # whichever the answer is: one of them is made

Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\\\x00-\x1f]+$")]
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]
Millimetres = Annotated[float | None, Field(gt=0)]


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


def _no_expression(value: Any) -> Any:
    """Nothing on a card is evaluated: MONAI would take these for code, references and macros."""
    texts = value if isinstance(value, list) else [value]
    if any(isinstance(text, str) and ("@" in text or text.startswith(("$", "%"))) for text in texts):
        raise ValueError("is an expression; give a plain value")
    return value


Plain = Annotated[
    bool | int | float | str | list[bool | int | float | str],
    Field(union_mode="left_to_right"),
    AfterValidator(_no_expression),
]
Pattern = Annotated[str, Field(min_length=1), AfterValidator(_regular_expression)]


M = TypeVar("M", bound=BaseModel)


class Table(BaseModel):
    """One table of a TOML file, without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_table(file: Path, model: type[M], problems: list[str]) -> M | None:
    """Read a TOML file as a table of this kind; None, with what is wrong in `problems`, when it is none."""
    try:
        return parse_table(file.read_text(encoding="utf-8"), file, model, problems)
    except UnicodeDecodeError as error:
        problems.append(f"{file}: not valid TOML: {error}")
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror}")
    return None


def parse_table(text: str, file: Path, model: type[M], problems: list[str]) -> M | None:
    """Read the text of a TOML file, as `read_table`."""
    try:
        return model.model_validate(tomllib.loads(text))
    except ValidationError as error:
        problems += [f"{file}: {problem}" for problem in explain(error)]
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        problems.append(f"{file}: not valid TOML: {error}")
    return None


class _Code(Table):  # PS3.3 8.8: code value and scheme are SH, the meaning is LO
    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Name


class _Segment(Table):
    output: Text
    label: Name
    category: _Code
    type: _Code
    laterality: _Code | None = None
    region: _Code | None = None
    color_rgb: Colour = (128, 174, 128)
    measurements: tuple[Measure, ...] = (Measure.VOLUME,)
    derive: tuple[Literal[Derived.OPACIFICATION_GRADE], ...] = ()


class _Part(Table):
    """What a part of a model accepts."""

    modality: tuple[Text, ...] = ()
    min_slices: int = Field(1, ge=1)
    max_slice_spacing_mm: Millimetres = None
    max_slice_thickness_mm: Millimetres = None
    min_pixel_spacing_mm: Millimetres = None
    max_pixel_spacing_mm: Millimetres = None
    min_field_of_view_mm: Millimetres = None
    max_field_of_view_mm: Millimetres = None
    min_coverage_mm: Millimetres = None
    kernels: tuple[Pattern, ...] = ()
    refused_kernels: tuple[Pattern, ...] = ()
    contrast: Contrast = Contrast.ANY
    min_age_years: float | None = Field(None, ge=0)
    max_age_years: float | None = Field(None, ge=0)
    views: tuple[Text, ...] = ()


class _Accepts(_Part):
    modality: Annotated[tuple[Text, ...], Field(min_length=1)]


class _Class(Table):
    concept: _Code
    answers: Annotated[dict[Text, _Code], Field(min_length=1)]


class _Classification(_Class):
    output: Text


class _Value(Table):
    output: Text
    concept: _Code
    unit: _Code
    decimals: int = Field(1, ge=0, le=6)


class _Point(Table):
    output: Text
    label: Annotated[Name, Field(max_length=52)]  # which of several images may follow
    category: _Code
    type: _Code
    laterality: _Code | None = None
    region: _Code | None = None
    color_rgb: Colour = (250, 210, 60)
    corner_mm: float = Field(0.0, ge=0)


class _Registration(Table):
    fixed: Text
    moving: Text
    max_folded_percent: float = Field(1.0, ge=0, le=100)


class _Map(Table):
    output: Text
    label: Name
    quantity: _Code
    unit: _Code
    derivation: _Code | None = None
    slope: float = Field(1.0, allow_inf_nan=False)
    intercept: float = Field(0.0, allow_inf_nan=False)
    window: tuple[float, Annotated[float, Field(gt=0)]] | None = None
    may_be_constant: bool = False

    @field_validator("slope")
    @classmethod
    def _not_flat(cls, slope: float) -> float:
        if slope == 0:
            raise ValueError("makes one value of all")
        return slope


class _Detection(Table):
    output: Text
    label: Annotated[Name, Field(max_length=56)]  # a number follows
    name: Name | None = None
    category: _Code
    type: _Code
    region: _Code | None = None
    color_rgb: Colour = (220, 60, 60)
    min_score: float = Field(0.5, ge=0, le=1)
    max_count: int = Field(20, ge=1, le=255)  # a label map of 8 bits holds no more
    measurements: tuple[Measure, ...] = (Measure.VOLUME,)
    classes: dict[Text, _Class] = Field(default_factory=dict)
    within: tuple[Text, ...] = ()
    accepts: _Part = Field(default_factory=_Part)
    derive: tuple[Derived, ...] = ()


def _to_choose_by(volume: dict[str, Wanted]) -> dict[str, Wanted]:
    for keyword in volume:
        if keyword not in TELLS_APART:
            meant = nearest(keyword, TELLS_APART) or f"; {', '.join(TELLS_APART)} do"
            raise ValueError(f"{keyword!r} tells no volumes apart{meant}")
    return volume


class _Images(Table):
    """How single images are given to the model."""

    values: ImageValues = ImageValues.MODALITY


class Card(Table):
    """A card.toml as it is written."""

    name: Name
    runner: Literal["bundle", "command"] = "bundle"
    version: Annotated[str, Field(min_length=1, max_length=32)]
    title: Name
    manufacturer: Name
    summary: Text
    training: Text
    timeout_s: float = Field(gt=0)
    accepts: _Accepts
    volume: Annotated[dict[Text, float | Text], AfterValidator(_to_choose_by)] = Field(default_factory=dict)
    segments: tuple[_Segment, ...] = ()
    detections: tuple[_Detection, ...] = ()
    classifications: tuple[_Classification, ...] = ()
    values: tuple[_Value, ...] = ()
    points: tuple[_Point, ...] = ()
    registration: _Registration | None = None
    maps: tuple[_Map, ...] = ()
    images: _Images = Field(default_factory=_Images)
    changes: dict[Text, Plain] = Field(default_factory=dict)
    amp: bool = False
    command: Command | None = None
    outputs: Annotated[tuple[OutputKind, ...], Field(min_length=1)] = (OutputKind.SEG, OutputKind.SR)

    @field_validator("outputs")
    @classmethod
    def _no_encodings(cls, outputs: tuple[OutputKind, ...]) -> tuple[OutputKind, ...]:
        refuse_encodings(outputs)
        return outputs


def card_problems(card: Card, bundle: Path) -> list[str]:
    """Say what does not fit together on a card, each problem with its key."""
    if (card.runner == "command") is not (card.command is not None):
        return ['runner: a model that is a program has runner = "command" and a table [command]; a bundle has neither']
    problems = [*_segment_problems(card, bundle), *_part_problems(card), *_bundle_problems(card, bundle)]
    if card.command is not None:
        problems += [f"command.{problem}" for problem in command_problems(card.command, card.accepts.modality)]
        kinds = ("detections", "classifications", "values", "points", "registration", "maps", "changes")
        problems += ["amp: is for bundles; a program has options of its own"] if card.amp else []
        problems += [f"{kind}: a program gives label maps alone" for kind in kinds if getattr(card, kind)]
    return problems


def _segment_problems(card: Card, bundle: Path) -> list[str]:
    problems = []
    for kind, key in product(("segments", "points", "maps"), ("output", "label")):
        names = [getattr(each, key) for each in getattr(card, kind)]
        problems += [f"{kind}.{n}.{key}: {x!r} is used twice" for n, x in enumerate(names) if x in names[:n]]
    known = set(card.command.names) if card.command is not None else _bundle_names(bundle)
    if known is not None:
        problems += [
            f"segments.{n}.output: the bundle has no output {s.output!r}{nearest(s.output, known)}"
            for n, s in enumerate(card.segments)
            if s.output not in known
        ]
    return problems


def _part_problems(card: Card) -> Iterator[str]:
    """What does not fit together on a card with detections."""
    given = (card.segments, card.detections, card.classifications, card.values, card.points, card.registration)
    if not any((*given, card.maps)):
        kinds = "[[segments]], [[detections]], [[classifications]], [[values]], [[points]], [[maps]] or [registration]"
        yield f"segments: the card names no output; give {kinds}"
    if card.registration is not None and card.registration.fixed == card.registration.moving:
        yield "registration.moving: is the fixed one; a series has no registration with itself"
    outputs = [segment.output for segment in card.segments]
    for n, segment in enumerate(card.segments):
        if segment.derive and Measure.OPACIFICATION not in segment.measurements:
            yield f"segments.{n}.derive: opacification_grade needs the measurement opacification"
    for n, detection in enumerate(card.detections):
        if detection.output in outputs:
            yield f"detections.{n}.output: {detection.output!r} is used twice"
        outputs.append(detection.output)
        segments = [segment.output for segment in card.segments]
        yield from _unknown_parts(f"detections.{n}.within", detection.within, segments)
        yield from (f"detections.{n}.{problem}" for problem in _derive_problems(detection))


def _unknown_parts(key: str, names: Iterable[str], known: list[str]) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{key}: the card has no segment with the output {name!r}{nearest(name, known)}"


# What a calculation asks of a nodule: the model's own words for the answers.
_QUESTIONS = {"attenuation": [a.value for a in Attenuation], "margin": [m.value for m in Margin]}
_NODULE_RULES = {Derived.LUNG_RADS, Derived.FLEISCHNER, Derived.TNM_T_SIZE, Derived.BROCK}


def _derive_problems(detection: _Detection) -> Iterator[str]:
    if Derived.OPACIFICATION_GRADE in detection.derive:
        yield "derive: opacification_grade is of a segment, not of a detection"
    if Derived.ZONE in detection.derive and not detection.within:
        yield "derive: zone needs the lungs; name them in within"
    if not _NODULE_RULES & set(detection.derive):
        return
    if "attenuation" not in detection.classes:
        yield f"derive: needs classes.attenuation with answers among {', '.join(_QUESTIONS['attenuation'])}"
    for question, words in _QUESTIONS.items():
        answers = detection.classes[question].answers if question in detection.classes else {}
        if unknown := [answer for answer in answers if answer not in words]:
            yield f"classes.{question}.answers: {unknown[0]!r} is none of {', '.join(words)}"


def _bundle_problems(card: Card, bundle: Path) -> Iterator[str]:
    """What the bundle's metadata says otherwise; nothing where it does not say (loading it will tell more)."""
    for name, output in _bundle_outputs(bundle).items():
        defined = output.get("channel_def")
        for n, asked in enumerate(card.classifications):
            for answer in defined.values() if asked.output == name and isinstance(defined, dict) else ():
                if answer not in asked.answers:
                    yield f"classifications.{n}.answers: the bundle also answers {answer!r}"
        detects, classes = output.get("detects"), output.get("classes")
        for n, detection in enumerate(card.detections):
            if isinstance(detects, list) and detection.output not in detects:
                yield f"detections.{n}.output: the bundle does not detect {detection.output!r}"
            for question, one in detection.classes.items():
                for answer in classes.get(question, ()) if isinstance(classes, dict) else ():
                    if answer not in one.answers:
                        yield f"detections.{n}.classes.{question}.answers: the bundle also answers {answer!r}"


def _bundle_names(bundle: Path) -> set[str] | None:
    """Names of the outputs that are segments; None where the metadata names none."""
    defined = [output.get("channel_def") for output in _bundle_outputs(bundle).values()]
    names = {str(name) for channels in defined if isinstance(channels, dict) for name in channels.values()}
    return names or None


def _bundle_outputs(bundle: Path) -> dict[str, dict[str, Any]]:
    try:
        metadata = json.loads((bundle / "configs" / "metadata.json").read_bytes())
        outputs = metadata["network_data_format"]["outputs"].items()
        return {name: output for name, output in outputs if isinstance(output, dict)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def model_digest(bundle: Path) -> str:
    """SHA-256 over every file of a model's folder, and over the program outside of it that it runs.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    if not is_program(bundle, CARD):
        return bundle_digest(bundle)
    words = tomllib.loads((bundle / CARD).read_text(encoding="utf-8"))["command"].get("argv", ())
    program = program_file(tuple(map(str, words)))
    return bundle_digest(bundle, program) if program else bundle_digest(bundle)


def model_card(card: Card, bundle: Path) -> ModelCard:
    """Make the card that the node works with, with the digests of its bundle."""
    return ModelCard(
        name=card.name,
        version=card.version,
        title=card.title,
        manufacturer=card.manufacturer,
        summary=card.summary,
        training=card.training,
        bundle=bundle,
        digest=model_digest(bundle),
        weights_digest=weights_digest(bundle) if card.command is None else "",
        timeout_s=card.timeout_s,
        accepts=Accepts(**card.accepts.model_dump()),
        volume=dict(card.volume),
        segments=tuple(_segment_card(segment) for segment in card.segments),
        outputs=tuple(dict.fromkeys((*card.outputs, *_made_anyway(card)))),
        detections=tuple(_detection_card(detection) for detection in card.detections),
        classifications=tuple(_classification_card(asked) for asked in card.classifications),
        values=tuple(ValueCard(v.output, _code(v.concept), _code(v.unit), v.decimals) for v in card.values),
        points=tuple(_point_card(point) for point in card.points),
        registration=RegistrationCard(**card.registration.model_dump()) if card.registration else None,
        maps=tuple(_map_card(each) for each in card.maps),
        changes=dict(card.changes),
        amp=card.amp,
        command=command_card(card.command, card.version) if card.command is not None else None,
        image_values=card.images.values,
    )


def _made_anyway(card: Card) -> Iterator[OutputKind]:
    """Kinds of objects that follow from what a model answers."""
    yield from _REGISTERED if card.registration else ()
    yield from (OutputKind.PM,) if card.maps else ()


def _segment_card(segment: _Segment) -> SegmentCard:
    return SegmentCard(
        output=segment.output,
        label=segment.label,
        category=_code(segment.category),
        type=_code(segment.type),
        laterality=_code(segment.laterality) if segment.laterality else None,
        region=_code(segment.region) if segment.region else None,
        color_rgb=segment.color_rgb,
        measurements=tuple(dict.fromkeys(segment.measurements)),
        derive=tuple(dict.fromkeys(segment.derive)),
    )


def _detection_card(detection: _Detection) -> DetectionCard:
    return DetectionCard(
        output=detection.output,
        label=detection.label,
        name=detection.name or f"{detection.label} detection",
        category=_code(detection.category),
        type=_code(detection.type),
        region=_code(detection.region) if detection.region else None,
        color_rgb=detection.color_rgb,
        min_score=detection.min_score,
        max_count=detection.max_count,
        measurements=tuple(dict.fromkeys(detection.measurements)),
        classes={question: _class_card(asked) for question, asked in detection.classes.items()},
        within=tuple(dict.fromkeys(detection.within)),
        accepts=Accepts(**detection.accepts.model_dump()),
        derive=tuple(dict.fromkeys(detection.derive)),
    )


def _point_card(point: _Point) -> PointCard:
    return PointCard(
        output=point.output,
        label=point.label,
        category=_code(point.category),
        type=_code(point.type),
        laterality=_code(point.laterality) if point.laterality else None,
        region=_code(point.region) if point.region else None,
        color_rgb=point.color_rgb,
        corner_mm=point.corner_mm,
    )


def _map_card(each: _Map) -> MapCard:
    return MapCard(
        output=each.output,
        label=each.label,
        quantity=_code(each.quantity),
        unit=_code(each.unit),
        derivation=_code(each.derivation) if each.derivation else None,
        slope=each.slope,
        intercept=each.intercept,
        window=each.window,
        may_be_constant=each.may_be_constant,
    )


def _classification_card(asked: _Classification) -> ClassificationCard:
    known = _class_card(asked)
    return ClassificationCard(asked.output, known.concept, known.answers)


def _class_card(asked: _Class) -> ClassCard:
    return ClassCard(_code(asked.concept), {answer: _code(code) for answer, code in asked.answers.items()})


def _code(code: _Code) -> Code:
    return Code(code.value, code.scheme, code.meaning)


def nearest(name: str, known: Iterable[str]) -> str:
    """Ask whether one of the known names was meant; empty when none is alike."""
    folded = {k.casefold(): k for k in known}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""
