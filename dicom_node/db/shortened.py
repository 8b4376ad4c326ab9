"""A job's id may be shortened to its first characters: found by a range, which an index answers, not by LIKE."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, false

_FIRST = "00000000-0000-0000-0000-000000000000"
_LAST = "ffffffff-ffff-ffff-ffff-ffffffffffff"
_HEX = frozenset("0123456789abcdef")


def starts_with(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Whether an id starts with `text`.

    All ids have their hyphens in the same places and their letters in lower case, so the order of ids is the same in
    every collation, and what starts with a text lies between that text filled up with zeros and with f.
    """
    text = text.strip().lower()
    if not _may_be_id(text):
        return false()
    return and_(column >= text + _FIRST[len(text) :], column <= text + _LAST[len(text) :])


def _may_be_id(text: str) -> bool:
    fits = (c == place if place == "-" else c in _HEX for c, place in zip(text, _FIRST, strict=False))
    return len(text) <= len(_FIRST) and all(fits)
