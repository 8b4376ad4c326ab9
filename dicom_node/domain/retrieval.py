"""Batches of studies that are asked back from an archive, item by item."""

from __future__ import annotations

from enum import StrEnum

LONGEST = 64
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
