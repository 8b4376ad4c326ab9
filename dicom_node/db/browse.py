"""Rows page by page, newest first, for pages and API; and single ones with what belongs to them.

A page goes on from the last row of the one before, by the columns it is sorted by, so that the hundredth page costs as
much as the first, and rows that come in meanwhile shift nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, literal, or_, select, tuple_

from dicom_node.db import tables as t
from dicom_node.db.holders import with_proof
from dicom_node.db.series import LACKS_JOB
from dicom_node.domain.audit import NODE
from dicom_node.domain.job import JobInstance
from dicom_node.errors import NotFoundError

Rows = Sequence[Row[Any]]
_i, _j, _r, _d, _s, _y, _e = (
    t.instance.c,
    t.job.c,
    t.result.c,
    t.delivery.c,
    t.series.c,
    t.study.c,
    t.audit_event.c,
)
_IDENTITY = (_y.study_instance_uid, _y.patient_id, _y.accession_number, _y.study_date)


@dataclass(frozen=True, slots=True)
class After:
    """Where a page goes on: after the row with this time and id."""

    at: datetime
    id: str


def list_series(tx: Connection, *, limit: int, after: After | None = None, **equal: Any) -> Rows:
    """Read series with their study, newest first.

    Parameters
    ----------
    equal
        ``state``, ``modality``, ``study``, ``series``, ``patient``, ``accession``: only rows with that value; and
        ``since``, a time.
    """
    columns = {
        "state": _s.state,
        "modality": _s.modality,
        "study": _y.study_instance_uid,
        "series": _s.series_instance_uid,
        "patient": _y.patient_id,
        "accession": _y.accession_number,
    }
    query = select(t.series, *_IDENTITY).join(t.study, _y.id == _s.study_id)
    if equal.get("state") == "complete":  # nearly all are: no index finds them, and none shall be tried
        query = query.where(_s.state != "receiving")
        equal["state"] = None
    return _page(tx, query, columns, equal, _s.first_received_at, _s.id, after, limit)


def list_without_job(tx: Connection, *, limit: int, after: After | None = None) -> Rows:
    """Read the complete series that there is no job for and that are none of our results, closed last first."""
    query = select(t.series, *_IDENTITY).join(t.study, _y.id == _s.study_id).where(LACKS_JOB)
    return _page(tx, query, {}, {}, _s.closed_at, _s.id, after, limit)


def list_results(tx: Connection, *, limit: int, after: After | None = None, **equal: Any) -> Rows:
    """Read result objects with job, study and source series, newest first; as `list_series`."""
    columns = {
        "kind": _r.kind,
        "job": _r.job_id,
        "study": _y.study_instance_uid,
        "series": _s.series_instance_uid,
        "sop_instance": _r.sop_instance_uid,
        "model": _r.model,
    }
    source = _s.series_instance_uid.label("source_series_uid")
    query = (
        select(t.result, _j.model_version, source, *_IDENTITY)
        .join(t.job, _j.id == _r.job_id)
        .join(t.series, _s.id == _j.series_id)
        .join(t.study, _y.id == _s.study_id)
    )
    return _page(tx, query, columns, equal, _r.created_at, _r.id, after, limit)


def list_deliveries(tx: Connection, *, limit: int, after: After | None = None, **equal: Any) -> Rows:
    """Read deliveries with the object they carry, newest first; as `list_series`."""
    columns = {"state": _d.state, "destination": _d.destination, "job": _d.job_id}
    query = with_proof(select(t.delivery, _r.kind, _r.sop_instance_uid).join(t.result, _r.id == _d.result_id))
    return _page(tx, query, columns, equal, _d.created_at, _d.id, after, limit)


def list_events(tx: Connection, *, limit: int, before: int | None = None, **equal: Any) -> Rows:
    """Read the audit trail, newest first; `before` is the id to go on from.

    By time, because that is what the indexes of event and actor go on with; the id decides between events of one time.
    """
    columns = {"event": _e.event, "actor": _e.actor, "series": _e.series_id, "job": _e.job_id}
    conditions = _conditions(columns, equal, _e.at)
    if equal.get("actor") not in (None, "", NODE):
        conditions.append(_e.actor != NODE)  # what the index of the other actors holds
    if before is not None:
        at = tx.scalar(select(_e.at).where(_e.id == before))
        conditions.append(tuple_(_e.at, _e.id) < tuple_(_value(_e.at, at), before) if at else _e.id < before)
    return tx.execute(select(t.audit_event).where(*conditions).order_by(_e.at.desc(), _e.id.desc()).limit(limit)).all()


def read_series_row(tx: Connection, series_id: str) -> Row[Any]:
    """Read one series with its study.

    Raises
    ------
    NotFoundError
        When there is none.
    """
    query = select(t.series, *_IDENTITY).join(t.study, _y.id == _s.study_id).where(_s.id == series_id)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFoundError("there is no such series")
    return row


def series_of_study(tx: Connection, study_instance_uid: str) -> Rows:
    """Read the series of a study, the one that came first coming first.

    Raises
    ------
    NotFoundError
        When nothing of that study ever came.
    """
    query = select(t.series, *_IDENTITY).join(t.study, _y.id == _s.study_id)
    rows = tx.execute(query.where(_y.study_instance_uid == study_instance_uid).order_by(_s.first_received_at)).all()
    if not rows:
        raise NotFoundError("nothing of that study is known here")
    return rows


def jobs_of_series(tx: Connection, series_ids: Sequence[str]) -> Rows:
    """Read the jobs that work on some series, alone or among others, newest first."""
    as_input = select(t.job_input.c.job_id).where(t.job_input.c.series_id.in_(series_ids))
    mine = or_(_j.series_id.in_(series_ids), _j.id.in_(as_input))
    return tx.execute(select(t.job).where(mine).order_by(_j.created_at.desc())).all()


def attempts_of(tx: Connection, job_id: str) -> Rows:
    """Read the attempts at a job, in order."""
    return tx.execute(select(t.job_attempt).where(t.job_attempt.c.job_id == job_id).order_by(t.job_attempt.c.n)).all()


def slices_of(tx: Connection, job_id: str) -> list[JobInstance]:
    """Read the slices that a job works on, in order along the normal; empty where its series is no volume."""
    job = tx.execute(select(_j.series_id, _j.slices).where(_j.id == job_id)).one_or_none()
    if job is None or not job.slices:
        return []
    columns = (
        _i.sop_instance_uid,
        _i.sop_class_uid,
        _i.transfer_syntax_uid,
        _i.path,
        _i.digest,
        _i.header,
    )
    known = {
        row.sop_instance_uid: JobInstance(**row._mapping)
        for row in tx.execute(select(*columns).where(_i.series_id == job.series_id))
    }
    return [known[uid] for uid in job.slices if uid in known]


def results_of(tx: Connection, job_id: str) -> dict[str, Row[Any]]:
    """Read the result objects of a job, by kind."""
    return {row.kind: row for row in tx.execute(select(t.result).where(_r.job_id == job_id))}


def first_path(tx: Connection, series_id: str) -> str:
    """Find the file of one instance of a series; empty when there is none."""
    return tx.scalar(select(_i.path).where(_i.series_id == series_id).order_by(_i.id).limit(1)) or ""


def _page(
    tx: Connection,
    query: Select[Any],
    columns: dict[str, Any],
    equal: dict[str, Any],
    at: ColumnElement[Any],
    key: ColumnElement[Any],
    after: After | None,
    limit: int,
) -> Rows:
    conditions = _conditions(columns, equal, at)
    if after is not None:
        conditions.append(tuple_(at, key) < tuple_(_value(at, after.at), after.id))
    return tx.execute(query.where(*conditions).order_by(at.desc(), key.desc()).limit(limit)).all()


def _conditions(columns: dict[str, Any], equal: dict[str, Any], at: ColumnElement[Any]) -> list[Any]:
    since = equal.pop("since", None)
    conditions = [columns[name] == value for name, value in equal.items() if value not in (None, "")]
    return [*conditions, at >= since] if since else conditions


def _value(column: ColumnElement[Any], value: datetime) -> Any:
    """Bind a time as its column stores times: SQLite compares texts."""
    return literal(value, column.type)
