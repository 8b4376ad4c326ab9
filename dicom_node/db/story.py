"""All rows that tell what happened to a series, found by whatever an operator has in hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Text, and_, cast, exists, func, or_, select
from sqlalchemy.orm import aliased

from dicom_node.db import tables as t
from dicom_node.db.holders import with_proof
from dicom_node.db.shortened import starts_with
from dicom_node.domain.audit import Event

Rows = Sequence[Row[Any]]

MOST_SERIES = 50
MOST_REFUSALS = 20


@dataclass(frozen=True, slots=True)
class SeriesRows:
    """What the database knows of one series."""

    series: Row[Any]
    arrivals: Rows
    events: Rows
    jobs: Rows
    attempts: Rows
    results: Rows
    deliveries: Rows
    delivery_attempts: Rows


def find_series(tx: Connection, text: str) -> list[str]:
    """Find series by job id (or its first characters), any UID, accession number or patient ID; oldest first.

    Returns
    -------
    list of str
        Ids of series, at most 50: of the first of these kinds of name that matches anything.
    """
    job, series, study, instance, result = t.job.c, t.series.c, t.study.c, t.instance.c, t.result.c
    by_study = select(series.id).join(t.study, study.id == series.study_id)
    ways = [
        by_study.where(series.series_instance_uid == text),
        by_study.where(study.study_instance_uid == text),
        select(series.id).join(t.instance, instance.series_id == series.id).where(instance.sop_instance_uid == text),
        select(series.id)
        .join(t.job, job.series_id == series.id)
        .join(t.result, result.job_id == job.id)
        .where(or_(result.sop_instance_uid == text, result.series_instance_uid == text)),
        by_study.where(study.accession_number == text),
        by_study.where(study.patient_id == text),
    ]
    if len(text) >= 4:
        starts = starts_with(job.id, text)
        ways.append(select(series.id).join(t.job, job.series_id == series.id).where(starts))
    for way in ways:
        found = list(dict.fromkeys(tx.scalars(way.order_by(series.first_received_at, series.id).limit(MOST_SERIES))))
        if found:
            return found
    return []


def find_refusals(tx: Connection, text: str) -> Rows:
    """Find what was refused at the door (connections, associations, instances) whose event holds `text` whole."""
    at_the_door = (Event.TLS_FAILED, Event.ASSOCIATION_REJECTED, Event.SOP_CLASS_REFUSED, Event.INSTANCE_REFUSED)
    refused = [event.value for event in at_the_door]
    quoted = cast(t.audit_event.c.detail, Text).contains(f'"{text}"', autoescape=True)
    return tx.execute(
        select(t.audit_event)
        .where(t.audit_event.c.event.in_(refused), quoted)
        .order_by(t.audit_event.c.id.desc())
        .limit(MOST_REFUSALS)
    ).all()


def read_series(tx: Connection, series_id: str) -> SeriesRows:
    """Read everything about one series, each table in time order."""
    study = t.study.c
    head = select(t.series, study.study_instance_uid, study.accession_number, study.patient_id)
    series = tx.execute(head.join(t.study, study.id == t.series.c.study_id).where(t.series.c.id == series_id)).one()
    jobs = jobs_on(tx, series_id)
    of_series = [job.id for job in jobs]
    deliveries = tx.execute(
        with_proof(select(t.delivery, t.result.c.kind, t.result.c.sop_instance_uid))
        .join(t.result, t.result.c.id == t.delivery.c.result_id)
        .where(t.delivery.c.job_id.in_(of_series))
        .order_by(t.delivery.c.destination, t.delivery.c.position)
    ).all()
    delivery_attempts = (
        select(t.delivery_attempt)
        .join(t.delivery, t.delivery.c.id == t.delivery_attempt.c.delivery_id)
        .where(t.delivery.c.job_id.in_(of_series))
    )
    # ids in full, not subqueries: PostgreSQL then answers each part of the OR by its own index
    by = tx.scalars(select(t.instance.c.association_id).where(t.instance.c.series_id == series_id).distinct()).all()
    event = t.audit_event.c
    about: ColumnElement[bool] = or_(
        event.series_id == series_id,
        event.job_id.in_(of_series),
        and_(event.event == Event.INSTANCE_REFUSED.value, event.association_id.in_([one for one in by if one])),
    )
    looked_at = (Event.VIEWED.value, Event.SENT_OUT.value, Event.ACCESS_REFUSED.value)  # nothing happened to it
    return SeriesRows(
        series=series,
        arrivals=_arrivals(tx, series_id),
        events=tx.execute(select(t.audit_event).where(about, event.event.not_in(looked_at)).order_by(event.id)).all(),
        jobs=jobs,
        attempts=_ordered(tx, select(t.job_attempt).where(t.job_attempt.c.job_id.in_(of_series)), t.job_attempt.c.n),
        results=_ordered(tx, select(t.result).where(t.result.c.job_id.in_(of_series)), t.result.c.kind),
        deliveries=deliveries,
        delivery_attempts=_ordered(tx, delivery_attempts, t.delivery_attempt.c.n),
    )


def jobs_on(tx: Connection, series_id: str) -> Rows:
    """Read the jobs that work on a series, alone or among others, in time order.

    Each has the revision of this series that it works on as ``on_revision``; of a job on several series, ``role`` is
    that of this one, and ``replaced`` says whether another job has taken its place.
    """
    job, used = t.job.c, t.job_input.c
    of_input = and_(used.job_id == job.id, used.series_id == series_id)
    on_revision = func.coalesce(used.series_revision, job.series_revision).label("on_revision")
    later = aliased(t.job)
    replaced = exists().where(later.c.supersedes == job.id).label("replaced")
    found = select(t.job, on_revision, used.role, replaced).select_from(t.job.outerjoin(t.job_input, of_input))
    as_input = select(used.job_id).where(used.series_id == series_id)
    mine = or_(job.series_id == series_id, job.id.in_(as_input))
    return tx.execute(found.where(mine).order_by(job.created_at, job.id)).all()


def processes_alive(tx: Connection, role: str) -> int:
    """How many processes of a role beat."""
    node = t.node.c
    alive = select(func.count()).select_from(t.node).where(node.role == role, node.state == "alive")
    return int(tx.scalar(alive) or 0)


def _arrivals(tx: Connection, series_id: str) -> Rows:
    """One row per association, series revision and transfer syntax: who sent how many instances, when."""
    i, a = t.instance.c, t.association.c
    by: tuple[Any, ...] = (
        a.id,
        a.calling_ae,
        a.called_ae,
        a.peer_address,
        a.end_reason,
        a.account,
        a.implementation,
        a.started_at,
        a.ended_at,
        i.transfer_syntax_uid,
    )
    came = (
        func.count().label("instances"),
        func.min(i.received_at).label("first"),
        func.max(i.received_at).label("last"),
    )
    found = select(*by, *came).select_from(t.instance.outerjoin(t.association, a.id == i.association_id))
    return _ordered(tx, found.where(i.series_id == series_id).group_by(*by), func.min(i.received_at))


def _ordered(tx: Connection, query: Any, *columns: Any) -> Rows:
    found: Rows = tx.execute(query.order_by(*columns)).all()
    return found
