"""Jobs: claimed by a worker, ended by the one who holds the attempt.

`job.attempt` is the token. Claiming takes the next number; every ending says ``WHERE id AND attempt AND state = 'in
progress'`` and writes nothing when that is no longer true: the job was canceled, or another worker took it over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Protocol

from sqlalchemy import Connection, Row, insert, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.deliveries import ALL_BINARY, create_deliveries
from dicom_node.db.engine import utc_now
from dicom_node.db.inputs import read_inputs, read_slices
from dicom_node.db.locking import lock_job
from dicom_node.db.nodes import is_alive
from dicom_node.db.reports import ReportQueue, ask_for_report
from dicom_node.db.results import documents_before, found_before, write_results
from dicom_node.db.superseded import call_back, forget_proofs
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.choice import Choice
from dicom_node.domain.encoding import Encoding
from dicom_node.domain.job import Failure, Job, JobState, Succeeded, Trace
from dicom_node.domain.model import OutputKind
from dicom_node.domain.outdated import Outdated
from dicom_node.errors import NotFoundError

EARLY = timedelta(seconds=5)  # how far ahead of its time the engine may dispatch: on SQLite it keeps whole seconds

_NO_TRACE = Trace()
_j, _a = t.job, t.job_attempt


class JobQueue(ReportQueue, Protocol):
    """The part of the engine that ending a job needs."""

    def job(self, tx: Connection, job_id: str, attempt: int, *, priority: int = 10, delay_s: float = 0.0) -> None:
        """Enqueue one attempt in the transaction."""


def claim_job(
    tx: Connection,
    job_id: str,
    executor_id: str,
    model_digests: Mapping[str, str],
    queue: ReportQueue,
    *,
    again: bool = False,
) -> Job | None:
    """Take the next attempt of a job.

    Parameters
    ----------
    model_digests : mapping of str to str
        The digest of each model that this worker knows, by name: it is recorded with the attempt.
    again : bool
        The same claim was made before and its answer was lost: if it was committed, this gives its attempt.

    Returns
    -------
    Job or None
        None when there is nothing to do: the job has ended, is not due, or another worker that lives has it. A job
        whose worker died during its last attempt is marked failed here, and its report asked for.
    """
    row = lock_job(tx, job_id)
    if row is None or JobState(row.state).is_final:
        return None
    if row.state == JobState.SCHEDULED.value and row.next_attempt_at and row.next_attempt_at - EARLY > utc_now():
        return None
    if row.state == JobState.IN_PROGRESS.value:
        holder = _holder(tx, row)
        if again and holder == executor_id:
            return _job(tx, row, row.attempt)
        # a worker runs one job at a time: that it asks for its own job again says that its attempt is over
        if holder != executor_id and is_alive(tx, holder):
            return None
        _lose_attempt(tx, row, holder)
    if row.attempt >= row.max_attempts:
        _fail(tx, row, queue, f"The worker died during attempt {row.attempt}, and no attempt is left.")
        return None
    n = row.attempt + 1
    job = _job(tx, row, n)
    has, had = _stored(job, len(row.slices))
    if has < had:
        _fail(tx, row, queue, f"{had - has} of {had} instances are no longer stored.")
        return None
    now = utc_now()
    started = {"state": JobState.IN_PROGRESS.value, "attempt": n, "next_attempt_at": None}
    tx.execute(update(_j).where(_j.c.id == job_id).values(started_at=row.started_at or now, **started))
    digest = model_digests.get(row.model, "")
    tx.execute(insert(_a).values(job_id=job_id, n=n, executor_id=executor_id, model_digest=digest, started_at=now))
    record(tx, _event(Event.JOB_STARTED, row, attempt=n, executor=executor_id))
    return job


def finish_completed(
    tx: Connection,
    job: Job,
    outcome: Succeeded,
    queue: JobQueue,
    choices: Mapping[str, Choice] = MappingProxyType({}),
    encodings: Mapping[str, Encoding] = ALL_BINARY,
) -> bool:
    """Write results, deliveries and the job's end, all or nothing. False: the attempt is no longer ours.

    `choices` say what a destination gets and why; one that is not named gets everything. `encodings` say how it wants
    segmentations, as `create_deliveries` takes them.
    """
    if not _end(tx, job, "completed", JobState.COMPLETED, trace=outcome.trace, error=None, finished_at=utc_now()):
        return False
    write_results(tx, job.id, outcome.results)
    detail = {"attempt": job.attempt, "results": {r.name: r.sop_instance_uid for r in outcome.results}}
    record(tx, AuditEvent(Event.JOB_COMPLETED, series_id=job.series_id, job_id=job.id, detail=detail))
    for destination, choice in choices.items():
        if choice.why:
            chosen = _choice(destination, choice, {made.kind for made in outcome.results})
            record(tx, AuditEvent(Event.OBJECTS_CHOSEN, series_id=job.series_id, job_id=job.id, detail=chosen))
    made = {each.kind for each in outcome.results}
    wanted = {destination: choice.of(made) for destination, choice in choices.items()}
    if outcome.outdated:
        call_back(tx, job.id)  # what was being sent when they were looked for may wait for another try by now
    for group in outcome.outdated:
        _put_aside(tx, job, group)
    create_deliveries(tx, job, outcome.results, queue, wanted, encodings)
    return True


def _put_aside(tx: Connection, job: Job, group: Outdated) -> None:
    """Tell what becomes of outdated objects; of what is rejected, no proof is wanted any more."""
    event = Event.OUTDATED_LEFT if group.why_left else Event.OUTDATED_REJECTED
    if not group.why_left:
        forget_proofs(tx, [each.sop_instance_uid for each in group.objects], group.destinations)
    for destination in group.destinations:
        detail = {"destination": destination, "objects": len(group.objects), "reason": group.why_left}
        known = {key: value for key, value in detail.items() if value}
        record(tx, AuditEvent(event, series_id=job.series_id, job_id=job.id, detail=known))


def _choice(destination: str, choice: Choice, made: Collection[OutputKind]) -> dict[str, Any]:
    """Tell what a destination gets of what was made, why, and in place of what."""
    instead = {kind.value: [each.value for each in found if each in made] for kind, found in choice.instead.items()}
    return {
        "destination": destination,
        "kinds": [kind.value for kind in OutputKind if kind in made and kind in choice.kinds],
        "why": choice.why,
        "instead": instead,
    }


def finish_retry(
    tx: Connection, job: Job, error: str, delay_s: float, queue: JobQueue, trace: Trace = _NO_TRACE
) -> bool:
    """Record a failed attempt and enqueue the next one after `delay_s`. False: the attempt is no longer ours."""
    due = utc_now() + timedelta(seconds=delay_s)
    if not _end(tx, job, "retry", JobState.SCHEDULED, trace=trace, error=error, next_attempt_at=due):
        return False
    queue.job(tx, job.id, job.attempt + 1, priority=job.priority, delay_s=delay_s)
    detail = {"attempt": job.attempt, "error": error, "next_attempt_at": due.isoformat(timespec="seconds")}
    record(tx, AuditEvent(Event.JOB_RETRY, series_id=job.series_id, job_id=job.id, detail=detail))
    return True


def finish_failed(
    tx: Connection, job: Job, error: str, failure: Failure, queue: ReportQueue, trace: Trace = _NO_TRACE
) -> bool:
    """Record that the job failed for good, and ask for its report. False: the attempt is no longer ours."""
    values: dict[str, Any] = {"failure": failure.value, "finished_at": utc_now()}
    if not _end(tx, job, "failed", JobState.FAILED, trace=trace, error=error, **values):
        return False
    detail = {"attempt": job.attempt, "error": error}
    record(tx, AuditEvent(Event.JOB_FAILED, series_id=job.series_id, job_id=job.id, detail=detail))
    ask_for_report(tx, job.id, queue)
    return True


def finish_interrupted(tx: Connection, job: Job, queue: JobQueue) -> bool:
    """Give the job back because the worker stops in good order: enqueued at once, and the attempt does not count.

    False: the attempt is no longer ours.
    """
    reason = "the worker was stopped"
    values: dict[str, Any] = {"max_attempts": job.max_attempts + 1, "next_attempt_at": utc_now()}
    if not _end(tx, job, "interrupted", JobState.SCHEDULED, error=reason, keep_error=True, **values):
        return False
    queue.job(tx, job.id, job.attempt + 1, priority=job.priority)
    detail = {"attempt": job.attempt, "reason": reason}
    record(tx, AuditEvent(Event.JOB_RECOVERED, series_id=job.series_id, job_id=job.id, detail=detail))
    return True


def close_attempt(tx: Connection, job: Job, outcome: str) -> None:
    """Record when an attempt ended whose job somebody else has ended or taken over."""
    tx.execute(update(_a).where(*_open_attempt(job.id, job.attempt)).values(ended_at=utc_now(), outcome=outcome))


def attempt_is_current(tx: Connection, job: Job) -> bool:
    """Whether the attempt still holds its job: not canceled, not taken over."""
    current = select(_j.c.id).where(_j.c.id == job.id, _j.c.attempt == job.attempt, _in_progress())
    return tx.execute(current).first() is not None


def _holder(tx: Connection, row: Row[Any]) -> str:
    which = _a.c.job_id == row.id, _a.c.n == row.attempt
    holder: str = tx.execute(select(_a.c.executor_id).where(*which)).scalar_one()
    return holder


def _lose_attempt(tx: Connection, row: Row[Any], holder: str) -> None:
    lost = {"ended_at": utc_now(), "outcome": "lost", "error": "the worker died"}
    tx.execute(update(_a).where(*_open_attempt(row.id, row.attempt)).values(**lost))
    record(tx, _event(Event.JOB_RECOVERED, row, attempt=row.attempt, executor=holder, reason="the worker died"))


def _fail(tx: Connection, row: Row[Any], queue: ReportQueue, error: str) -> None:
    failed = {"state": JobState.FAILED.value, "failure": Failure.FAILED.value, "finished_at": utc_now(), "error": error}
    tx.execute(update(_j).where(_j.c.id == row.id).values(**failed))
    record(tx, _event(Event.JOB_FAILED, row, attempt=row.attempt, error=error))
    ask_for_report(tx, row.id, queue)


def _stored(job: Job, slices: int) -> tuple[int, int]:
    """Count the instances that a job has, and those that it was made for."""
    inputs = [(len(one.instances), one.slices) for one in job.inputs] or [(len(job.instances), slices)]
    return sum(has for has, _ in inputs), sum(had for _, had in inputs)


def _end(
    tx: Connection,
    job: Job,
    outcome: str,
    state: JobState,
    *,
    error: str | None,
    trace: Trace = _NO_TRACE,
    keep_error: bool = False,
    **values: Any,
) -> bool:
    """End the attempt, and with it the job's state, if the attempt still holds the job."""
    held = _j.c.id == job.id, _j.c.attempt == job.attempt, _in_progress()
    if not keep_error:
        values["error"] = error
    if tx.execute(update(_j).where(*held).values(state=state.value, **values)).rowcount != 1:
        close_attempt(tx, job, "discarded")
        return False
    ended = {"ended_at": utc_now(), "outcome": outcome, "error": error}
    tx.execute(update(_a).where(*_open_attempt(job.id, job.attempt)).values(**ended, **_left_by(trace)))
    return True


