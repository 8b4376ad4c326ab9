"""Batches of studies that are asked back from an archive: made, worked off item by item, held, canceled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.engine import utc_now
from dicom_node.db.shortened import starts_with
from dicom_node.domain.audit import NODE, AuditEvent, Event
from dicom_node.domain.retrieval import BatchState, ItemState, Kind
from dicom_node.errors import ConflictError, NotFoundError

_r, _i = t.retrieval.c, t.retrieval_item.c
_WAITING = ItemState.WAITING.value


@dataclass(frozen=True, slots=True)
class Came:
    """What an item came to."""

    studies: int = 0
    instances: int = 0
    reason: str = ""


def add_batch(
    tx: Connection,
    source: str,
    how: str,
    items: Sequence[tuple[Kind, str]],
    *,
    called_ae: str,
    hours: str = "",
    per_minute: float | None = None,
    actor: str,
) -> str:
    """Make a batch of items, each named once; its id."""
    now = utc_now()
    batch = str(uuid4())
    named = list(dict.fromkeys(items))
    tx.execute(
        insert(t.retrieval).values(
            id=batch,
            source=source,
            how=how,
            called_ae=called_ae,
            hours=hours,
            per_minute=per_minute,
            state=BatchState.RUNNING.value,
            actor=actor,
            created_at=now,
        )
    )
    rows = [
        {"retrieval_id": batch, "position": n, "kind": kind.value, "value": value, "state": _WAITING}
        | {"due_at": now, "updated_at": now}
        for n, (kind, value) in enumerate(named)
    ]
    for first in range(0, len(rows), 1000):
        tx.execute(insert(t.retrieval_item), rows[first : first + 1000])
    detail = {"retrieval": batch, "source": source, "how": how, "items": len(named), "hours": hours}
    record(tx, AuditEvent(Event.RETRIEVAL_STARTED, actor=actor, detail=detail))
    return batch


def next_item(tx: Connection, batch: str, now: datetime) -> Row[Any] | None:
    """Find the item of a batch that is due and has waited longest."""
    due = select(t.retrieval_item).where(_i.retrieval_id == batch, _i.state == _WAITING, _i.due_at <= now)
    return tx.execute(due.order_by(_i.due_at, _i.position).limit(1)).one_or_none()


def running_batches(tx: Connection) -> Sequence[Row[Any]]:
    """List the batches that are to go on, the oldest first."""
    return tx.execute(select(t.retrieval).where(_r.state == BatchState.RUNNING.value).order_by(_r.created_at)).all()


def is_running(tx: Connection, batch: str) -> bool:
    """Whether a batch is to go on."""
    return tx.scalar(select(_r.state).where(_r.id == batch)) == BatchState.RUNNING.value


def is_canceled(tx: Connection, batch: str) -> bool:
    """Whether a batch was canceled, or is gone."""
    return tx.scalar(select(_r.state).where(_r.id == batch)) in (None, BatchState.CANCELED.value)


def note_attempt(tx: Connection, item: Row[Any]) -> None:
    """Note that an item is tried, before it is."""
    tx.execute(_one(item).values(attempt=_i.attempt + 1, updated_at=utc_now()))


def end_item(tx: Connection, item: Row[Any], state: ItemState, came: Came) -> None:
    """Note what an item came to, unless it was canceled meanwhile; end its batch with the last of them."""
    now = utc_now()
    told = {"studies": came.studies, "instances": came.instances, "reason": came.reason[:400], "updated_at": now}
    if tx.execute(_one(item).values(state=state.value, **told)).rowcount != 1:
        return
    if state is ItemState.FAILED:
        detail = {"retrieval": item.retrieval_id, "position": item.position, "reason": came.reason[:400]}
        record(tx, AuditEvent(Event.RETRIEVAL_ITEM_FAILED, detail=detail))
    left = select(func.count()).where(_i.retrieval_id == item.retrieval_id, _i.state == _WAITING)
    if not tx.scalar(left):
        _end(tx, item.retrieval_id, BatchState.DONE, NODE)


def put_off(tx: Connection, item: Row[Any], until: datetime, reason: str) -> None:
    """Have an item tried again later."""
    tx.execute(_one(item).values(due_at=until, reason=reason[:400], updated_at=utc_now()))


def change_batch(tx: Connection, text: str, state: BatchState, *, actor: str) -> str:
    """Pause, resume or cancel a batch; its id.

    Raises
    ------
    NotFoundError, ConflictError
        When there is none, or it has ended.
    """
    row = find_batch(tx, text)
    if row.state in (BatchState.DONE.value, BatchState.CANCELED.value):
        raise ConflictError(f"retrieval {row.id[:8]} is {row.state} already")
    if state is BatchState.CANCELED:
        waiting = update(t.retrieval_item).where(_i.retrieval_id == row.id, _i.state == _WAITING)
        tx.execute(waiting.values(state=ItemState.CANCELED.value, updated_at=utc_now()))
        _end(tx, row.id, state, actor)
        return str(row.id)
    tx.execute(update(t.retrieval).where(_r.id == row.id).values(state=state.value))
    event = Event.RETRIEVAL_PAUSED if state is BatchState.PAUSED else Event.RETRIEVAL_RESUMED
    record(tx, AuditEvent(event, actor=actor, detail={"retrieval": row.id}))
    return str(row.id)


def find_batch(tx: Connection, text: str) -> Row[Any]:
    """Find a batch by its id, or the first characters of it.

    Raises
    ------
    NotFoundError
        When there is none, or there are several.
    """
    found = tx.execute(select(t.retrieval).where(starts_with(_r.id, text)).limit(2)).all() if text else []
    if len(found) != 1:
        raise NotFoundError(f"there is {'no' if not found else 'more than one'} retrieval {text!r}")
    return found[0]


def list_batches(tx: Connection, limit: int = 50) -> list[dict[str, Any]]:
    """List batches, newest first, each with the number of items in each state."""
    return _counted(tx, select(t.retrieval).order_by(_r.created_at.desc()).limit(limit))


def read_batch(tx: Connection, batch: str) -> dict[str, Any]:
    """Read a batch by its whole id, as `list_batches` lists it."""
    return _counted(tx, select(t.retrieval).where(_r.id == batch))[0]


def forget_batches(tx: Connection, before: datetime) -> int:
    """Delete the rows of batches that ended before a time; how many batches. The audit trail stays."""
    ended = select(_r.id).where(_r.finished_at < before)
    tx.execute(delete(t.retrieval_item).where(_i.retrieval_id.in_(ended)))
    return tx.execute(delete(t.retrieval).where(_r.finished_at < before)).rowcount


def is_under_way(item: Row[Any]) -> bool:
    """Whether an item is being asked for, as far as the database knows."""
    return bool(item.state == _WAITING and item.attempt and item.due_at <= item.updated_at)


def list_items(tx: Connection, batch: str) -> Sequence[Row[Any]]:
    """List the items of a batch in their order."""
    return tx.execute(select(t.retrieval_item).where(_i.retrieval_id == batch).order_by(_i.position)).all()


def _counted(tx: Connection, query: Select[Any]) -> list[dict[str, Any]]:
    rows = tx.execute(query).all()
    of_these = _i.retrieval_id.in_([row.id for row in rows])
    counted = select(_i.retrieval_id, _i.state, func.count().label("n"), func.sum(_i.instances).label("instances"))
    by_batch: dict[str, dict[str, int]] = {row.id: {"instances": 0} for row in rows}
    for one in tx.execute(counted.where(of_these).group_by(_i.retrieval_id, _i.state)):
        by_batch[one.retrieval_id][one.state] = one.n
        by_batch[one.retrieval_id]["instances"] += int(one.instances or 0)
    return [{**row._mapping, "items": by_batch[row.id]} for row in rows]


def _one(item: Row[Any]) -> Any:
    where = _i.retrieval_id == item.retrieval_id, _i.position == item.position, _i.state == _WAITING
    return update(t.retrieval_item).where(*where)


def _end(tx: Connection, batch: str, state: BatchState, actor: str) -> None:
    open_ = (BatchState.RUNNING.value, BatchState.PAUSED.value)
    ended = update(t.retrieval).where(_r.id == batch, _r.state.in_(open_))
    if tx.execute(ended.values(state=state.value, finished_at=utc_now())).rowcount == 1:
        counted = select(_i.state, func.count().label("n")).where(_i.retrieval_id == batch).group_by(_i.state)
        items = {row.state: row.n for row in tx.execute(counted)}
        detail = {"retrieval": batch, "state": state.value, "items": items}
        record(tx, AuditEvent(Event.RETRIEVAL_ENDED, actor=actor, detail=detail))
