"""Read the attributes kept from an instance, whatever a device wrote into them.

A header maps a DICOM keyword to text, a number or a list of them; what is absent is absent or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LARGEST = 1e6  # metres of patient, or a number of frames: beyond it a number is garbage


def texts(header: Mapping[str, Any], keyword: str) -> tuple[str, ...]:
    """Return the values of an attribute as trimmed text; empty when it is absent or empty."""
    value = header.get(keyword)
    if value is None:
        return ()
    if isinstance(value, str) and "\\" not in value:  # as most are
        value = value.strip(" \0")
        return (value,) if value else ()
    values = value if isinstance(value, (list, tuple)) else str(value).split("\\")
    trimmed = tuple([str(v).strip(" \0") for v in values if v is not None])
    return trimmed if any(trimmed) else ()


def numbers(header: Mapping[str, Any], keyword: str, length: int) -> tuple[float, ...]:
    """Return the numbers of an attribute; empty unless there are exactly `length` of them, all of sane size."""
    found = texts(header, keyword)
    if len(found) != length:
        return ()
    try:
        sane = tuple([number for text in found if abs(number := float(text)) <= _LARGEST])
    except ValueError:
        return ()
    return sane if len(sane) == length else ()
