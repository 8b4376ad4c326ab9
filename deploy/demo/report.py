"""What a structured report says, read from the bytes that the PACS gave back."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from pydicom import Dataset, dcmread

_TRACKING_ID, _GROUP = "112039", "125007"
_UNSPOKEN = {"112040", "111001", "111003"}  # tracking UID, algorithm name and version


def lines(content: bytes) -> Iterator[tuple[str, list[str]]]:
    """Give for each measurement group (PS3.16 TID 1411, TID 1501) its name and what is said in it."""
    for item in _items(dcmread(BytesIO(content))):
        if _concept(item) != _GROUP:
            continue
        children = list(item.get("ContentSequence", ()))
        name = next((str(c.TextValue) for c in children if _concept(c) == _TRACKING_ID), "group")
        said = [_said(c) for c in children if _concept(c) not in {_TRACKING_ID, *_UNSPOKEN}]
        yield name, [text for text in said if text]


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _items(child)


def _concept(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _said(item: Dataset) -> str:
    name = str(item.ConceptNameCodeSequence[0].CodeMeaning) if item.get("ConceptNameCodeSequence") else ""
    inside = [
        str(c.ConceptCodeSequence[0].CodeMeaning) for c in item.get("ContentSequence", ()) if c.ValueType == "CODE"
    ]
    more = f" ({', '.join(inside)})" if inside else ""
    if item.ValueType == "NUM" and item.MeasuredValueSequence:
        value = item.MeasuredValueSequence[0]
        unit = str(value.MeasurementUnitsCodeSequence[0].CodeValue)
        return f"{name}{more}: {float(value.NumericValue):g} {unit}"
    if item.ValueType == "CODE":
        return f"{name}: {item.ConceptCodeSequence[0].CodeMeaning}{more}"
    return f"{name}: {item.TextValue}" if item.ValueType == "TEXT" else ""
