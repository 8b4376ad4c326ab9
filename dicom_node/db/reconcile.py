"""Jobs, reports and deliveries that nothing will ever run: found, and given back to the engine.

It should not happen: each is enqueued in the transaction that makes it due. It does when the engine gives a run up by
itself, or when somebody deletes the engine's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, select, update

from dicom_node.db import tables as t
from dicom_node.db.engine import utc_now
from dicom_node.domain.delivery import DeliveryState
from dicom_node.domain.job import JobState, ReportState

_j, _d = t.job, t.delivery


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A job, the report of one, or a delivery that should be enqueued or running, as it stood when it was read."""

    kind: str
    id: str
    state: str
    attempt: int
    next_attempt_at: datetime | None
    priority: int = 10
    destination: str = ""


class AgainQueue(Protocol):
    """The part of the engine that takes a job, report or delivery anew."""

    def again(self, tx: Connection, unfinished: Unfinished, delay_s: float) -> None:
        """Enqueue under a number that the engine has not seen."""


def unfinished(tx: Connection) -> list[Unfinished]:
    """Read what the engine must know of. A delivery that waits for another object of its job is not among them."""
    jobs = select(_j.c.id, _j.c.state, _j.c.attempt, _j.c.next_attempt_at, _j.c.priority).where(
        _j.c.state.in_((JobState.SCHEDULED.value, JobState.IN_PROGRESS.value))
    )
    reports = select(_j.c.id, _j.c.state, _j.c.report_attempt.label("attempt"), _j.c.next_attempt_at, _j.c.priority)
    waiting = (_d.c.state == DeliveryState.WAITING.value) & _d.c.next_attempt_at.is_not(None)
    deliveries = select(_d.c.id, _d.c.state, _d.c.attempt, _d.c.next_attempt_at, _d.c.destination).where(
        waiting | (_d.c.state == DeliveryState.SENDING.value)
    )
    return [
        *(Unfinished("job", **row._mapping) for row in tx.execute(jobs)),
        *(Unfinished("report", **row._mapping) for row in tx.execute(reports.where(_report_is_due()))),
        *(Unfinished("delivery", **row._mapping) for row in tx.execute(deliveries)),
    ]


def give_back(tx: Connection, one: Unfinished, queue: AgainQueue) -> bool:
    """Enqueue one that nothing will run. False: it has moved on since it was read."""
    if one.kind == "report":
        return _give_back_report(tx, one, queue)
    table, idle = (_j, JobState.SCHEDULED.value) if one.kind == "job" else (_d, DeliveryState.WAITING.value)
    as_read = (table.c.id == one.id, table.c.state == one.state, table.c.attempt == one.attempt)
    now = utc_now()
    due = one.next_attempt_at if one.state == idle and one.next_attempt_at else now
    if tx.execute(update(table).where(*as_read).values(state=idle, next_attempt_at=due)).rowcount != 1:
        return False
    if one.state != idle:
        _lose_attempt(tx, one, now)
    queue.again(tx, one, max(0.0, (due - now).total_seconds()))
    return True


def _give_back_report(tx: Connection, one: Unfinished, queue: AgainQueue) -> bool:
    as_read = (_j.c.id == one.id, _j.c.report_attempt == one.attempt, _report_is_due())
    if tx.execute(select(_j.c.id).where(*as_read).with_for_update()).first() is None:
        return False
    queue.again(tx, one, 0.0)
    return True


def _report_is_due() -> Any:
    return _j.c.report == ReportState.DUE.value


def _lose_attempt(tx: Connection, one: Unfinished, now: datetime) -> None:
    attempts: Any = t.job_attempt if one.kind == "job" else t.delivery_attempt
    owner = attempts.c.job_id if one.kind == "job" else attempts.c.delivery_id
    open_one = (owner == one.id, attempts.c.n == one.attempt, attempts.c.ended_at.is_(None))
    lost = {"ended_at": now, "outcome": "lost", "error": "the engine gave the run up"}
    tx.execute(update(attempts).where(*open_one).values(**lost))
