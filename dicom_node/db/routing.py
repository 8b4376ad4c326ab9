"""The rows that routing writes: new jobs, and the end of those they supersede."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.engine import insert_into
from dicom_node.db.inputs import NewInput, write_inputs
from dicom_node.db.reports import cancel_report
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.delivery import DeliveryState
from dicom_node.domain.job import Failure, JobState

_OPEN = (JobState.SCHEDULED.value, JobState.IN_PROGRESS.value)
_j, _d = t.job.c, t.delivery.c


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as routing makes it. `error` is set when it can never run: then it starts as failed.

    `report_to` are the destinations that are told when it fails, from the start or later. `note` is what a reader of
    its result has to know of what it was made from. `run_no` is more than 1 when the model has a job for other
    destinations already, or one with other series beside this one. `inputs` are the series of a job on several, the
    first of which is the one that it names; such a job says itself which one it `supersedes`.
    """

    id: str
    series_id: str
    series_revision: int
    rule: str
    model: str
    model_version: str
    destinations: tuple[str, ...]
    report_to: tuple[str, ...]
    slices: tuple[str, ...]
    priority: int
    max_attempts: int
    error: str | None = None
    note: str | None = None
    run_no: int = 1
    inputs: tuple[NewInput, ...] = ()
    supersedes: str | None = None


def insert_job(tx: Connection, new: NewJob, now: datetime) -> bool:
    """Write the row of a new job. False: it is there already, and stays as it is."""
    row = {
        "id": new.id,
        "series_id": new.series_id,
        "series_revision": new.series_revision,
        "rule": new.rule,
        "model": new.model,
        "model_version": new.model_version,
        "run_no": new.run_no,
        "destinations": list(new.destinations),
        "report_to": list(new.report_to),
        "slices": list(new.slices),
        **_source_of(new.series_id),
        "priority": new.priority,
        "state": JobState.FAILED.value if new.error else JobState.SCHEDULED.value,
        "max_attempts": new.max_attempts,
        "created_at": now,
        "finished_at": now if new.error else None,
        "error": new.error,
        "note": new.note,
        "failure": Failure.NOT_ELIGIBLE.value if new.error else None,
        "supersedes": new.supersedes if new.inputs else _latest(tx, new),
    }
    # psycopg counts no inserted rows, so the row has to say itself that it is new
    inserted = insert_into(tx, t.job).values(**row).on_conflict_do_nothing().returning(_j.id)
    if tx.execute(inserted).first() is None:
        return False
    write_inputs(tx, new.id, new.inputs)
    return True


def _latest(tx: Connection, new: NewJob) -> str | None:
    """Find the last job of the model on an older revision of the series alone."""
    older = (
        select(_j.id)
        .where(_j.series_id == new.series_id, _j.model == new.model, _j.series_revision < new.series_revision, _alone())
        .order_by(_j.series_revision.desc(), _j.run_no.desc(), _j.created_at.desc())
        .limit(1)
    )
    return tx.scalar(older)


def _alone() -> ColumnElement[bool]:
    """Whether a job works on one series and no other."""
    return ~exists().where(t.job_input.c.job_id == _j.id)


def jobs_of_model(tx: Connection, series_id: str, revision: int, model: str) -> tuple[int, set[str]]:
    """How many runs of a model a revision of a series has, and the destinations that they go to."""
    mine = (_j.series_id == series_id, _j.series_revision == revision, _j.model == model)
    rows = tx.execute(select(_j.run_no, _j.destinations).where(*mine)).all()
    return max((row.run_no for row in rows), default=0), {name for row in rows for name in row.destinations}


def _source_of(series_id: str) -> dict[str, Any]:
    """Give the columns that a job takes over from its series."""
    series = t.series.c
    return {
        name: select(series[name]).where(series.id == series_id).scalar_subquery() for name in ("source_ae", "scanner")
    }


def supersede_jobs(
    tx: Connection, series_id: str, revision: int, successors: Mapping[str, str], now: datetime
) -> list[str]:
    """Cancel what the older revisions of a series still have to do or to report, and what of it waits to be sent.

    Parameters
    ----------
    successors : mapping of str to str
        The new job of each model; a model without one is canceled all the same: its series is no longer what it was.

    Returns
    -------
    list of str
        The jobs that were canceled, or of which a report or a delivery was.
    """
    older = select(_j.id, _j.model).where(_j.series_id == series_id, _j.series_revision < revision, _alone())
    jobs = tx.execute(older.order_by(_j.id)).all()
    return [job.id for job in jobs if supersede(tx, job.id, now, by=successors.get(job.model), revision=revision)]


def supersede(tx: Connection, job_id: str, now: datetime, **why: Any) -> bool:
    """Cancel what a job still has to do or to report, and what of it waits to be sent.

    Returns
    -------
    bool
        Whether there was anything.
    """
    row = tx.execute(select(_j.id, _j.series_id).where(_j.id == job_id).with_for_update()).one()
    stopped = tx.execute(
        update(t.job)
        .where(_j.id == job_id, _j.state.in_(_OPEN))
        .values(state=JobState.CANCELED.value, finished_at=now, next_attempt_at=None)
    ).rowcount
    dropped = tx.execute(
        update(t.delivery)
        .where(_d.job_id == job_id, _d.state == DeliveryState.WAITING.value)
        .values(state=DeliveryState.CANCELED.value, finished_at=now, next_attempt_at=None)
    ).rowcount
    if not (cancel_report(tx, job_id) or stopped or dropped):
        return False
    detail = {**why, "deliveries_canceled": dropped}
    record(tx, AuditEvent(Event.JOB_SUPERSEDED, series_id=row.series_id, job_id=job_id, detail=detail))
    return True
