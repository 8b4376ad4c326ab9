"""The hash chain over the audit trail: whoever changes or removes an event breaks it, and `verify` names the place.

Writers of events know nothing of it: they append rows side by side, and none waits for another. A sweep gives the rows
their places a few seconds later, in the order in which it sees them, each with the hash of itself and of the one
before:

    hash(n) = SHA-256 of "n LF hash(n - 1) LF the event as JSON", hash(0) = 64 zeros

Rows that have no place yet are not protected; the sweep keeps them few and young, and `verify` says how many there are
and how old. A chain cannot protect its own end: who may write to the database could compute it anew from any place on.
So the sweep writes the head of the chain to the log, and `verify` takes an earlier head to compare with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, func, select, text, update

from dicom_node.db import tables as t
from dicom_node.db.engine import reading

START = "0" * 64
AT_ONCE = 1000
_LOCK = 0x6175646974  # "audit": any constant that nobody else locks
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:key)")
_e = t.audit_event.c
_ROW = (_e.id, _e.at, _e.event, _e.actor, _e.association_id, _e.series_id, _e.job_id, _e.delivery_id, _e.detail)
_LINK = (
    update(t.audit_event)
    .where(_e.id == bindparam("event_id"), _e.chain_no.is_(None))
    .values(chain_no=bindparam("no"), chain_hash=bindparam("hash"))
)


@dataclass(frozen=True, slots=True)
class Head:
    """The last link: how many events are chained, and the hash over them all. Written ``12345:9f86d0…``."""

    no: int
    hash: str

    def __str__(self) -> str:
        """As the log and `verify` show it."""
        return f"{self.no}:{self.hash}"


@dataclass(frozen=True, slots=True)
class Verified:
    """What `verify` found.

    Attributes
    ----------
    head : Head
        As far as the chain holds.
    broken : str, optional
        What is wrong at the first place where it does not; None when all of it holds.
    unchained : int
        Events that have no place yet.
    oldest_unchained : datetime, optional
        When the oldest of them was written.
    """

    head: Head
    broken: str | None
    unchained: int
    oldest_unchained: datetime | None


def extend(tx: Connection) -> int:
    """Give the oldest events without a place theirs, at most `AT_ONCE` of them. 0 also while another process does."""
    if tx.dialect.name == "postgresql" and not tx.scalar(
        text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}
    ):
        return 0
    last = head(tx)
    unchained = select(*_ROW).where(_e.chain_no.is_(None)).order_by(_e.id).limit(AT_ONCE)
    rows: Sequence[Any] = tx.execute(unchained).all()
    links = []
    for row in rows:
        last = _link(last, row)
        links.append({"event_id": row.id, "no": last.no, "hash": last.hash})
    if links:
        tx.execute(_LINK, links)
    return len(links)


def head(tx: Connection) -> Head:
    """Read the last link."""
    row = tx.execute(
        select(_e.chain_no, _e.chain_hash).where(_e.chain_no.is_not(None)).order_by(_e.chain_no.desc()).limit(1)
    ).one_or_none()
    return Head(row.chain_no, row.chain_hash) if row else Head(0, START)


def verify(engine: Engine, expected: Head | None = None) -> Verified:
    """Compute the chain anew and compare.

    Parameters
    ----------
    expected : Head, optional
        A head that was noted earlier, outside of the database: the chain must still go through it.
    """
    last, broken = Head(0, START), None
    for row in _chained(engine):
        broken = _fault(last, row, expected)
        if broken:
            break
        last = Head(row.chain_no, row.chain_hash)
    if broken is None and expected is not None and expected.no > last.no:
        broken = f"the chain ends at {last.no}, and {expected.no} is expected: events were removed from its end"
    with reading(engine) as tx:
        tail = tx.execute(select(func.count(), func.min(_e.at)).where(_e.chain_no.is_(None))).one()
    return Verified(last, broken, tail[0], tail[1])


def _chained(engine: Engine) -> Iterator[Row[Any]]:
    """Read the chain, some thousand links in a transaction: an audit must not hold writers up."""
    after: int | None = None
    while True:
        some = select(*_ROW, _e.chain_no, _e.chain_hash).order_by(_e.chain_no).limit(5 * AT_ONCE)
        some = some.where(_e.chain_no.is_not(None) if after is None else _e.chain_no > after)
        with reading(engine) as tx:
            rows: Sequence[Any] = tx.execute(some).all()
        yield from rows
        if len(rows) < 5 * AT_ONCE:
            return
        after = rows[-1].chain_no


def _fault(last: Head, row: Row[Any], expected: Head | None) -> str | None:
    where = f"link {row.chain_no}, event {row.id} ({row.event}, {row.at:%Y-%m-%d %H:%M:%S} UTC)"
    if row.chain_no != last.no + 1:
        return f"{where} follows link {last.no}: the {row.chain_no - last.no - 1} links between them were removed"
    link = _link(last, row)
    if link.hash != row.chain_hash:
        return f"{where}: the event was changed after it was written, or one was put in its place"
    if expected is not None and expected.no == link.no and expected.hash != link.hash:
        return (
            f"{where}: the hash is not the one expected: this event or earlier ones were changed, and the chain redone"
        )
    return None


def _link(last: Head, row: Row[Any]) -> Head:
    no = last.no + 1
    return Head(no, hashlib.sha256(f"{no}\n{last.hash}\n{_text(row)}".encode("ascii")).hexdigest())


def _text(row: Row[Any]) -> str:
    """Write an event in the one way that both databases and all versions agree on."""
    at = row.at.astimezone(UTC).isoformat(timespec="microseconds")
    about = [row.association_id, row.series_id, row.job_id, row.delivery_id]
    return json.dumps([row.id, at, row.event, row.actor, *about, row.detail], sort_keys=True, separators=(",", ":"))
