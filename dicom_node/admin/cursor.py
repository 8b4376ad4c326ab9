"""Where a list goes on: after its last row, by the columns it is sorted by. Nobody but us reads it."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Any

from fastapi import HTTPException


def cursor_of(*parts: Any) -> str:
    """Write down where a list goes on."""
    told = [part.isoformat() if isinstance(part, datetime) else part for part in parts]
    return base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")


def read_cursor(cursor: str, *kinds: type) -> list[Any]:
    """Read it back, as values of these kinds.

    Raises
    ------
    HTTPException
        400 when it is none of ours.
    """
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        read = [datetime.fromisoformat(p) if k is datetime else p for p, k in zip(parts, kinds, strict=True)]
        fine = all(isinstance(value, kind) for value, kind in zip(read, kinds, strict=True))
        aware = all(value.tzinfo is not None for value in read if isinstance(value, datetime))
        small = all(abs(value) < 2**63 for value in read if isinstance(value, int))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        fine = aware = small = False
        read = []
    if not (fine and aware and small):
        raise HTTPException(400, "The cursor is not one that this node gave.")
    return read
