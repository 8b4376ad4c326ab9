"""Read the attributes kept from an instance, whatever a device wrote into them.

A header maps a DICOM keyword to text, a number or a list of them; what is absent is absent or None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_LARGEST = 1e6  # metres of patient, or a number of frames: beyond it a number is garbage


def texts(header: Mapping[str, Any], keyword: str) -> tuple[str, ...]:
    """Return the values of an attribute as trimmed text; empty when it is absent or empty."""
    value = header.get(keyword)
    values = value if isinstance(value, (list, tuple)) else str(value).split("\\") if value is not None else ()
    trimmed = tuple(str(v).strip(" \0") for v in values if v is not None)
    return trimmed if any(trimmed) else ()


def numbers(header: Mapping[str, Any], keyword: str, length: int) -> tuple[float, ...]:
    """Return the numbers of an attribute; empty unless there are exactly `length` of them, all of sane size."""
    try:
        found = tuple(float(text) for text in texts(header, keyword))
    except ValueError:
        return ()
    return found if len(found) == length and all(math.fabs(n) <= _LARGEST for n in found) else ()
