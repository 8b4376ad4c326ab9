"""A report of ours as plain text: for a web page, a mail, a terminal. Read from its bytes, so it says what was sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset, dcmread

from dicom_node.domain.finding import Code, Measurement
from dicom_node.errors import SpoolError
from dicom_node.results.words import named, placed, valued

_MOST_LINES = 600
# By code value: language, kind of observer, UIDs, category of a finding, laterality (told with its site), derivation
_UNTOLD = frozenset({"121049", "121005", "121012", "112039", "112040", "276214006", "272741003", "121401"})
_TRACKING, _FINDING, _SITE = "112039", "121071", "363698007"
_ALGORITHM, _VERSION, _LIBRARY, _GROUP, _DERIVATION = "111001", "111003", "111028", "125007", "121401"
_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate")


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One item. `name` is what it is, `value` what it says; a heading has no value."""

    depth: int
    name: str
    value: str


def report_lines(data: bytes, *, patient: bool = False) -> tuple[ReportLine, ...]:
    """Read a structured report line by line.

    Parameters
    ----------
    data : bytes
        The DICOM file: any report that this node writes.
    patient : bool
        Whether to say whose it is. Without, nothing in them names the patient or the study: they may go by mail.

    Raises
    ------
    SpoolError
        If it cannot be read as a report.
    """
    try:
        sr = dcmread(BytesIO(data))
        lines = [ReportLine(0, _name(sr), _flags(sr)), ReportLine(1, "Series", str(sr.get("SeriesDescription", "")))]
        if patient:
            lines += [ReportLine(1, sr[key].name, str(sr[key].value)) for key in _PATIENT if sr.get(key)]
        lines += _algorithm(sr)
        lines += _lines(sr, 1)
    except Exception as error:  # whatever the parser says of broken bytes
        raise SpoolError(f"The report cannot be read: {type(error).__name__}.") from error
    return tuple(lines[:_MOST_LINES])


def as_text(lines: Sequence[ReportLine]) -> str:
    """Write it down plainly: two spaces for each level, ``name: value``."""
    return "\n".join("  " * line.depth + ": ".join(part for part in (line.name, line.value) if part) for line in lines)


def _algorithm(sr: Dataset) -> Iterator[ReportLine]:
    """Name the model once; a report names it in every group."""
    for item in sr.iterall():
        if item.keyword == "ContentSequence":
            said = {_code(child): str(child.get("TextValue", "")) for child in item.value}
            if _ALGORITHM in said:
                yield ReportLine(1, "Algorithm", f"{said[_ALGORITHM]} {said.get(_VERSION, '')}".rstrip())
                return


def _lines(item: Dataset, depth: int) -> Iterator[ReportLine]:
    for child in item.get("ContentSequence", ()):
        code = _code(child)
        if code in _UNTOLD or code in (_ALGORITHM, _VERSION) or child.get("ValueType") in (None, "SCOORD", "UIDREF"):
            continue
        if code == _LIBRARY:
            yield ReportLine(depth, _name(child), f"{_images(child)} images")
        elif code == _GROUP:
            yield ReportLine(depth, *_group(child))
            yield from _lines(child, depth + 1)
        elif not (depth > 2 and code in (_FINDING, _SITE)):  # of a group they stand in its heading
            yield ReportLine(depth, *_told(child))
            yield from _lines(child, depth + 1)


def _group(group: Dataset) -> tuple[str, str]:
    """``Nodule 1``, ``Nodule, lung (right)``."""
    of_code: dict[str, list[Dataset]] = {}
    for child in group.get("ContentSequence", ()):
        of_code.setdefault(_code(child), []).append(child)
    tracked = [str(item.get("TextValue", "")).rsplit(":", 1)[-1] for item in of_code.get(_TRACKING, ())]
    found = [_meaning(item, "ConceptCodeSequence") for item in of_code.get(_FINDING, ())]
    sites = [_site(item).lower() for item in of_code.get(_SITE, ())]
    said = [
        word for word in found if not any(site.startswith(word.lower()) for site in sites)
    ]  # an organ is its own site
    return (tracked or [_name(group)])[0], ", ".join([*said, *sites])


def _site(item: Dataset) -> str:
    side = [_meaning(child, "ConceptCodeSequence") for child in item.get("ContentSequence", ())]
    return _meaning(item, "ConceptCodeSequence") + (f" ({side[0]})" if side else "")


def _told(item: Dataset) -> tuple[str, str]:
    """Give name and value of one item; measurements in the words that the overview page has for them."""
    match item.ValueType:
        case "NUM":
            measurement = _measurement(item)
            return named(measurement), valued(measurement)
        case "TEXT":
            return _name(item), str(item.get("TextValue", ""))
        case "CODE":
            return _name(item), _meaning(item, "ConceptCodeSequence")
        case "IMAGE":
            segment = item.ReferencedSOPSequence[0].get("ReferencedSegmentNumber")
            return _name(item), f"number {segment}" if segment else ""
        case "SCOORD3D" if item.GraphicType == "POINT":
            x, y, z = (float(mm) for mm in item.GraphicData)
            return "Place", placed((x, y, z))
        case _:
            return _name(item), ""


def _measurement(item: Dataset) -> Measurement:
    measured, reason = item.get("MeasuredValueSequence"), item.get("NumericValueQualifierCodeSequence")
    derivation = [child.ConceptCodeSequence for child in item.get("ContentSequence", ()) if _code(child) == _DERIVATION]
    return Measurement(
        name=_concept(item.ConceptNameCodeSequence),
        value=float(measured[0].NumericValue) if measured else None,
        unit=_concept(measured[0].MeasurementUnitsCodeSequence) if measured else Code("", "", ""),
        derivation=_concept(derivation[0]) if derivation else None,
        reason=_concept(reason) if reason else None,
    )


def _concept(sequence: Sequence[Dataset]) -> Code:
    code = sequence[0]
    return Code(str(code.CodeValue), str(code.CodingSchemeDesignator), str(code.CodeMeaning))


def _code(item: Dataset) -> str:
    return _meaning(item, "ConceptNameCodeSequence", "CodeValue")


def _name(item: Dataset) -> str:
    return _meaning(item, "ConceptNameCodeSequence")


def _meaning(item: Dataset, keyword: str, what: str = "CodeMeaning") -> str:
    codes = item.get(keyword)
    return str(codes[0].get(what, "")) if codes else ""


def _flags(sr: Dataset) -> str:
    flags = [str(sr.get(flag, "")) for flag in ("CompletionFlag", "PreliminaryFlag", "VerificationFlag")]
    return ", ".join(flag.lower() for flag in flags if flag)


def _images(item: Dataset) -> int:
    own = int(item.get("ValueType") == "IMAGE")
    return own + sum(_images(child) for child in item.get("ContentSequence", ()))
