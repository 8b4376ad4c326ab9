"""Whether a series is complete: what is known of its number of instances, from its headers and from whom we ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, or_, select, update

from dicom_node.db import tables as t
from dicom_node.db.instances import RELEASED

_RECEIVING = "receiving"
_s = t.series.c


@dataclass(frozen=True, slots=True)
class Question:
    """A series of which somebody is to be asked how many instances there are."""

    series_id: str
    study_instance_uid: str
    series_instance_uid: str


def claim_questions(tx: Connection, sources: Sequence[str], after_s: float, now: datetime) -> list[Question]:
    """Take the questions that are due on series of some sources; each is due again after twice the time.

    Parameters
    ----------
    after_s : float
        How long a series has been quiet when it is asked about for the first time.
    """
    due = (
        select(_s.id, _s.series_instance_uid, _s.last_received_at, _s.ask_at, t.study.c.study_instance_uid)
        .join(t.study)
        .where(_s.state == _RECEIVING, _s.ask_at <= now, _s.source.in_(sources))
        .order_by(_s.ask_at)
    )
    taken = []
    for row in tx.execute(due).all():
        again = now + max(now - row.last_received_at, timedelta(seconds=after_s))
        claim = update(t.series).where(_s.id == row.id, _s.ask_at == row.ask_at).values(ask_at=again)
        if tx.execute(claim).rowcount == 1:
            taken.append(Question(row.id, row.study_instance_uid, row.series_instance_uid))
    return taken


def note_told(tx: Connection, series_id: str, count: int, told: str, at: datetime) -> None:
    """Write down how many instances a series has.

    Parameters
    ----------
    told : str
        Who told what, for a person.
    at : datetime
        When it was so: what came after is not counted in.
    """
    _note(tx, series_id, told_count=count, told=told, told_at=at)


def note_untold(tx: Connection, series_id: str, why: str) -> None:
    """Write down why nobody told how many instances there are; what was told before stays true."""
    _note(tx, series_id, told=why)


def is_due(now: datetime) -> ColumnElement[bool]:
    """Whether a series counts as complete.

    It does when as many instances are here as were announced or told, or when it has been quiet. It is waited for as
    long as the patience of its source lasts while some are missing; while whom we ask has not answered since the last
    one came; or while an association that brought some has not been released: then its sender, or the receiver that it
    spoke to, was cut off, and the rest will be sent again.
    """
    expected = _expected()
    quiet = _s.settle_at <= now
    long_quiet = func.coalesce(_s.patient_until, _s.settle_at) <= now
    all_there = and_(expected > 0, _s.instance_count == expected)
    unanswered = and_(_s.ask_at.is_not(None), func.coalesce(_s.told_at < _s.last_received_at, True))
    waited_for = or_(_s.instance_count < expected, unanswered, _cut_off())
    return and_(_s.state == _RECEIVING, or_(all_there, and_(quiet, ~waited_for), and_(quiet, long_quiet)))


def _expected() -> ColumnElement[int]:
    """Give the larger of what headers announce and what somebody told; 0 for neither."""
    announced, told = func.coalesce(_s.expected_count, 0), func.coalesce(_s.told_count, 0)
    return case((told > announced, told), else_=announced)


def _cut_off() -> ColumnElement[bool]:
    """Whether new instances of the series came by an association that was not, or not yet, released."""
    i, a = t.instance.c, t.association.c
    unreleased = or_(a.end_reason.is_(None), a.end_reason != RELEASED)
    return exists().where(i.series_id == _s.id, i.revision.is_(None), a.id == i.association_id, unreleased)


def _note(tx: Connection, series_id: str, **values: Any) -> None:
    tx.execute(update(t.series).where(_s.id == series_id, _s.state == _RECEIVING).values(**values))
