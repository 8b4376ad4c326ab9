"""Series: which ones are due, how one is closed, and what was found when it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, func, or_, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.completeness import is_due
from dicom_node.db.engine import utc_now
from dicom_node.db.origin import HOW, origin_of, take_again
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.completeness import why_closed, why_lacking
from dicom_node.domain.header import numbers
from dicom_node.domain.job import JobState
from dicom_node.domain.study import Verdict

_LONGEST_REASON = 200
_RECEIVING, _COMPLETE = "receiving", "complete"
_s = t.series.c

OUR_RESULT = "it is a result of this node that came back; it is kept, and never processed"
LACKS_JOB = and_(_s.no_job_reason.is_not(None), _s.no_job_reason != OUR_RESULT)  # nobody waits for what is a result


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One instance of a closed series. `path` is relative to the spool."""

    sop_instance_uid: str
    path: str
    header: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClosedSeries:
    """A series at the moment it was closed; the row is ours until the transaction ends.

    `expected_count` is the number of instances that headers (0020,1209) or those whom we ask tell of. `origin` says how
    it came: for each of `domain.rule.ORIGIN` the values of every association that brought an instance. `source` is the
    section of the settings by which it was waited for; empty for none. `refusal` is what it was refused for when it was
    closed, where it is read later. `lacking` says how many instances arrived, where
    more are known of; `patient_until` is when nobody waits for them any longer.
    """

    id: str
    study_instance_uid: str
    series_instance_uid: str
    revision: int
    closed_at: datetime
    close_reason: str
    expected_count: int | None
    origin: Mapping[str, tuple[str, ...]]
    instances: tuple[StoredInstance, ...]
    source: str = ""
    refusal: str | None = None
    lacking: str | None = None
    patient_until: datetime | None = None
    study_id: str = ""

    def holds_as(self, other: ClosedSeries) -> bool:
        """Whether it has the same files; none is ever changed, so whoever read them of one has read them of both."""
        return [one.path for one in self.instances] == [one.path for one in other.instances]

    def is_as(self, other: ClosedSeries) -> bool:
        """Whether examination says the same of both."""
        return self.holds_as(other) and (self.refusal, self.lacking) == (other.refusal, other.lacking)


def due_series(tx: Connection, now: datetime) -> list[str]:
    """List the series that count as complete, the one that has waited longest first.

    `db.completeness.is_due` says when a series does.
    """
    due = select(_s.id).where(is_due(now)).order_by(_s.settle_at)
    return list(tx.scalars(due))


def wait_anew(tx: Connection, now: datetime, *, most_skew: timedelta, all_of_them: bool) -> int:
    """Have series wait their whole time again from now on: the host's clock was wrong, before or after it was set.

    Parameters
    ----------
    most_skew : datetime.timedelta
        What the clocks of several machines may be apart.
    all_of_them : bool
        Every series that is not closed; otherwise those alone whose last instance came later than now.

    Returns
    -------
    int
        How many.
    """
    wrong = () if all_of_them else (_s.last_received_at > now + most_skew,)
    rows = tx.execute(select(t.series).where(_s.state == _RECEIVING, *wrong)).all()
    for row in rows:
        values = {"settle_at": now + (row.settle_at - row.last_received_at), "last_received_at": now}
        if row.patient_until is not None:
            values["patient_until"] = now + (row.patient_until - row.last_received_at)
        unchanged = (_s.id == row.id, _s.last_received_at == row.last_received_at)
        tx.execute(update(t.series).where(*unchanged).values(**values))
    return len(rows)


def close_series(tx: Connection, series_id: str, now: datetime) -> ClosedSeries | None:
    """Close a series if it is still due: it becomes a new revision, which its new instances belong to.

    Returns
    -------
    ClosedSeries or None
        None when another process closed it, or an instance came in the meantime.
    """
    closed = update(t.series).where(_s.id == series_id, is_due(now))
    closing = {"state": _COMPLETE, "revision": _s.revision + 1, "closed_at": now, "no_job_reason": None, "ask_at": None}
    if tx.execute(closed.values(**closing)).rowcount != 1:
        return None
    row = tx.execute(
        select(t.series, t.study.c.study_instance_uid).join(t.study).where(_s.id == series_id),
    ).one()
    new = (t.instance.c.series_id == series_id, t.instance.c.revision.is_(None))
    tx.execute(update(t.instance).where(*new).values(revision=row.revision))
    take_again(tx, series_id)  # the rules are asked about the whole of its origin now
    instances = _instances(tx, series_id)
    expected = row.expected_count or _announced(instances)
    known = len(instances), expected, row.told_count, row.told
    reason = why_closed(*known, quiet_s=(now - row.last_received_at).total_seconds())[:_LONGEST_REASON]
    tx.execute(update(t.series).where(_s.id == series_id).values(close_reason=reason, expected_count=expected))
    return ClosedSeries(
        id=series_id,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        revision=row.revision,
        closed_at=now,
        close_reason=reason,
        expected_count=max(expected or 0, row.told_count or 0) or None,
        origin=origin_of(tx, series_id),
        instances=instances,
        source=row.source,
        lacking=why_lacking(*known),
        patient_until=row.patient_until,
        study_id=row.study_id,
    )


