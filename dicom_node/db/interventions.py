"""What a person changes by hand: run a job again, cancel one; sending again is in db/deliveries.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.engine import utc_now
from dicom_node.db.inputs import NewInput, read_inputs, write_inputs
from dicom_node.db.jobs import JobQueue
from dicom_node.db.reports import cancel_report
from dicom_node.db.shortened import starts_with
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.delivery import DeliveryState
from dicom_node.domain.job import JobState
from dicom_node.domain.study import Verdict
from dicom_node.domain.uids import job_id as derive_job_id
from dicom_node.errors import ConflictError, NotFoundError

Choose = Callable[[str], Verdict]  # which slices of a series, by our id of it, the model takes

_OPEN = (JobState.SCHEDULED.value, JobState.IN_PROGRESS.value)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a new run works on: slices, those of its further series by role, and what the audit trail says of them."""

    slices: tuple[str, ...]
    inputs: tuple[NewInput, ...]
    said: dict[str, Any]


def find_job(tx: Connection, text: str) -> Row[Any]:
    """Find a job by its id or the first characters of it, and keep other writers from it.

    Raises
    ------
    NotFoundError
        When no job's id starts so.
    ConflictError
        When several do.
    """
    return _only(tx, select(t.job).with_for_update(), text)


def series_of_job(tx: Connection, text: str) -> list[str]:
    """Name the series that a job works on, by our ids; `text` as `find_job` takes it, which it raises the errors of."""
    job = _only(tx, select(t.job), text)
    return [one.series_id for one in read_inputs(tx, job.id)] or [job.series_id]


def run_again(
    tx: Connection,
    job: Row[Any],
    model_version: str,
    choose: Choose,
    max_attempts: int,
    queue: JobQueue,
    *,
    actor: str,
) -> str:
    """Make and enqueue a new run of an ended job; the old one keeps its rows and results.

    The new run has UIDs of its own: what a PACS holds of the old run stays beside it. What is left to tell of a failed
    run is taken back: nobody shall read "not analysed" after the result.

    Returns
    -------
    str
        The id of the new job.

    Raises
    ------
    ConflictError
        When the job has not ended, a newer revision of the series took its place, the series was refused, or another
        run of the same model on the same series is under way.
    """
    _refuse_run(tx, job, job.model)
    taken = _take(tx, job, choose)
    if job.state == JobState.FAILED:
        cancel_report(tx, job.id)
        _cancel_deliveries(tx, job.id)
    new, run_no = _insert_run(tx, job, job.model, model_version, taken, max_attempts, queue, supersedes=job.id)
    detail = {"model": job.model, "version": model_version, "run": run_no, "supersedes": job.id, **taken.said}
    record(
        tx,
        AuditEvent(Event.OPERATOR_RETRY, series_id=job.series_id, job_id=job.id, actor=actor, detail={"new_job": new}),
        AuditEvent(Event.JOB_SCHEDULED, series_id=job.series_id, job_id=new, actor=actor, detail=detail),
    )
    return new


def run_other(
    tx: Connection,
    job: Row[Any],
    model: str,
    model_version: str,
    choose: Choose,
    max_attempts: int,
    queue: JobQueue,
    *,
    actor: str,
) -> str:
    """Make and enqueue a job of another model on the same series, for the same destinations.

    Returns
    -------
    str
        The id of the new job.

    Raises
    ------
    ConflictError
        As `run_again`, but for the state of the job that it is like.
    """
    _refuse_run(tx, job, model)
    taken = _take(tx, job, choose)
    new, run_no = _insert_run(tx, job, model, model_version, taken, max_attempts, queue, supersedes=None)
    asked = {"model": model, "new_job": new}
    detail = {"model": model, "version": model_version, "run": run_no, "like": job.id, **taken.said}
    record(
        tx,
        AuditEvent(Event.OPERATOR_RERUN, series_id=job.series_id, job_id=job.id, actor=actor, detail=asked),
        AuditEvent(Event.JOB_SCHEDULED, series_id=job.series_id, job_id=new, actor=actor, detail=detail),
    )
    return new


