"""Instances that were refused for want of room or of the database, and that their sender may never send again.

A series that lacks them can be a perfect volume all the same, of half a chest. So it is remembered which ones they
were, wherever the series could be read from what arrived, until they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, exists, func, select

from dicom_node.db import tables as t
from dicom_node.db.engine import insert_into, utc_now

_u = t.unstored.c
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Unstored:
    """How many instances of a series were refused and are not there, and why the last of them was."""

    count: int
    reason: str


def note_unstored(tx: Connection, series_instance_uid: str, sop_instance_uid: str, reason: str) -> None:
    """Remember that an instance was refused and should come again."""
    row = {
        "series_instance_uid": series_instance_uid,
        "sop_instance_uid": sop_instance_uid,
        "reason": reason[:_LONGEST_REASON],
        "at": utc_now(),
    }
    tx.execute(insert_into(tx, t.unstored).values(row).on_conflict_do_nothing())


def find_unstored(tx: Connection, series_instance_uid: str) -> Unstored | None:
    """Tell which instances of a series were refused and have not been stored since; None when there are none."""
    stored = exists().where(t.instance.c.sop_instance_uid == _u.sop_instance_uid)
    missing = (_u.series_instance_uid == series_instance_uid, ~stored)
    count = tx.scalar(select(func.count()).select_from(t.unstored).where(*missing)) or 0
    if not count:
        return None
    reason = tx.scalar(select(_u.reason).where(*missing).order_by(_u.at.desc()).limit(1))
    return Unstored(count, reason or "")


def forget_unstored(tx: Connection, before: datetime) -> int:
    """Forget what was refused before a time; how many."""
    return tx.execute(delete(t.unstored).where(_u.at < before)).rowcount