def postpone_series(tx: Connection, series_id: str, until: datetime, reason: str) -> None:
    """Have a series that is due wait for what is missing, unless something comes in the meantime."""
    due = (_s.id == series_id, is_due(utc_now()))
    if tx.execute(update(t.series).where(*due).values(settle_at=until)).rowcount == 1:
        detail = {"reason": reason, "until": until.isoformat(timespec="seconds")}
        record(tx, AuditEvent(Event.SERIES_WAITS, series_id=series_id, detail=detail))


def reopen_series(tx: Connection, series_id: str, *, actor: str) -> bool:
    """Have a complete series closed anew at once, so that it is routed again.

    False when it is not complete, or a job uses it, alone or among others, that is more than a refusal from the start.
    """
    j, used = t.job.c, t.job_input.c
    more = or_(j.state != JobState.FAILED.value, j.attempt > 0)
    alone = exists().where(j.series_id == _s.id, j.series_revision == _s.revision, more)
    among = exists().where(used.series_id == _s.id, used.series_revision == _s.revision, used.job_id == j.id, more)
    free = (_s.state == _COMPLETE, _s.images_deleted_at.is_(None), ~alone, ~among)
    now = utc_now()
    again = update(t.series).where(_s.id == series_id, *free).values(state=_RECEIVING, settle_at=now)
    if tx.execute(again).rowcount != 1:
        return False
    record(tx, AuditEvent(Event.OPERATOR_ROUTE, series_id=series_id, actor=actor))
    return True


def read_closed(tx: Connection, series_id: str) -> ClosedSeries | None:
    """Read a series as routing saw it when it was last closed; None when there is none, or none of its instances."""
    row = tx.execute(
        select(t.series, t.study.c.study_instance_uid)
        .join(t.study, t.study.c.id == _s.study_id)
        .where(_s.id == series_id)
    ).one_or_none()
    instances = _instances(tx, series_id) if row else ()
    if row is None or not instances:
        return None
    expected = row.expected_count or _announced(instances)
    return ClosedSeries(
        id=row.id,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        revision=row.revision,
        closed_at=row.closed_at or row.last_received_at,
        close_reason=row.close_reason or "",
        expected_count=max(expected or 0, row.told_count or 0) or None,
        origin=origin_of(tx, series_id),
        instances=instances,
        source=row.source,
        refusal=row.refusal,
        lacking=why_lacking(len(instances), expected, row.told_count, row.told),
        study_id=row.study_id,
    )


def closed_since(tx: Connection, since: datetime, limit: int) -> Sequence[Row[Any]]:
    """Read series that were closed since a time, the newest first, each with its first instance and who sent that."""
    i, a = t.instance.c, t.association.c
    first = select(func.min(i.id)).where(i.series_id == _s.id).correlate(t.series).scalar_subquery()
    columns = (i.header, i.path, *HOW.values(), t.study.c.accession_number)
    return tx.execute(
        select(t.series, *columns)
        .join(t.study, t.study.c.id == _s.study_id)
        .join(t.instance, i.id == first)
        .outerjoin(t.association, a.id == i.association_id)
        .where(_s.state == _COMPLETE, _s.closed_at >= since)
        .order_by(_s.closed_at.desc())
        .limit(limit)
    ).all()


def write_verdict(tx: Connection, series_id: str, verdict: Verdict) -> None:
    """Keep what examination found in the row of the series."""
    set_aside = [{"sop_instance_uid": uid, "reason": reason} for uid, reason in verdict.set_aside]
    found = {**verdict.facts, "set_aside": set_aside, "lacks_slices": verdict.lacks_slices}
    tx.execute(update(t.series).where(_s.id == series_id).values(verdict=found, refusal=verdict.refusal))


def write_no_job_reason(tx: Connection, series_id: str, reason: str | None) -> None:
    """Keep why a complete series has no job; None when it has one now."""
    tx.execute(update(t.series).where(_s.id == series_id).values(no_job_reason=reason))


def holds_our_results(tx: Connection, series_id: str) -> bool:
    """Whether one of the series' instances is a result object that this node made."""
    ours = select(t.result.c.id).join(t.instance, t.instance.c.sop_instance_uid == t.result.c.sop_instance_uid)
    return tx.execute(ours.where(t.instance.c.series_id == series_id).limit(1)).first() is not None


def _instances(tx: Connection, series_id: str) -> tuple[StoredInstance, ...]:
    i = t.instance.c
    rows = tx.execute(select(i.sop_instance_uid, i.path, i.header).where(i.series_id == series_id).order_by(i.id))
    return tuple(StoredInstance(*row) for row in rows)


def _announced(instances: Iterable[StoredInstance]) -> int | None:
    """Find the largest number of instances that a header tells: a series may grow while it is sent."""
    told = [numbers(instance.header, "NumberOfSeriesRelatedInstances", 1) for instance in instances]
    return max((int(number[0]) for number in told if number and number[0] >= 1), default=None)