def _only(tx: Connection, jobs: Select[Any], text: str) -> Row[Any]:
    found = tx.execute(jobs.where(starts_with(t.job.c.id, text)).limit(2)).all() if text.strip() else []
    if not found:
        raise NotFoundError(f"there is no job {text}; `dicom-node jobs` lists them")
    if len(found) > 1:
        raise ConflictError(f"several jobs start with {text}; give more of the id")
    return found[0]


def _insert_run(
    tx: Connection,
    job: Row[Any],
    model: str,
    model_version: str,
    taken: _Taken,
    max_attempts: int,
    queue: JobQueue,
    *,
    supersedes: str | None,
) -> tuple[str, int]:
    same = (
        t.job.c.series_id == job.series_id,
        t.job.c.series_revision == job.series_revision,
        t.job.c.model == model,
        t.job.c.model_version == model_version,
    )
    run_no = (tx.scalar(select(func.max(t.job.c.run_no)).where(*same)) or 0) + 1
    new = derive_job_id(job.series_id, job.series_revision, model, model_version, run_no)
    tx.execute(
        insert(t.job).values(
            id=new,
            series_id=job.series_id,
            series_revision=job.series_revision,
            rule=job.rule,
            model=model,
            model_version=model_version,
            run_no=run_no,
            destinations=job.destinations,
            report_to=job.report_to,
            slices=list(taken.slices),
            note=job.note,
            source_ae=job.source_ae,
            scanner=job.scanner,
            priority=job.priority,
            state=JobState.SCHEDULED.value,
            max_attempts=max_attempts,
            created_at=utc_now(),
            supersedes=supersedes,
        )
    )
    write_inputs(tx, new, taken.inputs)
    queue.job(tx, new, 1, priority=job.priority)
    return new, run_no


def cancel_job(tx: Connection, job: Row[Any], *, actor: str) -> tuple[bool, int]:
    """Cancel a job that has not ended, and what waits to be reported or sent, or could not be sent, of one that has.

    A running attempt notices within a second, kills its model and writes nothing; an object on its way to a PACS at
    this moment is not called back.

    Returns
    -------
    (bool, int)
        Whether the job itself was canceled, and how many deliveries were.

    Raises
    ------
    ConflictError
        When there is nothing to cancel.
    """
    now = utc_now()
    still_open = (t.job.c.id == job.id, t.job.c.state.in_(_OPEN))
    canceled = {"state": JobState.CANCELED.value, "finished_at": now, "next_attempt_at": None}
    stopped = tx.execute(update(t.job).where(*still_open).values(**canceled)).rowcount == 1
    dropped = _cancel_deliveries(tx, job.id)
    if not (cancel_report(tx, job.id) or stopped or dropped):
        raise ConflictError(f"job {job.id} is {job.state}, and no delivery waits or has failed: nothing to cancel")
    asked = {"job_was": job.state, "deliveries_canceled": dropped}
    record(tx, AuditEvent(Event.OPERATOR_CANCEL, series_id=job.series_id, job_id=job.id, actor=actor, detail=asked))
    if stopped:
        record(tx, AuditEvent(Event.JOB_CANCELED, series_id=job.series_id, job_id=job.id, actor=actor))
    return stopped, dropped


def delivery_ids(tx: Connection, job: Row[Any], destination: str = "") -> list[str]:
    """List the deliveries of a job, all or those to one destination, in the order they go.

    Raises
    ------
    NotFoundError
        When there is none.
    """
    which = [t.delivery.c.job_id == job.id]
    if destination:
        which.append(t.delivery.c.destination == destination)
    ids = list(tx.scalars(select(t.delivery.c.id).where(*which).order_by(t.delivery.c.position)))
    if not ids:
        where = f" for {destination}" if destination else ""
        raise NotFoundError(f"job {job.id} is {job.state} and has no deliveries{where}")
    gone = select(t.result.c.deleted_at).where(t.result.c.job_id == job.id, t.result.c.deleted_at.is_not(None))
    if (at := tx.scalar(gone.limit(1))) is not None:
        raise ConflictError(
            f"the results of job {job.id} were deleted on {at:%Y-%m-%d} (retention); "
            f"`dicom-node retry {job.id[:8]}` makes them anew while its images are here"
        )
    return ids


