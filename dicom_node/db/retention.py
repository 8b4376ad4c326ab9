"""What may be deleted, and deleting it: first the rows in one transaction, then the files.

In that order every crash leaves a state that can be finished: never a row without its file, at worst a file without a
row, which the sweeps of the spool take.

Nothing of a series goes while anything of it is still to do or to arrive: a job that is not over, a report that is due,
a delivery that waits, is sent, has failed, or lacks the proof that its destination has to give. A failed delivery holds
its objects until somebody sends or cancels it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, not_, select, update
from sqlalchemy.orm import aliased

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.engine import utc_now
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.delivery import DeliveryState
from dicom_node.domain.job import JobState, ReportState
from dicom_node.domain.proof import ProofState

_s, _j, _r, _d, _i, _n = t.series.c, t.job.c, t.result.c, t.delivery.c, t.instance.c, t.job_input.c
_c, _w = t.series_role.c, t.study_wait.c
_OPEN = (JobState.SCHEDULED.value, JobState.IN_PROGRESS.value)
_UNPROVEN = (DeliveryState.WAITING.value, DeliveryState.SENDING.value, DeliveryState.FAILED.value)


class Kind(StrEnum):
    """Why images are no longer needed, those first that are missed least."""

    UNMATCHED = "no rule wanted them"
    DELIVERED = "their results were delivered"
    FAILED = "their job failed or was canceled"


@dataclass(frozen=True, slots=True)
class Amount:
    """How much: series or jobs, files, bytes, and since when the oldest is here."""

    count: int
    files: int
    size: int
    oldest: datetime | None


def due_images(tx: Connection, kind: Kind, before: datetime | None, limit: int) -> list[str]:
    """Find series whose images may go, those first that were complete first. Without `before`, of any age."""
    query = select(_s.id).where(*_images(kind, before)).order_by(_s.closed_at).limit(limit)
    return list(tx.scalars(query))


def count_images(tx: Connection, kind: Kind, before: datetime | None) -> Amount:
    """Count what `due_images` would find."""
    size = select(func.sum(_i.size)).where(_i.series_id == _s.id).scalar_subquery()
    files = select(func.count()).where(_i.series_id == _s.id).scalar_subquery()
    found = select(_s.closed_at.label("at"), files.label("files"), size.label("size"))
    return _amount(tx, found, _images(kind, before))


def delete_images(tx: Connection, series_id: str, kind: Kind, before: datetime | None, reason: str) -> list[str]:
    """Delete the instance rows of a series, if they may still go.

    Returns
    -------
    list of str
        The paths of the files, to be deleted once this is committed; empty when they must stay.
    """
    _lock(tx, series_id)
    mine = select(t.series, t.study.c.study_instance_uid).join(t.study)
    row = tx.execute(mine.where(_s.id == series_id, *_images(kind, before))).one_or_none()
    if row is None:
        return []
    gone = tx.execute(delete(t.instance).where(_i.series_id == series_id).returning(_i.path, _i.size)).all()
    now = utc_now()
    tx.execute(update(t.series).where(_s.id == series_id).values(images_deleted_at=now, instance_count=0))
    detail = {
        "study": row.study_instance_uid,
        "series": row.series_instance_uid,
        "instances": len(gone),
        "bytes": sum(one.size for one in gone),
        "reason": f"{kind.value}, {reason}",
    }
    record(tx, AuditEvent(Event.IMAGES_DELETED, series_id=series_id, detail=detail))
    return [one.path for one in gone]


def due_results(tx: Connection, before: datetime | None, limit: int) -> list[str]:
    """Find jobs whose result objects may go, the oldest first."""
    query = select(_r.job_id, func.min(_r.created_at)).where(*_results(before)).group_by(_r.job_id)
    return [row.job_id for row in tx.execute(query.order_by(func.min(_r.created_at)).limit(limit))]


def count_results(tx: Connection, before: datetime | None) -> Amount:
    """Count what `due_results` would find."""
    files, size, at = func.count().label("files"), func.sum(_r.size).label("size"), func.min(_r.created_at).label("at")
    return _amount(tx, select(_r.job_id, files, size, at).group_by(_r.job_id), _results(before))


def delete_results(tx: Connection, job_id: str, before: datetime | None, reason: str) -> bool:
    """Mark the result objects of a job as deleted, if they may still go; then their folder is to be deleted."""
    tx.execute(select(_d.id).where(_d.job_id == job_id).with_for_update())  # nobody sends them again meanwhile
    gone = update(t.result).where(_r.job_id == job_id, *_results(before)).values(deleted_at=utc_now())
    uids = list(tx.scalars(gone.returning(_r.sop_instance_uid)))
    if not uids:
        return False
    series_id = tx.scalar(select(_j.series_id).where(_j.id == job_id))
    detail = {"objects": uids, "reason": reason}
    record(tx, AuditEvent(Event.RESULTS_DELETED, series_id=series_id, job_id=job_id, detail=detail))
    return True


def jobs_with_results(tx: Connection, job_ids: Sequence[str]) -> set[str]:
    """Of some jobs, those that have results in the spool or are not over."""
    kept = select(_r.job_id).where(_r.job_id.in_(job_ids), _r.deleted_at.is_(None))
    unfinished = select(_j.id).where(_j.id.in_(job_ids), _is_busy())
    return {*tx.scalars(kept), *tx.scalars(unfinished)}


def due_rows(tx: Connection, before: datetime, limit: int) -> list[str]:
    """Find series of which no file is left since `before`."""
    return list(tx.scalars(select(_s.id).where(*_bare(before)).order_by(_s.images_deleted_at).limit(limit)))


def count_rows(tx: Connection, before: datetime) -> int:
    """Count what `due_rows` would find."""
    return int(tx.scalar(select(func.count()).select_from(t.series).where(*_bare(before))) or 0)


def delete_rows(tx: Connection, series_id: str, before: datetime) -> bool:
    """Delete a series with its jobs, results and deliveries, and its study after its last. The audit trail stays."""
    _lock(tx, series_id)
    row = tx.execute(select(t.series).where(_s.id == series_id, *_bare(before))).one_or_none()
    if row is None:
        return False
    jobs = select(_j.id).where(_j.series_id == series_id)
    tx.execute(delete(t.job_input).where(_n.job_id.in_(jobs)))
    deliveries = select(_d.id).where(_d.job_id.in_(jobs))
    tx.execute(delete(t.delivery_attempt).where(t.delivery_attempt.c.delivery_id.in_(deliveries)))
    tx.execute(delete(t.proof).where(t.proof.c.delivery_id.in_(deliveries)))
    tx.execute(delete(t.delivery).where(_d.job_id.in_(jobs)))
    tx.execute(delete(t.result).where(_r.job_id.in_(jobs)))
    tx.execute(delete(t.job_attempt).where(t.job_attempt.c.job_id.in_(jobs)))
    gone = aliased(t.job)
    after = _j.supersedes.in_(select(gone.c.id).where(gone.c.series_id == series_id))
    tx.execute(update(t.job).where(after).values(supersedes=None))
    tx.execute(delete(t.job).where(_j.series_id == series_id))
    tx.execute(delete(t.came_again).where(t.came_again.c.series_id == series_id))
    tx.execute(delete(t.series_role).where(_c.series_id == series_id))
    tx.execute(delete(t.series).where(_s.id == series_id))
    others = exists().where(_s.study_id == t.study.c.id)
    tx.execute(delete(t.study_wait).where(_w.study_id == row.study_id, ~exists().where(_s.study_id == _w.study_id)))
    tx.execute(delete(t.study).where(t.study.c.id == row.study_id, ~others))
    record(tx, AuditEvent(Event.ROWS_DELETED, series_id=series_id, detail={"series": row.series_instance_uid}))
    return True


def _lock(tx: Connection, series_id: str) -> None:
    """Keep everybody else from the series, in a statement of its own: the next one then sees what they did before."""
    tx.execute(select(_s.id).where(_s.id == series_id).with_for_update())


def _images(kind: Kind, before: datetime | None) -> list[ColumnElement[bool]]:
    of_series = _j.series_id == _s.id
    unproven = exists().where(_d.job_id == _j.id, of_series, _is_unproven())
    busy = exists().where(of_series, _is_busy())
    needed = exists().where(_n.series_id == _s.id, _j.id == _n.job_id, _is_busy())  # by a job that names another series
    waits = exists().where(_c.series_id == _s.id, _w.study_id == _s.study_id, _w.rule == _c.rule)  # for other series
    wanted = [_s.images_deleted_at.is_(None), _s.state == "complete", ~busy, ~needed, ~waits, ~unproven]
    if before is not None:
        wanted.append(_s.closed_at < before)
    has_jobs = exists().where(of_series) | exists().where(_n.series_id == _s.id)
    if kind is Kind.UNMATCHED:
        return [*wanted, ~has_jobs]
    return [*wanted, has_jobs, _failed() if kind is Kind.FAILED else not_(_failed())]


def _failed() -> ColumnElement[bool]:
    """Whether a model has failed on the newest revision of the series, in every run."""
    job, better = aliased(t.job), aliased(t.job)
    same = and_(better.c.series_id == job.c.series_id, better.c.series_revision == job.c.series_revision)
    succeeded = exists().where(same, better.c.model == job.c.model, better.c.state == JobState.COMPLETED.value)
    ended_badly = job.c.state.in_((JobState.FAILED.value, JobState.CANCELED.value))
    return exists().where(job.c.series_id == _s.id, job.c.series_revision == _s.revision, ended_badly, ~succeeded)


def _results(before: datetime | None) -> list[ColumnElement[bool]]:
    unproven = exists().where(_d.job_id == _r.job_id, _is_unproven())
    busy = exists().where(_j.id == _r.job_id, _is_busy())
    wanted = [_r.deleted_at.is_(None), ~unproven, ~busy]
    return wanted if before is None else [*wanted, _r.created_at < before]


def _bare(before: datetime) -> list[ColumnElement[bool]]:
    kept = exists().where(_r.job_id == _j.id, _j.series_id == _s.id, _r.deleted_at.is_(None))
    busy = exists().where(_j.series_id == _s.id, _is_busy())
    input_of_another = exists().where(_n.series_id == _s.id, _j.id == _n.job_id, _j.series_id != _s.id)
    return [_s.images_deleted_at < before, _s.state == "complete", ~kept, ~busy, ~input_of_another]


def _is_unproven() -> ColumnElement[bool]:
    """Whether a delivery has not arrived, or is not proven where it has to be."""
    proof = t.proof.c
    return _d.state.in_(_UNPROVEN) | exists().where(
        proof.delivery_id == _d.id, proof.state != ProofState.PROVEN.value, _d.state == DeliveryState.DELIVERED.value
    )


def _is_busy() -> ColumnElement[bool]:
    return _j.state.in_(_OPEN) | (func.coalesce(_j.report, "") == ReportState.DUE.value)


def _amount(tx: Connection, query: Any, wanted: Sequence[ColumnElement[bool]]) -> Amount:
    found = query.where(*wanted).subquery().c
    row = tx.execute(select(func.count(), func.sum(found.files), func.sum(found.size), func.min(found.at))).one()
    return Amount(row[0], int(row[1] or 0), int(row[2] or 0), row[3])
