"""A structured report as text: its tree, one line an item, as deep as it is nested."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread

from dicom_node.errors import SpoolError

_MOST_LINES = 600
_CONTAINERS = ("CONTAINER",)
_LIBRARY = "111028"  # (111028, DCM, "Image Library"): a list of all images, which nobody reads


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One item. `name` is what it is, `value` what it says; a heading has no value."""

    depth: int
    name: str
    value: str


def read_report(path: Path) -> tuple[ReportLine, ...]:
    """Read a structured report.

    Raises
    ------
    SpoolError
        If the file cannot be read as one.
    """
    try:
        sr = dcmread(path)
        found: list[ReportLine] = [ReportLine(0, _name(sr), _flags(sr))]
        _walk(sr, 1, found)
    except Exception as error:  # whatever the parser says of broken bytes
        raise SpoolError(f"The report cannot be read: {type(error).__name__}.") from error
    return tuple(found)


def as_text(lines: tuple[ReportLine, ...]) -> str:
    """Write it down plainly, for copying."""
    return "\n".join("  " * line.depth + ": ".join(part for part in (line.name, line.value) if part) for line in lines)


def _walk(item: Dataset, depth: int, found: list[ReportLine]) -> None:
    for child in item.get("ContentSequence", ()):
        if len(found) >= _MOST_LINES:
            return
        if "ValueType" not in child:
            continue
        names = child.get("ConceptNameCodeSequence")
        if names and names[0].get("CodeValue") == _LIBRARY:
            found.append(ReportLine(depth, _name(child), f"{_images(child)} images"))
            continue
        found.append(ReportLine(depth, _name(child), _value(child)))
        _walk(child, depth + 1, found)


def _name(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeMeaning", "")) if names else {"IMAGE": "Image"}.get(str(item.get("ValueType")), "")


def _flags(sr: Dataset) -> str:
    flags = [str(sr.get("CompletionFlag", "")), str(sr.get("PreliminaryFlag", "")), str(sr.get("VerificationFlag", ""))]
    return ", ".join(flag.lower() for flag in flags if flag)


def _value(item: Dataset) -> str:
    match item.ValueType:
        case "TEXT":
            return str(item.get("TextValue", ""))
        case "NUM":
            return _number(item)
        case "CODE":
            return _meaning(item, "ConceptCodeSequence")
        case "UIDREF":
            return str(item.get("UID", ""))
        case "DATETIME" | "DATE" | "TIME":
            return str(item.get({"DATETIME": "DateTime", "DATE": "Date", "TIME": "Time"}[item.ValueType], ""))
        case "PNAME":
            return str(item.get("PersonName", ""))
        case "IMAGE" | "COMPOSITE":
            return _reference(item)
        case _:
            return ""


def _number(item: Dataset) -> str:
    measured = item.get("MeasuredValueSequence")
    if not measured:
        return _meaning(item, "NumericValueQualifierCodeSequence") or "not measured"
    unit = _meaning(measured[0], "MeasurementUnitsCodeSequence", "CodeValue")
    return f"{measured[0].get('NumericValue', '')} {'' if unit == '1' else unit}".strip()


def _meaning(item: Dataset, keyword: str, what: str = "CodeMeaning") -> str:
    codes = item.get(keyword)
    return str(codes[0].get(what, "")) if codes else ""


def _reference(item: Dataset) -> str:
    to = item.get("ReferencedSOPSequence")
    if not to:
        return ""
    segments = to[0].get("ReferencedSegmentNumber")
    return f"{to[0].ReferencedSOPInstanceUID}" + (f", segment {segments}" if segments else "")


def _images(item: Dataset) -> int:
    own = int(item.get("ValueType") == "IMAGE")
    return own + sum(_images(child) for child in item.get("ContentSequence", ()))
