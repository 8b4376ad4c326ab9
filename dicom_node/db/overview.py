"""What the first glance asks: counts, ages, who is alive, how long a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from sqlalchemy import Connection, Row, func, select, text

from dicom_node.db import tables as t
from dicom_node.db.series import LACKS_JOB
from dicom_node.domain.audit import Event
from dicom_node.domain.delivery import DeliveryState
from dicom_node.domain.job import JobState

_HISTORY = 40  # attempts that the usual time of a model is taken from
_j, _a, _d, _s = t.job.c, t.job_attempt.c, t.delivery.c, t.series.c
_OPEN = (JobState.SCHEDULED.value, JobState.IN_PROGRESS.value)
_UNSENT = (DeliveryState.WAITING.value, DeliveryState.SENDING.value)


@dataclass(frozen=True, slots=True)
class Counts:
    """What there is now, and what ended since a time."""

    receiving: int
    scheduled: int
    running: int
    completed: int
    failed: int
    unsent: int
    undeliverable: int
    without_job: int
    oldest_scheduled: datetime | None
    oldest_unsent: datetime | None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a model has held at most, in MiB: of main memory, and of the GPU's; 0 where it ran on none."""

    main_mib: int
    gpu_mib: int


@dataclass(frozen=True, slots=True)
class Late:
    """What a destination has not taken yet although it was tried: how many objects, why, and when it is tried again."""

    objects: int
    last_error: str
    next_attempt_at: datetime


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A peer whose associations were rejected, for one reason."""

    calling_ae: str
    called_ae: str
    peer_address: str
    reason: str
    times: int
    last_at: datetime


def ping(tx: Connection) -> None:
    """Ask the database for an answer."""
    tx.execute(text("SELECT 1"))


def counts(tx: Connection, since: datetime) -> Counts:
    """Count what is open, and what ended since a time."""
    is_open = dict(_pairs(tx, select(_j.state, func.count()).where(_j.state.in_(_OPEN)).group_by(_j.state)))
    lately = _j.state.in_([state.value for state in JobState if state.is_final]), _j.finished_at >= since
    ended = dict(_pairs(tx, select(_j.state, func.count()).where(*lately).group_by(_j.state)))
    deliveries = dict(
        _pairs(tx, select(_d.state, func.count()).where(_d.state.in_((*_UNSENT, "failed"))).group_by(_d.state))
    )
    oldest = select(func.min(_d.created_at))
    return Counts(
        receiving=int(tx.scalar(select(func.count()).select_from(t.series).where(_s.state == "receiving")) or 0),
        scheduled=is_open.get(JobState.SCHEDULED.value, 0),
        running=is_open.get(JobState.IN_PROGRESS.value, 0),
        completed=ended.get(JobState.COMPLETED.value, 0),
        failed=ended.get(JobState.FAILED.value, 0),
        unsent=sum(deliveries.get(state, 0) for state in _UNSENT),
        undeliverable=deliveries.get(DeliveryState.FAILED.value, 0),
        without_job=int(
            tx.scalar(select(func.count()).select_from(t.series).where(LACKS_JOB, _s.closed_at >= since)) or 0
        ),
        oldest_scheduled=tx.scalar(select(func.min(_j.created_at)).where(_j.state == JobState.SCHEDULED.value)),
        # state by state: of several at once PostgreSQL looks through all deliveries, the oldest first
        oldest_unsent=min(
            filter(None, (tx.scalar(oldest.where(_d.state == state)) for state in _UNSENT)), default=None
        ),
    )


def receiving(tx: Connection, limit: int = 20) -> Sequence[Row[Any]]:
    """Read the series that instances still may come for, the newest first."""
    columns = (t.series, t.study.c.accession_number, t.study.c.patient_id, t.study.c.study_instance_uid)
    joined = select(*columns).join(t.study, t.study.c.id == _s.study_id)
    return tx.execute(joined.where(_s.state == "receiving").order_by(_s.last_received_at.desc()).limit(limit)).all()


def late(tx: Connection) -> dict[str, Late]:
    """Find the destinations at which something waits that was tried already, by name; those that are paused, too."""
    waiting = _d.state == DeliveryState.WAITING.value
    tried = select(_d.last_error, _d.next_attempt_at).where(
        waiting, _d.last_error.is_not(None), _d.next_attempt_at.is_not(None)
    )
    found = {}
    counted = select(_d.destination, func.count()).where(waiting).group_by(_d.destination).order_by(_d.destination)
    for name, objects in tx.execute(counted).all():
        row = tx.execute(tried.where(_d.destination == name).order_by(_d.next_attempt_at).limit(1)).first()
        if row is not None:
            found[name] = Late(objects, row.last_error, row.next_attempt_at)
    return found


def turned_away(tx: Connection, since: datetime, limit: int) -> list[TurnedAway]:
    """Read whose associations were rejected since a time, who came last first; of the newest thousand."""
    e = t.audit_event.c
    asked = select(e.at, e.detail).where(e.event == Event.ASSOCIATION_REJECTED.value, e.at >= since)
    grouped: dict[tuple[str, ...], list[datetime]] = {}
    for row in tx.execute(asked.order_by(e.at.desc()).limit(1000)):
        who = tuple(str(row.detail.get(key) or "") for key in ("from", "to", "address", "reason"))
        grouped.setdefault(who, []).append(row.at)
    return [
        TurnedAway(calling, called, address, reason, len(times), times[0])
        for (calling, called, address, reason), times in list(grouped.items())[:limit]
    ]


def usual_s(tx: Connection, model: str) -> float | None:
    """How long an attempt of a model usually takes, in seconds: the median of the last that completed."""
    recent = (
        select(_a.started_at, _a.ended_at)
        .join(t.job, (_j.id == _a.job_id) & (_j.attempt == _a.n))
        .where(_j.state == JobState.COMPLETED.value, _j.model == model, _a.outcome == "completed")
        .order_by(_j.created_at.desc())
        .limit(_HISTORY)
    )
    took = [(row.ended_at - row.started_at).total_seconds() for row in tx.execute(recent) if row.ended_at]
    return median(took) if took else None


def model_seconds(tx: Connection, model: str) -> tuple[float, int] | None:
    """How long a loaded model usually computes on a series, without reading and writing; of how many attempts."""
    recent = (
        select(_a.steps_s)
        .join(t.job, (_j.id == _a.job_id) & (_j.attempt == _a.n))
        .where(_j.state == JobState.COMPLETED.value, _j.model == model, _a.outcome == "completed")
        .order_by(_j.created_at.desc())
        .limit(_HISTORY)
    )
    took = [_model_part(steps) for steps in tx.scalars(recent) if steps]
    return (median(took), len(took)) if took else None


def usual_memory(tx: Connection, model: str, digest: str = "") -> Memory | None:
    """How much memory a model has held at most in its last attempts that completed; None without such a past.

    Parameters
    ----------
    digest : str
        Of the model's bytes: attempts of others of its name do not count. Empty counts all of them.
    """
    recent = (
        select(_a.memory_mib, _a.gpu_memory_mib)
        .join(t.job, (_j.id == _a.job_id) & (_j.attempt == _a.n))
        .where(_j.state == JobState.COMPLETED.value, _j.model == model, _a.memory_mib.is_not(None))
        .order_by(_j.created_at.desc())
        .limit(_HISTORY)
    )
    rows = tx.execute(recent.where(_a.model_digest == digest) if digest else recent).all()
    if not rows:
        return None
    return Memory(max(row.memory_mib for row in rows), max(row.gpu_memory_mib or 0 for row in rows))


def running_since(tx: Connection, jobs: Sequence[str]) -> dict[str, datetime]:
    """When the attempts that run now were started, by job."""
    running = select(_a.job_id, func.max(_a.started_at)).where(_a.job_id.in_(jobs), _a.ended_at.is_(None))
    return dict(_pairs(tx, running.group_by(_a.job_id)))


def processes(tx: Connection, since: datetime) -> Sequence[Row[Any]]:
    """Read who is alive, and who ended since a time; the living first."""
    node = t.node.c
    wanted = (node.state == "alive") | (node.beat_at >= since)
    return tx.execute(
        select(t.node).where(wanted).order_by(node.state, node.role, node.host, node.slot).limit(100)
    ).all()


def senders(tx: Connection, limit: int) -> Sequence[Row[Any]]:
    """Read who has sent with which software, who sent last first."""
    a = t.association.c
    who = a.calling_ae, a.called_ae, a.peer_address, a.implementation
    counted = (
        func.count().label("associations"),
        func.sum(a.stored).label("stored"),
        func.sum(a.refused).label("refused"),
    )
    last = func.max(a.started_at).label("last_at")
    return tx.execute(select(*who, *counted, last).group_by(*who).order_by(last.desc()).limit(limit)).all()


def by_model(tx: Connection, since: datetime) -> dict[str, dict[str, int]]:
    """Count the jobs made since a time, by model and state."""
    counted: dict[str, dict[str, int]] = {}
    asked = select(_j.model, _j.state, func.count()).where(_j.created_at >= since).group_by(_j.model, _j.state)
    for model, state, number in tx.execute(asked):
        counted.setdefault(model, {})[state] = number
    return counted


def by_rule(tx: Connection, since: datetime) -> dict[str, int]:
    """Count the jobs made since a time, by rule."""
    return dict(_pairs(tx, select(_j.rule, func.count()).where(_j.created_at >= since).group_by(_j.rule)))


def by_destination(tx: Connection, since: datetime) -> dict[str, dict[str, Any]]:
    """Count what waits and failed, and what was delivered since a time; with the last success and the last error."""
    found: dict[str, dict[str, Any]] = {}
    still = select(_d.destination, _d.state, func.count()).where(_d.state.in_((*_UNSENT, "failed")))
    for name, state, number in tx.execute(still.group_by(_d.destination, _d.state)):
        found.setdefault(name, {})[state] = number
    done = select(_d.destination, func.count(), func.max(_d.finished_at))
    done = done.where(_d.state == DeliveryState.DELIVERED.value, _d.created_at >= since).group_by(_d.destination)
    for name, number, last in tx.execute(done):
        found.setdefault(name, {}).update(delivered=number, last_delivered_at=last)
    return found


def _model_part(steps: dict[str, float]) -> float:
    ours = ("read", "measure", "prove", "load model")  # the model stays loaded from one job to the next
    return sum(seconds for step, seconds in steps.items() if step not in ours and not step.startswith("write "))


def _pairs(tx: Connection, query: Any) -> list[tuple[Any, Any]]:
    return [(row[0], row[1]) for row in tx.execute(query)]
