"""Batches of studies that are asked back from an archive, item by item."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

LONGEST = 64
MOST_ITEMS = 20_000
_WILD = set("*?\\")


class BatchState(StrEnum):
    """Where a batch stands."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELED = "canceled"
    DONE = "done"


class ItemState(StrEnum):
    """Where one item of it stands. An item that was under way when its process died is waiting again."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


class Kind(StrEnum):
    """By what an item names its study."""

    ACCESSION = "accession number"
    STUDY = "study UID"


def values_of(lines: Iterable[str], word: str) -> list[str]:
    """Read a list: one value a line, or of a CSV with a head the column whose name holds the word."""
    rows = [[cell.strip().strip('"') for cell in re.split(r"[,;\t]", line)] for line in lines if line.strip()]
    if not rows:
        return []
    head = [re.sub(r"[^a-z]", "", cell.lower().lstrip("\ufeff")) for cell in rows[0]]
    named = [n for n, cell in enumerate(head) if word in cell and "date" not in cell and "description" not in cell]
    column = named[0] if named else 0
    return [row[column] for row in rows[1 if named else 0 :] if len(row) > column and row[column]]


def problem_of(kind: Kind, value: str) -> str:
    """Say why a value cannot be asked for; empty when it can.

    A wildcard (PS3.4 C.2.2.2.4) would ask for everybody's studies.
    """
    if not value or len(value) > LONGEST or not value.isprintable():
        return f"{value[:LONGEST]!r} is no {kind}"
    if _WILD & set(value):
        return f"{value!r} holds a wildcard"
    if kind is Kind.STUDY and not all(part.isdigit() for part in value.split(".")):
        return f"{value!r} is no UID"
    return ""
