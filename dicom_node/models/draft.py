"""The first card.toml of a bundle that has none: what its metadata says, and what a person must fill in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ai.codes import UNKNOWN, codes_of, label_of, toml_code, toml_text
from ai.interface import Gives, Output, images_among, role_of
from ai.quantities import quantity_of
from ai.understand import Understanding

_COLOURS = (
    *((230, 110, 80), (80, 150, 230), (240, 200, 80), (120, 200, 120), (180, 120, 210)),
    *((240, 140, 190), (110, 210, 210), (200, 160, 110), (150, 150, 240), (190, 220, 90)),
)
_MODALITIES = ("CT", "MR", "PT", "US", "MG", "CR", "DX", "NM", "IO", "XA", "RF", "OP", "ES", "XC")
_OF_VOLUMES = ("CT", "MR", "PT", "NM")


def draft_card(known: Understanding, name: str) -> str:
    """Text of a ``card.toml``; what a person must decide says `UNKNOWN`.

    Parameters
    ----------
    known : ai.understand.Understanding
        The bundle.
    name : str
        What rules will call the model.
    """
    modality = next((each.modality for each in known.inputs if each.modality in _MODALITIES), UNKNOWN)
    outputs = [output for output in known.outputs if output.gives is Gives.SEGMENTATION]
    marked = [label for output in outputs for label in output.names]
    lines = [
        "# What the node says about this model, and which outputs become which coded segments.",
        "# Drafted from the bundle's metadata: read every code before you switch the model on.",
        f"name = {toml_text(name)}",
        f"version = {toml_text(known.version[:32])}",
        f"title = {toml_text((known.task or known.name)[:64])}",
        f"manufacturer = {toml_text(UNKNOWN)}",
        f"summary = {toml_text(_sentence(known, marked))}",
        f"training = {toml_text(UNKNOWN)}",
        "timeout_s = 600",
        "",
        "[accepts]",
        f"modality = [{toml_text(modality)}]",
    ]
    if modality in _OF_VOLUMES or any(each.dimensions == 3 for each in known.inputs):
        lines.append("min_slices = 8")
    lines += _segments(marked, is_ct=modality == "CT")
    for output in known.outputs:
        lines += _other(output)
    for output in images_among(known.outputs):
        lines += _maps(output, modality)
    if any(output.gives is Gives.REGISTRATION for output in known.outputs):
        lines += _registration(known.inputs[0].roles)
    return "\n".join(lines) + "\n"


def draft_segments(names: Iterable[str], *, is_ct: bool) -> str:
    """Text of the segments of a card that has none, for a program that marks what has these names."""
    return "\n".join(_segments(names, is_ct=is_ct)) + "\n"


def _segments(names: Iterable[str], *, is_ct: bool) -> list[str]:
    return [line for number, name in enumerate(names) for line in ("", *_segment(name, number, is_ct=is_ct))]


def _other(output: Output) -> list[str]:
    """Tables for what is no segment: what is detected, points, the answers to a question, numbers."""
    lines: list[str] = []
    unknown = toml_code({"value": UNKNOWN, "scheme": "SCT", "meaning": UNKNOWN})
    if output.gives is Gives.CLASSIFICATION:
        lines += ["", "[[classifications]]", f"output = {toml_text(output.name)}", f"concept = {unknown}"]
        lines += ["", "[classifications.answers]", *(f"{toml_text(name)} = {unknown}" for name in output.names)]
    for name in output.names:
        if output.gives is Gives.DETECTION:
            category, kind, _ = codes_of(name)
            lines += ["", "[[detections]]", f"output = {toml_text(name)}", f"label = {toml_text(label_of(name, 56))}"]
            lines += [f"category = {toml_code(category)}", f"type = {toml_code(kind)}", "measurements = []"]
        elif output.gives is Gives.POINTS:
            category, kind, laterality = codes_of(name)
            lines += ["", "[[points]]", f"output = {toml_text(name)}", f"label = {toml_text(label_of(name, 52))}"]
            lines += [f"category = {toml_code(category)}", f"type = {toml_code(kind)}"]
            lines += [f"laterality = {toml_code(laterality)}"] if laterality is not None else []
        elif output.gives is Gives.REGRESSION:
            unit = toml_code({"value": "1", "scheme": "UCUM", "meaning": "no units"})
            lines += ["", "[[values]]", f"output = {toml_text(name)}", f"concept = {unknown}", f"unit = {unit}"]
    return lines


def _maps(output: Output, modality: str) -> list[str]:
    """What the values of an image are, as far as its name, its format or what it was made of tell."""
    lines: list[str] = []
    for name in output.names:
        quantity, unit = quantity_of(name, output.form, modality)
        lines += ["", "[[maps]]", f"output = {toml_text(name)}", f"label = {toml_text(label_of(name))}"]
        lines += [f"quantity = {toml_code(quantity)}", f"unit = {toml_code(unit)}"]
        lines += ["window = [40, 400]"] if unit["value"] == "[hnsf'U]" else []
        lines += [
            "# slope = 1.0, intercept = 0.0: what makes values in this unit of the numbers that the network gives"
        ]
    return lines


def _registration(roles: tuple[str, ...]) -> list[str]:
    """Which of two series is which, by the bundle's names for them."""
    fixed = role_of(roles, "fixed", "target", "reference") or UNKNOWN
    moving = role_of(roles, "moving", "source", "floating") or UNKNOWN
    return ["", "[registration]", f"fixed = {toml_text(fixed)}", f"moving = {toml_text(moving)}"]


def still_unknown(card: Mapping[str, object]) -> list[str]:
    """Keys of a card that still say `UNKNOWN`."""
    return list(_unknown(card, ""))


def _unknown(value: object, key: str) -> Iterator[str]:
    if isinstance(value, str) and UNKNOWN in value:
        yield key
    parts: Iterable[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    for name, part in parts:
        yield from _unknown(part, f"{key}.{name}" if key else str(name))


def _sentence(known: Understanding, marked: list[str]) -> str:
    described = known.description.strip().splitlines()
    return described[0][:500] if described else f"Outlines {', '.join(marked)}."[:500] if marked else known.name


def _segment(label: str, number: int, *, is_ct: bool) -> list[str]:
    category, kind, laterality = codes_of(label)
    lines = [
        "[[segments]]",
        f"output = {toml_text(label)}",
        f"label = {toml_text(label_of(label))}",
        f"category = {toml_code(category)}",
        f"type = {toml_code(kind)}",
    ]
    if laterality is not None:
        lines.append(f"laterality = {toml_code(laterality)}")
    measured = '["volume", "mean_attenuation"]' if is_ct else '["volume"]'
    return [*lines, f"color_rgb = {list(_COLOURS[number % len(_COLOURS)])}", f"measurements = {measured}"]
