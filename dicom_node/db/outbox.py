"""The outbox of notifications: written once for each thing to be told, kept until a channel took it or we give up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, func, or_, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.engine import insert_into, utc_now
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.job import JobState

_n, _j, _r = t.notification.c, t.job.c, t.result.c
_WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class NewNotification:
    """Something to be told over one channel. `key` says what it is about: a second one with the same is not written."""

    key: str
    rule: str
    channel: str
    subject: str
    body: dict[str, Any]
    series_id: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """One that is due. `attempt` counts from 1, this one included."""

    id: str
    rule: str
    channel: str
    subject: str
    body: dict[str, Any]
    attempt: int
    created_at: datetime
    series_id: str | None
    job_id: str | None


def put(tx: Connection, new: NewNotification) -> bool:
    """Write a notification. False: it is there already."""
    now = utc_now()
    row = {
        "id": str(uuid4()),
        "key": new.key[:200],
        "rule": new.rule,
        "channel": new.channel,
        "subject": new.subject,
        "body": new.body,
        "series_id": new.series_id,
        "job_id": new.job_id,
        "state": _WAITING,
        "created_at": now,
        "next_attempt_at": now,
    }
    written = insert_into(tx, t.notification).values(**row).on_conflict_do_nothing().returning(_n.id)
    return tx.execute(written).first() is not None


def due(tx: Connection, now: datetime, limit: int) -> list[Notification]:
    """Read what is to be sent now, the oldest first."""
    waiting = (_n.state == _WAITING, _n.next_attempt_at <= now)
    rows = tx.execute(select(t.notification).where(*waiting).order_by(_n.next_attempt_at).limit(limit))
    return [
        Notification(
            row.id,
            row.rule,
            row.channel,
            row.subject,
            row.body,
            row.attempt + 1,
            row.created_at,
            row.series_id,
            row.job_id,
        )
        for row in rows
    ]


def sent(tx: Connection, one: Notification) -> None:
    """Record that a channel took it."""
    _end(tx, one, state="sent", finished_at=utc_now(), next_attempt_at=None, last_error=None)
    record(tx, _event(Event.NOTIFICATION_SENT, one, {}))


def not_sent(tx: Connection, one: Notification, error: str, delay_s: float | None) -> None:
    """Record that a channel did not take it; it is tried again after `delay_s`, or given up when that is None."""
    if delay_s is not None:
        _end(tx, one, next_attempt_at=utc_now() + timedelta(seconds=delay_s), last_error=error)
        return
    _end(tx, one, state="failed", finished_at=utc_now(), next_attempt_at=None, last_error=error)
    record(tx, _event(Event.NOTIFICATION_FAILED, one, {"error": error}))


def segments_of(tx: Connection, job_id: str) -> list[dict[str, Any]]:
    """Read what a job marked, from the summary of its results; empty when it found nothing."""
    for summary in tx.scalars(select(_r.summary).where(_r.job_id == job_id)):
        if not summary.get("negative") and summary.get("segments"):
            return [one for one in summary["segments"] if one.get("voxels", 1)]
    return []


def oldest_due_job(tx: Connection, now: datetime) -> datetime | None:
    """When the job was made that waits longest for a worker, and not for its next attempt."""
    is_due = or_(_j.next_attempt_at.is_(None), _j.next_attempt_at <= now)
    oldest: datetime | None = tx.scalar(
        select(func.min(_j.created_at)).where(_j.state == JobState.SCHEDULED.value, is_due)
    )
    return oldest


def _end(tx: Connection, one: Notification, **values: Any) -> None:
    mine = (_n.id == one.id, _n.attempt == one.attempt - 1, _n.state == _WAITING)
    tx.execute(update(t.notification).where(*mine).values(attempt=one.attempt, **values))


def _event(event: Event, one: Notification, more: dict[str, Any]) -> AuditEvent:
    detail = {"rule": one.rule, "channel": one.channel, "attempt": one.attempt, **more}
    return AuditEvent(event, series_id=one.series_id, job_id=one.job_id, detail=detail)
