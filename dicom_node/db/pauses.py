"""Paused queues, and what destinations answered when they were last asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.engine import utc_now
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.errors import ConflictError

_p, _e = t.paused_queue.c, t.destination_echo.c


def pause(tx: Connection, queue: str, reason: str, *, actor: str) -> None:
    """Pause a queue: what runs goes on, and nothing more is handed out.

    Raises
    ------
    ConflictError
        When it is paused already.
    """
    if queue in paused(tx):
        raise ConflictError(f"the queue {queue} is paused already")
    tx.execute(insert(t.paused_queue).values(queue=queue, actor=actor, reason=reason[:200], at=utc_now()))
    record(tx, AuditEvent(Event.QUEUE_PAUSED, actor=actor, detail={"queue": queue, "reason": reason[:200]}))


def resume(tx: Connection, queue: str, *, actor: str) -> None:
    """Let a queue go on.

    Raises
    ------
    ConflictError
        When it is not paused.
    """
    if tx.execute(delete(t.paused_queue).where(_p.queue == queue)).rowcount != 1:
        raise ConflictError(f"the queue {queue} is not paused")
    record(tx, AuditEvent(Event.QUEUE_RESUMED, actor=actor, detail={"queue": queue}))


def paused(tx: Connection) -> Mapping[str, Row[Any]]:
    """Read the paused queues: who paused each, when and why."""
    return {row.queue: row for row in tx.execute(select(t.paused_queue).order_by(_p.queue))}


def keep_echo(tx: Connection, destination: str, took_s: float | None, error: str | None, *, actor: str) -> None:
    """Keep what a destination answered: after how many seconds, or the error."""
    tx.execute(delete(t.destination_echo).where(_e.destination == destination))
    tx.execute(insert(t.destination_echo).values(destination=destination, at=utc_now(), took_s=took_s, error=error))
    told = {"destination": destination, "answer": error or f"answered in {(took_s or 0) * 1000:.0f} ms"}
    record(tx, AuditEvent(Event.DESTINATION_ASKED, actor=actor, detail=told))


def echoes(tx: Connection) -> Mapping[str, Row[Any]]:
    """Read the last answer of each destination that was ever asked."""
    return {row.destination: row for row in tx.execute(select(t.destination_echo))}