def _cancel_deliveries(tx: Connection, job_id: str) -> int:
    given_up = (DeliveryState.WAITING.value, DeliveryState.FAILED.value)  # what failed keeps images and results
    which = (t.delivery.c.job_id == job_id, t.delivery.c.state.in_(given_up))
    canceled = {"state": DeliveryState.CANCELED.value, "finished_at": utc_now(), "next_attempt_at": None}
    return tx.execute(update(t.delivery).where(*which).values(**canceled)).rowcount


def _refuse_run(tx: Connection, job: Row[Any], model: str) -> None:
    if model == job.model and job.state in _OPEN:
        raise ConflictError(f"job {job.id} is {job.state}; `dicom-node cancel` it first")
    series = tx.execute(select(t.series).where(t.series.c.id == job.series_id).with_for_update()).one()
    if series.revision != job.series_revision:
        raise ConflictError(
            f"job {job.id} saw revision {job.series_revision} of its series, which is at revision "
            f"{series.revision}; retry the newest job of the series"
        )
    if series.images_deleted_at is not None:
        raise ConflictError(
            f"job {job.id} cannot run: the images were deleted on {series.images_deleted_at:%Y-%m-%d} (retention); "
            "have the series sent again"
        )
    _refuse_inputs(tx, job)
    other = select(t.job.c.id).where(
        t.job.c.series_id == job.series_id, t.job.c.model == model, t.job.c.state.in_(_OPEN)
    )
    if running := tx.scalar(other.limit(1)):
        raise ConflictError(f"job {running} runs the same model on the same series already")


def _take(tx: Connection, job: Row[Any], choose: Choose) -> _Taken:
    """Choose the slices of each series of a job anew, by the card of the model that is to run now.

    Raises
    ------
    ConflictError
        When the model takes no volume of one of them, or not all of them are there.
    """
    of_several = read_inputs(tx, job.id)
    if of_several and not job.slices:
        raise ConflictError(f"job {job.id} cannot run: {job.error or 'not all of its series are there'}")
    inputs = []
    said: dict[str, Any] = {}
    for series_id in [one.series_id for one in of_several] or [job.series_id]:
        verdict = choose(series_id)
        if verdict.refusal:
            raise ConflictError(f"job {job.id} cannot run: {verdict.refusal}")
        inputs.append(verdict.slices)
        said = said or ({"volume": dict(verdict.facts["volume"])} if verdict.facts.get("volume") else {})
    chosen = zip(of_several, inputs, strict=False)
    return _Taken(
        inputs[0], tuple(NewInput(one.role, one.series_id, one.series_revision, uids) for one, uids in chosen), said
    )


def _refuse_inputs(tx: Connection, job: Row[Any]) -> None:
    """Refuse a job on several series that are no longer those that it saw, or of which others were chosen since."""
    if not (inputs := read_inputs(tx, job.id)):
        return
    later = select(t.job.c.id).where(t.job.c.supersedes == job.id, t.job.c.rule == job.rule)
    if (taken := tx.scalar(later.limit(1))) is not None:
        raise ConflictError(f"job {taken} has taken the place of job {job.id}; retry that one")
    for one in inputs:
        series = tx.execute(select(t.series).where(t.series.c.id == one.series_id)).one()
        if series.revision != one.series_revision:
            raise ConflictError(
                f"job {job.id} saw revision {one.series_revision} of the series in role {one.role}, which is at "
                f"revision {series.revision}; retry the newest job of the study"
            )
        if series.images_deleted_at is not None:
            raise ConflictError(
                f"job {job.id} cannot run: the images of {one.role} were deleted on {series.images_deleted_at:%Y-%m-%d}"
                " (retention); have the series sent again"
            )
