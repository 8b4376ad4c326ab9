"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

Row = tuple[str, ...]


def table(rows: Sequence[Row]) -> str:
    """Write a table; the first row is its head."""
    head, *body = rows
    lines = [head, ("---",) * len(head), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def named(name: str, uid: str) -> str:
    """``CT Image Storage 1.2.840.10008.5.1.4.1.1.2``."""
    return uid if name == uid else f"{name} {uid}"