def _left_by(trace: Trace) -> dict[str, Any]:
    return {
        "steps_s": {step: round(seconds, 3) for step, seconds in trace.steps_s.items()} or None,
        "memory_mib": trace.memory_mib,
        "gpu_memory_mib": trace.gpu_memory_mib,
        "printed": trace.printed.replace("\0", "") or None,  # PostgreSQL keeps no text with it
    }


def _in_progress() -> Any:
    return _j.c.state == JobState.IN_PROGRESS.value


def _open_attempt(job_id: str, n: int) -> tuple[Any, ...]:
    return _a.c.job_id == job_id, _a.c.n == n, _a.c.ended_at.is_(None)


def read_job(tx: Connection, job_id: str) -> tuple[Job, str]:
    """Read a job as its last attempt saw it, and the digest of the model that the attempt ran.

    Raises
    ------
    NotFoundError
        When there is none of that id.
    """
    row = lock_job(tx, job_id)
    if row is None:
        raise NotFoundError(f"there is no job {job_id}")
    digest = tx.scalar(select(_a.c.model_digest).where(_a.c.job_id == row.id, _a.c.n == row.attempt))
    return _job(tx, row, row.attempt), digest or ""


def _job(tx: Connection, row: Row[Any], n: int) -> Job:
    return Job(
        id=row.id,
        series_id=row.series_id,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        series_revision=row.series_revision,
        model=row.model,
        model_version=row.model_version,
        rule=row.rule,
        destinations=tuple(row.destinations),
        priority=row.priority,
        attempt=n,
        max_attempts=row.max_attempts,
        created_at=row.created_at,
        instances=read_slices(tx, row.series_id, row.series_revision, row.slices),
        predecessors=documents_before(tx, row.supersedes),
        tracked=found_before(tx, row.supersedes),
        inputs=read_inputs(tx, row.id),
        note=row.note or "",
    )


def _event(event: Event, row: Row[Any], **detail: Any) -> AuditEvent:
    return AuditEvent(event, series_id=row.series_id, job_id=row.id, detail=detail)
