"""How a series came: by whom, called by which of our AE titles; and that it came again, called by another.

Bytes that are here already are not stored twice, so no instance tells that they came again. Rules may ask for the
called AE title, and have to be asked again when there is a new one.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, or_, select, update

from dicom_node.db import tables as t
from dicom_node.db.engine import insert_into, utc_now
from dicom_node.domain.rule import ORIGIN

_a, _g = t.association.c, t.came_again.c
HOW = {fact: t.association.c["peer_address" if fact == "address" else fact].label(fact) for fact in ORIGIN}
Origin = dict[str, tuple[str, ...]]


def origin_of(tx: Connection, series_id: str) -> Origin:
    """Read how a series came: for each of `domain.rule.ORIGIN` the values of every association that brought some."""
    return _origin(tx, or_(_brought(series_id), exists().where(_g.series_id == series_id, _g.association_id == _a.id)))


def note_again(tx: Connection, series_id: str, association_id: str) -> None:
    """Keep that instances of a series came again, called by another AE title than before: the rules are to be asked."""
    row = {"series_id": series_id, "association_id": association_id, "at": utc_now()}
    tx.execute(insert_into(tx, t.came_again).values(**row).on_conflict_do_nothing())


def has_come(tx: Connection, series_id: str, called_ae: str) -> bool:
    """Whether instances of a series have come called by an AE title."""
    again = exists().where(_g.series_id == series_id, _g.association_id == _a.id)
    known = select(_a.id).where(_a.called_ae == called_ae, or_(again, _brought(series_id))).limit(1)
    return tx.execute(known).first() is not None


def came_again(tx: Connection) -> list[str]:
    """List the complete series about which the rules are to be asked again."""
    asking = select(_g.series_id).join(t.series, t.series.c.id == _g.series_id)
    ready = (_g.asked_at.is_(None), t.series.c.state == "complete", t.series.c.images_deleted_at.is_(None))
    return list(tx.scalars(asking.where(*ready).distinct().order_by(_g.series_id)))


def take_again(tx: Connection, series_id: str) -> Origin | None:
    """Read how a series came again, for the rules to be asked about it now; None when they have been."""
    rows = update(t.came_again).where(_g.series_id == series_id, _g.asked_at.is_(None)).values(asked_at=utc_now())
    taken = list(tx.scalars(rows.returning(_g.association_id)))
    return _origin(tx, _a.id.in_(taken)) if taken else None


def _brought(series_id: str) -> ColumnElement[bool]:
    return exists().where(t.instance.c.association_id == _a.id, t.instance.c.series_id == series_id)


def _origin(tx: Connection, which: ColumnElement[bool]) -> Origin:
    rows: list[Any] = list(tx.execute(select(*HOW.values()).where(which)).all())
    return {fact: tuple(sorted({row._mapping[fact] for row in rows} - {""})) for fact in ORIGIN}
