"""What became of a series as spans of one trace, made of its rows: nothing is measured while the work is done.

The trace's id is the series' own, so that every process, restart and retry of its story is in one trace. Ids of spans
derive from what they are about: one that is sent twice is the same span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from dicom_node.db.story import SeriesRows
from dicom_node.domain.audit import Event

Told = str | int | float | bool
_JOB_OVER = (Event.JOB_COMPLETED, Event.JOB_FAILED, Event.JOB_CANCELED, Event.JOB_SUPERSEDED)
_SENT = (Event.DELIVERY_DONE, Event.DELIVERY_FAILED)
_PROVED = (Event.DELIVERY_PROVEN, Event.DELIVERY_UNPROVEN)
_ROUTED = (Event.SERIES_ROUTED, Event.SERIES_UNMATCHED)
TOLD = (Event.SERIES_COMPLETE, *_ROUTED, *_JOB_OVER, *_SENT, *_PROVED)


@dataclass(frozen=True, slots=True)
class Span:
    """One step of the story. `key` names it for ever; `parent` is the key of the step that it is part of.

    `attributes` hold our own ids, counts and the names of the settings; never a UID, name or number of a patient.
    """

    key: str
    parent: str
    name: str
    started: datetime
    ended: datetime
    attributes: dict[str, Told] = field(default_factory=dict)
    failed: bool = False


def trace_id(series_id: str) -> int:
    """The 128 bits of a trace."""
    return UUID(series_id).int


def span_id(key: str) -> int:
    """The 64 bits of a span; never 0, which is no id."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") or 1


def spans_of(event: Row[Any], rows: SeriesRows) -> Iterator[Span]:
    """Tell what an audit event brought to an end."""
    if event.event == Event.SERIES_COMPLETE:
        yield from _received(event, rows)
    elif event.event in _ROUTED:
        yield from _routed(event, rows)
    elif event.event in _JOB_OVER:
        for job in rows.jobs:
            if job.id == event.job_id:
                yield from _worked(job, event, rows)
    elif event.event in (*_SENT, *_PROVED):
        for delivery in rows.deliveries:
            if delivery.id == event.delivery_id:
                yield from _delivered(delivery, event, rows)


def _received(event: Row[Any], rows: SeriesRows) -> Iterator[Span]:
    series, revision = rows.series, int(event.detail.get("revision", 1))
    reopened = [e.at for e in rows.events if e.event == Event.SERIES_REOPENED and e.id < event.id]
    since = max(reopened, default=series.first_received_at)
    arrivals = [one for one in rows.arrivals if one.last >= since and one.first <= event.at]
    last = max((one.last for one in arrivals), default=since)
    key = _of_series(series.id, revision)
    told = {"series.id": series.id, "series.revision": revision, "series.modality": series.modality}
    yield Span(key, "", "series", since, event.at, told)
    for number, one in enumerate(arrivals):
        mine = f"{key}/association/{one.id or number}"
        whole: dict[str, Told] = {"association.id": one.id or "", "association.calling_ae": one.calling_ae or ""}
        yield Span(mine, key, "association", one.started_at or one.first, one.ended_at or one.last, whole)
        stored: dict[str, Told] = {"instances": one.instances, "transfer_syntax": str(one.transfer_syntax_uid)}
        yield Span(f"{mine}/store/{one.transfer_syntax_uid}", mine, "store", one.first, one.last, stored)
    yield Span(f"{key}/assemble", key, "assemble", last, event.at, {"instances": sum(a.instances for a in arrivals)})


def _routed(event: Row[Any], rows: SeriesRows) -> Iterator[Span]:
    complete = [e for e in rows.events if e.event == Event.SERIES_COMPLETE and e.id < event.id]
    revision = int(complete[-1].detail.get("revision", 1)) if complete else 1
    key = _of_series(rows.series.id, revision)
    jobs = sum(job.on_revision == revision and job.run_no == 1 for job in rows.jobs)
    started = min(complete[-1].at, event.at) if complete else event.at
    yield Span(f"{key}/route", key, "route", started, event.at, {"jobs": jobs})


def _worked(job: Row[Any], event: Row[Any], rows: SeriesRows) -> Iterator[Span]:
    key, ended = f"job/{job.id}", job.finished_at or event.at
    told: dict[str, Told] = {
        "job.id": job.id,
        "job.state": job.state,
        "job.run": job.run_no,
        "job.attempts": job.attempt,
        "job.priority": job.priority,
        "model.name": job.model,
        "model.version": job.model_version,
        "rule": job.rule,
    }
    yield Span(
        key, _of_series(rows.series.id, job.series_revision), "job", job.created_at, ended, told, job.state == "failed"
    )
    yield Span(f"{key}/queue", key, "queue", job.created_at, job.started_at or ended)
    for attempt in rows.attempts:
        if attempt.job_id == job.id:
            yield from _attempted(attempt, key, ended)


def _attempted(attempt: Row[Any], job: str, ended: datetime) -> Iterator[Span]:
    key = f"{job}/attempt/{attempt.n}"
    told: dict[str, Told] = {"attempt": attempt.n, "executor": attempt.executor_id, "outcome": attempt.outcome or ""}
    failed = attempt.outcome not in ("completed", "canceled", "discarded")
    yield Span(key, job, "attempt", attempt.started_at, attempt.ended_at or ended, told, failed)
    at = attempt.started_at
    for step, seconds in (attempt.steps_s or {}).items():  # in the order in which they were done
        done = at + timedelta(seconds=seconds)
        yield Span(f"{key}/{step}", key, step, at, done)
        at = done


def _delivered(delivery: Row[Any], event: Row[Any], rows: SeriesRows) -> Iterator[Span]:
    key = f"delivery/{delivery.id}/{delivery.attempt}"
    ended = delivery.finished_at or event.at
    if event.event in _PROVED:
        proven = event.event == Event.DELIVERY_PROVEN
        yield Span(f"{key}/prove", key, "prove", ended, event.at, {"destination": delivery.destination}, not proven)
        return
    told: dict[str, Told] = {
        "job.id": delivery.job_id,
        "delivery.id": delivery.id,
        "destination": delivery.destination,
        "object": delivery.kind,
    }
    failed = event.event == Event.DELIVERY_FAILED
    yield Span(key, f"job/{delivery.job_id}", "deliver", delivery.asked_at, ended, told, failed)
    for attempt in rows.delivery_attempts:
        if attempt.delivery_id == delivery.id and attempt.started_at >= delivery.asked_at:
            status = f"0x{attempt.status:04X}" if attempt.status is not None else ""
            sent: dict[str, Told] = {"attempt": attempt.n, "outcome": attempt.outcome or "", "status": status}
            until, ok = attempt.ended_at or ended, attempt.outcome == "delivered"
            yield Span(f"{key}/send/{attempt.n}", key, "send", attempt.started_at, until, sent, not ok)


def _of_series(series_id: str, revision: int) -> str:
    return f"series/{series_id}/{revision}"
