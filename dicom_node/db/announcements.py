"""Instances that peers announced to be available: a series of which all are here is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, or_, select

from dicom_node.db import tables as t
from dicom_node.db.completeness import note_told
from dicom_node.db.engine import insert_into, utc_now

_a, _s = t.announcement.c, t.series.c


def note_announcement(tx: Connection, calling_ae: str, series: Mapping[str, Sequence[str]]) -> None:
    """Write down which instances each series has; what the same peer said of it before no longer counts."""
    for uid, instances in series.items():
        said = {"instances": sorted(set(instances)), "at": utc_now()}
        row = insert_into(tx, t.announcement).values(series_instance_uid=uid, calling_ae=calling_ae, **said)
        tx.execute(row.on_conflict_do_update(index_elements=["series_instance_uid", "calling_ae"], set_=said))


def compare_announcements(tx: Connection, now: datetime) -> int:
    """Compare what was announced with what has come since, for each series that is not complete; how many changed."""
    stale = or_(_s.told_at.is_(None), _s.told_at < _s.last_received_at, _s.told_at < _a.at)
    changed = tx.execute(
        select(_s.id, _a.calling_ae, _a.instances)
        .join(t.announcement, _a.series_instance_uid == _s.series_instance_uid)
        .where(_s.state == "receiving", stale)
        .order_by(_a.at)
    ).all()
    for row in changed:
        mine = select(t.instance.c.sop_instance_uid).where(t.instance.c.series_id == row.id)
        count = len({*row.instances} | {*tx.scalars(mine)})
        note_told(tx, row.id, count, f"{row.calling_ae} announced {len(row.instances)}", now)
    return len(changed)


def forget_announcements(tx: Connection, before: datetime) -> int:
    """Forget what was announced before a time; how many."""
    return tx.execute(delete(t.announcement).where(_a.at < before)).rowcount
