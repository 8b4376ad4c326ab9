"""Reports of failed jobs: asked for in the transaction that ends the job, made by a worker, sent like any result.

A report is a run of its own on the queue of the jobs, because a job can fail where nobody is at work on it: when its
series is refused, or when its worker died for the last time. `job.report_attempt` is the token, as `attempt` is of the
job: every ending asks for it, and writes nothing when the report was made, canceled or taken over in the meantime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol

from sqlalchemy import Connection, Row, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.deliveries import DeliveryQueue, create_deliveries
from dicom_node.db.inputs import read_inputs
from dicom_node.db.locking import lock_job
from dicom_node.db.results import write_results
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.header import numbers
from dicom_node.domain.job import FailedJob, Failure, Job, JobInput, JobInstance, JobState, ReportState, retry_delay_s
from dicom_node.domain.model import OutputKind

MOST_TRIES = 8  # over an hour; then the report is given up, and the audit trail says why
FIRST_RETRY_S, LONGEST_RETRY_S = 30.0, 3600.0

_j = t.job
_DUE = ReportState.DUE.value


class ReportQueue(DeliveryQueue, Protocol):
    """The part of the engine that reports need."""

    def report(self, tx: Connection, job_id: str, attempt: int, *, priority: int = 10, delay_s: float = 0.0) -> None:
        """Enqueue one attempt at the report of a failed job in the transaction."""


def ask_for_report(tx: Connection, job_id: str, queue: ReportQueue) -> None:
    """Enqueue the report of a job that has just failed, if anybody wants to be told."""
    row = tx.execute(select(_j.c.report_to, _j.c.priority).where(_j.c.id == job_id)).one()
    if row.report_to:
        tx.execute(update(_j).where(_j.c.id == job_id).values(report=_DUE))
        queue.report(tx, job_id, 1, priority=row.priority)


def claim_report(tx: Connection, job_id: str) -> FailedJob | None:
    """Take the next attempt at the report of a failed job.

    Returns
    -------
    FailedJob or None
        None when there is nothing to do: it was made, canceled or given up. That is what happens here to a report
        whose attempts are used up.
    """
    row = lock_job(tx, job_id)
    if row is None or row.state != JobState.FAILED.value or row.report != _DUE:
        return None
    if row.report_attempt >= MOST_TRIES:
        _give_up(tx, row.series_id, job_id, f"the worker died {MOST_TRIES} times while it wrote the report")
        return None
    n = row.report_attempt + 1
    tx.execute(update(_j).where(_j.c.id == job_id).values(report_attempt=n))
    received = _received(tx, row.series_id, row.series_revision)
    job = replace(_job(row, received), inputs=tuple(_whole(tx, one) for one in read_inputs(tx, job_id)))
    return FailedJob(job, Failure(row.failure), row.error or "The job failed.", n)


def finish_reported(
    tx: Connection,
    failed: FailedJob,
    made: Sequence[ResultObject],
    queue: ReportQueue,
    forms: Mapping[str, OutputKind] = MappingProxyType({}),
) -> bool:
    """Write the report's rows and its deliveries, all or nothing. False: it is no longer ours, or no longer wanted.

    `forms` say in which form a destination gets it; one that is not named gets the SR.
    """
    job = failed.job
    if tx.execute(update(_j).where(*_held(failed)).values(report=ReportState.MADE.value)).rowcount != 1:
        return False
    write_results(tx, job.id, made)
    results = {each.name: each.sop_instance_uid for each in made}
    detail = {"results": results, "destinations": list(job.destinations)}
    record(tx, AuditEvent(Event.REPORT_MADE, series_id=job.series_id, job_id=job.id, detail=detail))
    wanted = {name: {forms.get(name, OutputKind.SR)} for name in job.destinations}
    create_deliveries(tx, job, made, queue, wanted)
    return True


def finish_unreported(tx: Connection, failed: FailedJob, error: str, queue: ReportQueue, *, retry: bool) -> bool:
    """Record that the report could not be written; try again later where that may help. False: no longer ours."""
    job = failed.job
    if tx.execute(select(_j.c.id).where(*_held(failed)).with_for_update()).first() is None:
        return False
    if retry and failed.tried < MOST_TRIES:
        delay_s = retry_delay_s(failed.tried, first_s=FIRST_RETRY_S, longest_s=LONGEST_RETRY_S)
        queue.report(tx, job.id, failed.tried + 1, priority=job.priority, delay_s=delay_s)
    else:
        _give_up(tx, job.series_id, job.id, error)
    return True


def cancel_report(tx: Connection, job_id: str) -> bool:
    """Take a report back that is not written yet. False: there is none to take back."""
    due = (_j.c.id == job_id, _j.c.report == _DUE)
    return tx.execute(update(_j).where(*due).values(report=ReportState.CANCELED.value)).rowcount == 1


def _give_up(tx: Connection, series_id: str, job_id: str, reason: str) -> None:
    tx.execute(update(_j).where(_j.c.id == job_id).values(report=ReportState.FAILED.value))
    detail = {"reason": reason}
    record(tx, AuditEvent(Event.REPORT_FAILED, series_id=series_id, job_id=job_id, detail=detail))


def _held(failed: FailedJob) -> tuple[Any, ...]:
    return _j.c.id == failed.job.id, _j.c.report == _DUE, _j.c.report_attempt == failed.tried


def _whole(tx: Connection, one: JobInput) -> JobInput:
    """Give an input with everything that had come of its series."""
    return replace(one, instances=_received(tx, one.series_id, one.series_revision))


def _received(tx: Connection, series_id: str, revision: int) -> tuple[JobInstance, ...]:
    """Read everything that had come of a series when the job was made, not the slices alone: there may be none."""
    i = t.instance.c
    columns = (i.sop_instance_uid, i.sop_class_uid, i.transfer_syntax_uid, i.path, i.digest, i.header)
    stored = tx.execute(select(*columns).where(i.series_id == series_id, i.revision <= revision))
    return tuple(sorted((JobInstance(**found._mapping) for found in stored), key=_number))


def _number(instance: JobInstance) -> tuple[float, str]:
    number = numbers(instance.header, "InstanceNumber", 1)
    return (number[0] if number else float("inf"), instance.sop_instance_uid)


def _job(row: Row[Any], instances: tuple[JobInstance, ...]) -> Job:
    return Job(
        id=row.id,
        series_id=row.series_id,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        series_revision=row.series_revision,
        model=row.model,
        model_version=row.model_version,
        rule=row.rule,
        destinations=tuple(row.report_to),
        priority=row.priority,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        created_at=row.created_at,
        instances=instances,
    )
