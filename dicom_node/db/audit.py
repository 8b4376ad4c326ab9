"""Audit events: written inside the transaction that does what they tell, so that neither exists without the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, insert, select

from dicom_node.db import tables as t
from dicom_node.db.engine import utc_now
from dicom_node.db.shortened import starts_with
from dicom_node.domain.audit import NODE, AuditEvent, Event

_e = t.audit_event.c


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events; an empty field does not filter. A job's id may be shortened to its first characters."""

    events: tuple[str, ...] = ()
    actor: str = ""
    job: str = ""
    series: str = ""
    study: str = ""
    since: datetime | None = None
    limit: int = 100


def record(tx: Connection, *events: AuditEvent) -> None:
    """Append events to the audit trail, in the order given."""
    if events:
        tx.execute(insert(t.audit_event), [_row(e) for e in events])


def list_events(tx: Connection, which: AuditFilter) -> Sequence[Row[Any]]:
    """Find events, newest first."""
    series, study = t.series.c, t.study.c
    wanted: list[tuple[object, ColumnElement[bool]]] = [
        (which.events, _e.event.in_(which.events)),
        (which.actor, _e.actor == which.actor),
        (which.job, starts_with(_e.job_id, which.job)),
        (which.series, _e.series_id.in_(select(series.id).where(series.series_instance_uid == which.series))),
        (
            which.study,
            _e.series_id.in_(select(series.id).join(t.study).where(study.study_instance_uid == which.study)),
        ),
    ]
    if which.since is not None:
        wanted.append((True, _e.at >= which.since))
    if which.actor and which.actor != NODE:
        wanted.append((True, _e.actor != NODE))  # what the index of the other actors holds
    query = select(t.audit_event).where(*[condition for given, condition in wanted if given])
    return tx.execute(query.order_by(_e.at.desc(), _e.id.desc()).limit(which.limit)).all()


def told_of(tx: Connection, event: Event, series_id: str) -> Sequence[dict[str, Any]]:
    """Read what was told of a series each time that something happened to it."""
    return tx.scalars(select(_e.detail).where(_e.series_id == series_id, _e.event == event.value)).all()


def read_chained(tx: Connection, after: int, limit: int) -> Sequence[Row[Any]]:
    """Read chained events in the order of the chain, with what they are about.

    Nothing is left out that way, as it could be by time or by id: an event that is committed late is chained late.

    Parameters
    ----------
    after : int
        The place in the chain of the last one that was read.
    """
    i = t.instance.c
    first = select(i.sop_class_uid).where(i.series_id == t.series.c.id).order_by(i.id).limit(1)
    return tx.execute(
        select(
            t.audit_event,
            t.series.c.series_instance_uid,
            t.series.c.source_ae,
            t.series.c.instance_count,
            t.study.c.study_instance_uid,
            t.study.c.patient_id,
            t.study.c.accession_number,
            t.job.c.rule,
            t.job.c.model,
            t.job.c.failure,
            t.job.c.destinations,
            t.result.c.sop_class_uid.label("result_class_uid"),
            first.scalar_subquery().label("instance_class_uid"),
        )
        .select_from(t.audit_event)
        .outerjoin(t.series, t.series.c.id == _e.series_id)
        .outerjoin(t.study, t.study.c.id == t.series.c.study_id)
        .outerjoin(t.job, t.job.c.id == _e.job_id)
        .outerjoin(t.delivery, t.delivery.c.id == _e.delivery_id)
        .outerjoin(t.result, t.result.c.id == t.delivery.c.result_id)
        .where(_e.chain_no > after)
        .order_by(_e.chain_no)
        .limit(limit)
    ).all()


def read_told(tx: Connection, after: int, limit: int) -> Sequence[Row[Any]]:
    """Read chained events in the order of the chain, and whether the series that each is about is still here."""
    of_series = t.series.c.id
    return tx.execute(
        select(t.audit_event, of_series.is_not(None).label("is_here"))
        .outerjoin(t.series, of_series == _e.series_id)
        .where(_e.chain_no > after)
        .order_by(_e.chain_no)
        .limit(limit)
    ).all()


def _row(event: AuditEvent) -> dict[str, Any]:
    return {
        "at": event.at or utc_now(),
        "event": event.event.value,
        "actor": event.actor,
        "association_id": event.association_id,
        "series_id": event.series_id,
        "job_id": event.job_id,
        "delivery_id": event.delivery_id,
        "detail": event.detail,
    }
