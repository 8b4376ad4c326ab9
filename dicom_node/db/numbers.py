"""How much waits, how old it is, what is alive: the numbers of metrics and health. Each is answered by an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, or_, select, text

from dicom_node.db import tables as t
from dicom_node.domain.delivery import DeliveryState
from dicom_node.domain.job import JobState

_j, _d, _e, _i = t.job.c, t.delivery.c, t.audit_event.c, t.instance.c
_OPEN = (JobState.SCHEDULED.value, JobState.IN_PROGRESS.value)
_UNPROVEN = (DeliveryState.WAITING.value, DeliveryState.SENDING.value, DeliveryState.FAILED.value)


@dataclass(frozen=True, slots=True)
class Numbers:
    """One look at the database.

    Attributes
    ----------
    now : datetime
        The database's clock.
    jobs : mapping of (str, str) to int
        Open jobs by state and model.
    oldest_due : datetime, optional
        When the job was made that waits longest for a worker and not for its next attempt.
    deliveries : mapping of (str, str) to int
        Deliveries that are not done, by state and destination.
    oldest_waiting : mapping of str to datetime
        When the delivery was asked for that waits longest, by destination.
    receiving : int
        Series that still arrive.
    studies : mapping of str to int
        Studies that wait for series, by rule.
    processes : mapping of str to int
        Processes that beat, by role.
    unchained, oldest_unchained : int, datetime
        Audit events without a place in the chain.
    sweeps : mapping of str to datetime
        When each sweep of the maintainer last went through.
    size_bytes : int
        Of the database.
    """

    now: datetime
    jobs: dict[tuple[str, str], int]
    oldest_due: datetime | None
    deliveries: dict[tuple[str, str], int]
    oldest_waiting: dict[str, datetime]
    receiving: int
    studies: dict[str, int]
    processes: dict[str, int]
    unchained: int
    oldest_unchained: datetime | None
    sweeps: dict[str, datetime]
    size_bytes: int


def read_numbers(tx: Connection) -> Numbers:
    """Look at the database once."""
    now: datetime = tx.execute(select(t.clock())).scalar_one()
    jobs = tx.execute(
        select(_j.state, _j.model, func.count()).where(_j.state.in_(_OPEN)).group_by(_j.state, _j.model)
    ).all()
    is_due = or_(_j.next_attempt_at.is_(None), _j.next_attempt_at <= now)
    oldest = tx.scalar(select(func.min(_j.created_at)).where(_j.state == JobState.SCHEDULED.value, is_due))
    deliveries = tx.execute(
        select(_d.state, _d.destination, func.count()).where(_d.state.in_(_UNPROVEN)).group_by(_d.state, _d.destination)
    ).all()
    waiting = tx.execute(
        select(_d.destination, func.min(_d.asked_at))
        .where(_d.state == DeliveryState.WAITING.value)
        .group_by(_d.destination)
    ).all()
    rule = t.study_wait.c.rule
    waits = tx.execute(select(rule, func.count()).group_by(rule)).all()
    node = t.node.c
    alive = tx.execute(select(node.role, func.count()).where(node.state == "alive").group_by(node.role)).all()
    tail = tx.execute(select(func.count(), func.min(_e.at)).where(_e.chain_no.is_(None))).one()
    sweeps = tx.execute(select(t.sweep.c.name, t.sweep.c.ended_at).where(t.sweep.c.ended_at.is_not(None))).all()
    receiving = select(func.count()).select_from(t.series).where(t.series.c.state == "receiving")
    return Numbers(
        now=now,
        jobs={(state, model): count for state, model, count in jobs},
        oldest_due=oldest,
        deliveries={(state, destination): count for state, destination, count in deliveries},
        oldest_waiting=dict(tuple(row) for row in waiting),
        receiving=int(tx.scalar(receiving) or 0),
        studies=dict(tuple(row) for row in waits),
        processes=dict(tuple(row) for row in alive),
        unchained=tail[0],
        oldest_unchained=tail[1],
        sweeps=dict(tuple(row) for row in sweeps),
        size_bytes=_size(tx),
    )


def last_ids(tx: Connection) -> tuple[int, int]:
    """The newest audit event and the newest instance."""
    return int(tx.scalar(select(func.max(_e.id))) or 0), int(tx.scalar(select(func.max(_i.id))) or 0)


def events_between(tx: Connection, after: int, until: datetime, limit: int) -> Sequence[Any]:
    """Read what happened after an audit event, oldest first: the event, its job's model and times, its delivery's.

    `until` leaves out the newest: another transaction may still commit an event with a lower id.
    """
    return tx.execute(
        select(
            _e.id,
            _e.event,
            _e.detail,
            _j.model,
            _j.created_at,
            _j.started_at,
            _j.finished_at,
            t.job_attempt.c.steps_s,
            _d.destination,
            _d.created_at.label("sent_from"),
            _d.finished_at.label("sent_at"),
        )
        .select_from(t.audit_event)
        .outerjoin(t.job, _j.id == _e.job_id)
        .outerjoin(t.job_attempt, (t.job_attempt.c.job_id == _j.id) & (t.job_attempt.c.n == _j.attempt))
        .outerjoin(t.delivery, _d.id == _e.delivery_id)
        .where(_e.id > after, _e.at <= until)
        .order_by(_e.id)
        .limit(limit)
    ).all()


def instances_between(tx: Connection, after: int, until: datetime) -> tuple[int, Sequence[Any]]:
    """Count what was received after an instance, `until` a time: the newest id, and (AE, count, bytes) by source."""
    new = (_i.id > after, _i.received_at <= until)
    last = tx.scalar(select(func.max(_i.id)).where(*new))
    if last is None:
        return after, ()
    rows = tx.execute(
        select(t.series.c.source_ae, func.count(), func.sum(_i.size))
        .join(t.series, t.series.c.id == _i.series_id)
        .where(*new)
        .group_by(t.series.c.source_ae)
    ).all()
    return last, rows


def _size(tx: Connection) -> int:
    if tx.dialect.name == "postgresql":
        return int(tx.scalar(text("SELECT pg_database_size(current_database())")) or 0)
    pages, size = (tx.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size"))
    return int(pages * size)
