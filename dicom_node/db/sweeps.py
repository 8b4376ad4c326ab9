"""What one process at a time does for all: a lease on the database's clock, and how far it has come.

A holder that dies loses the lease when it runs out. One that is merely slow may lose it, too, so whatever is done under
a lease must bear being done twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, or_, select, update

from dicom_node.db import tables as t
from dicom_node.db.engine import insert_into, transaction

_s = t.sweep.c


@contextmanager
def held(engine: Engine, name: str, holder: str, seconds: float) -> Iterator[int | None]:
    """Hold the lease of a sweep for the block, or give None when somebody else holds it.

    Yields
    ------
    int or None
        The position, where the sweep went on last time.
    """
    with transaction(engine) as tx:
        position = _take(tx, name, holder, seconds)
    try:
        yield position
    finally:
        if position is not None:
            with transaction(engine) as tx:
                mine = update(t.sweep).where(_s.name == name, _s.holder == holder)
                tx.execute(mine.values(holder=None, held_until=None))


def advance(tx: Connection, name: str, holder: str, position: int) -> bool:
    """Note how far a sweep is. False: the lease is somebody else's by now, and nothing was noted."""
    mine = update(t.sweep).where(_s.name == name, _s.holder == holder)
    return tx.execute(mine.values(position=position)).rowcount == 1


def note_end(tx: Connection, name: str, told: dict[str, Any] | None = None) -> None:
    """Note that a sweep went through, and what it says of itself."""
    _ensure(tx, name)
    tx.execute(update(t.sweep).where(_s.name == name).values(ended_at=t.clock(), told=told))


def start_at(tx: Connection, name: str, position: int) -> None:
    """Have a sweep that never ran begin at `position`, so that what was before is not swept."""
    _ensure(tx, name, position)


def _take(tx: Connection, name: str, holder: str, seconds: float) -> int | None:
    _ensure(tx, name)
    now: datetime = tx.execute(select(t.clock())).scalar_one()
    free = or_(_s.held_until.is_(None), _s.held_until < now, _s.holder == holder)
    taken = update(t.sweep).where(_s.name == name, free)
    values = {"holder": holder, "held_until": now + timedelta(seconds=seconds)}
    return tx.execute(taken.values(**values).returning(_s.position)).scalar_one_or_none()


def _ensure(tx: Connection, name: str, position: int = 0) -> None:
    tx.execute(insert_into(tx, t.sweep).values(name=name, position=position).on_conflict_do_nothing())
