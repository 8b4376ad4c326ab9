"""The jobs as an operator asks for them: filtered, newest first, each with its results and deliveries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select, union_all

from dicom_node.db import tables as t
from dicom_node.db.holders import with_proof
from dicom_node.db.shortened import starts_with
from dicom_node.domain.job import JobState


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs; an empty field does not filter. A job's id may be shortened to its first characters.

    `after` is the job that a page goes on after: when it was made, its run and its id.
    """

    job: str = ""
    state: str = ""
    states: tuple[str, ...] = ()
    patient: str = ""
    accession: str = ""
    study: str = ""
    series: str = ""
    model: str = ""
    since: datetime | None = None
    after: tuple[datetime, int, str] | None = None
    limit: int = 50


def list_jobs(tx: Connection, which: JobFilter) -> list[dict[str, Any]]:
    """Find jobs, newest first.

    Returns
    -------
    list of dict
        As ``dicom-node jobs --json`` prints them: the job's columns, ``patient_id``, ``accession_number``, the UIDs,
        ``steps_s`` of the last attempt, and lists of ``inputs`` (of a job on several series), ``results`` and
        ``deliveries``. Times are aware datetimes.
    """
    rows = tx.execute(_query(which)).all()
    ids = [row.id for row in rows]
    attempts = {(row.job_id, row.n): row for row in tx.execute(select(_a).where(_a.c.job_id.in_(ids)))}
    results = _by_job(tx, select(t.result).where(t.result.c.job_id.in_(ids)).order_by(t.result.c.kind))
    deliveries = _by_job(
        tx,
        with_proof(select(t.delivery, t.result.c.kind, t.result.c.sop_instance_uid))
        .join(t.result, t.result.c.id == t.delivery.c.result_id)
        .where(t.delivery.c.job_id.in_(ids))
        .order_by(t.delivery.c.destination, t.delivery.c.position),
    )
    inputs = _by_job(
        tx,
        select(t.job_input, t.series.c.series_instance_uid, t.series.c.series_description)
        .join(t.series, t.series.c.id == t.job_input.c.series_id)
        .where(t.job_input.c.job_id.in_(ids))
        .order_by(t.job_input.c.position),
    )
    return [
        {
            **_pick(row, _JOB),
            "steps_s": dict(attempts[row.id, row.attempt].steps_s or {}) if (row.id, row.attempt) in attempts else {},
            "inputs": [_pick(one, _INPUT) for one in inputs[row.id]],
            "results": [_pick(result, _RESULT) for result in results[row.id]],
            "deliveries": [_pick(delivery, _DELIVERY) for delivery in deliveries[row.id]],
        }
        for row in rows
    ]


def list_series(tx: Connection) -> Sequence[Row[Any]]:
    """Read every series, the one that was received first coming first."""
    return tx.execute(select(t.series).order_by(t.series.c.first_received_at, t.series.c.id)).all()


_a = t.job_attempt
_JOB = (
    *("id", "series_id", "state", "rule", "model", "model_version", "run_no", "series_revision", "priority"),
    *("attempt", "max_attempts", "created_at", "started_at", "finished_at", "next_attempt_at", "error", "supersedes"),
    *("failure", "report"),
    *("patient_id", "accession_number", "study_instance_uid", "series_instance_uid", "series_description"),
)
_ORDER = (t.job.c.created_at.desc(), t.job.c.run_no.desc(), t.job.c.id)
_INPUT = ("role", "series_id", "series_instance_uid", "series_description", "series_revision")
_RESULT = (
    *("kind", "sop_instance_uid", "sop_class_uid", "series_instance_uid"),
    *("path", "size", "summary", "deleted_at"),
)
_DELIVERY = (
    *("id", "destination", "kind", "sop_instance_uid", "state", "attempt"),
    *("last_status", "last_error", "next_attempt_at", "finished_at"),
    *("proof", "committed_at", "seen_at", "proof_said"),
)


def _query(which: JobFilter) -> Any:
    series, study, job = t.series.c, t.study.c, t.job.c
    wanted: list[tuple[object, ColumnElement[bool]]] = [
        (which.job, starts_with(job.id, which.job)),
        (which.state, job.state == which.state),
        (which.patient, study.patient_id == which.patient),
        (which.accession, study.accession_number == which.accession),
        (which.study, study.study_instance_uid == which.study),
        (which.series, or_(series.series_instance_uid == which.series, job.id.in_(_with_input(which.series)))),
        (which.model, job.model == which.model),
    ]
    if which.after is not None:
        wanted.append((True, _after(*which.after)))
    if which.since is not None:
        wanted.append((True, job.created_at >= which.since))
    conditions = [condition for given, condition in wanted if given]
    states = which.states or (tuple(JobState) if which.model and not which.state else ())
    if states:
        conditions.append(job.id.in_(_newest_of_each(states, which.limit, conditions)))
    return (
        select(
            t.job,
            series.series_instance_uid,
            series.series_description,
            study.study_instance_uid,
            study.patient_id,
            study.accession_number,
        )
        .join(t.series, series.id == job.series_id)
        .join(t.study, study.id == series.study_id)
        .where(*conditions)
        .order_by(*_ORDER)
        .limit(which.limit)
    )


def _with_input(series_instance_uid: str) -> Any:
    """Jobs that work on a series among others."""
    used, series = t.job_input.c, t.series.alias()
    of_series = select(used.job_id).join(series, series.c.id == used.series_id)
    return of_series.where(series.c.series_instance_uid == series_instance_uid)


def _newest_of_each(states: Sequence[str], limit: int, conditions: Sequence[ColumnElement[bool]]) -> Any:
    """The newest jobs of each state apart: of one state an index has them in order, of several it has not."""
    of_jobs = select(t.job.c.id).join(t.series, t.series.c.id == t.job.c.series_id)
    of_jobs = of_jobs.join(t.study, t.study.c.id == t.series.c.study_id).where(*conditions).order_by(*_ORDER)
    of_each = [of_jobs.where(t.job.c.state == state).limit(limit).subquery() for state in states]
    return union_all(*(select(one.c.id) for one in of_each))


def _after(at: datetime, run_no: int, job_id: str) -> ColumnElement[bool]:
    """Of the order below: newest first, of one moment the later run first."""
    job = t.job.c
    same_moment = and_(job.created_at == at, or_(job.run_no < run_no, and_(job.run_no == run_no, job.id > job_id)))
    return or_(job.created_at < at, same_moment)


def _by_job(tx: Connection, query: Any) -> Mapping[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in tx.execute(query):
        found[row.job_id].append(row)
    return found


def _pick(row: Row[Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row._mapping[name] for name in names}
