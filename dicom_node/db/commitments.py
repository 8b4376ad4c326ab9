"""What peers ask us to commit ourselves to: kept until the report is answered, whatever dies in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.engine import insert_into, utc_now
from dicom_node.domain.audit import AuditEvent, Event

_c = t.commitment.c


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `objects` are SOP class and SOP instance UIDs; `attempt` counts the tries at its report from 1."""

    calling_ae: str
    called_ae: str
    transaction_uid: str
    objects: tuple[tuple[str, str], ...]
    attempt: int
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class Kept:
    """What the row of an instance says of it."""

    sop_class_uid: str
    path: str
    digest: str


def note_request(
    tx: Connection, calling_ae: str, called_ae: str, transaction_uid: str, objects: Sequence[tuple[str, str]]
) -> None:
    """Write down a request. One that is made again, because its answer was lost, is reported on again."""
    now = utc_now()
    again = {
        "called_ae": called_ae,
        "objects": [list(one) for one in objects],
        "state": "due",
        "attempt": 0,
        "asked_at": now,
        "due_at": now,
        "ended_at": None,
    }
    row = insert_into(tx, t.commitment).values(calling_ae=calling_ae, transaction_uid=transaction_uid, **again)
    tx.execute(row.on_conflict_do_update(index_elements=["calling_ae", "transaction_uid"], set_=again))


def claim_requests(tx: Connection, lease_s: float, limit: int = 10) -> list[Request]:
    """Take requests whose report is due; they are due again after the lease, should this process die."""
    now = utc_now()
    due = select(t.commitment).where(_c.state == "due", _c.due_at <= now).order_by(_c.due_at).limit(limit)
    taken = []
    for row in tx.execute(due).all():
        claim = update(t.commitment).where(*_same(row), _c.due_at == row.due_at, _c.state == "due")
        values = {"due_at": now + timedelta(seconds=lease_s), "attempt": row.attempt + 1}
        if tx.execute(claim.values(**values)).rowcount == 1:
            objects = tuple((sop_class, uid) for sop_class, uid in row.objects)
            names = row.calling_ae, row.called_ae, row.transaction_uid
            taken.append(Request(*names, objects, row.attempt + 1, row.asked_at))
    return taken


def finish_request(tx: Connection, request: Request, committed: int, failed: int) -> None:
    """Record that a peer has taken the report."""
    _end(tx, request, "reported")
    detail = {"to": request.calling_ae, "committed": committed, "failed": failed}
    record(tx, AuditEvent(Event.COMMITMENT_GIVEN, detail=detail | {"transaction": request.transaction_uid}))


def give_up_request(tx: Connection, request: Request, error: str) -> None:
    """Record that the report is not tried any more."""
    _end(tx, request, "failed", last_error=error)
    detail = {"to": request.calling_ae, "transaction": request.transaction_uid, "reason": error}
    record(tx, AuditEvent(Event.COMMITMENT_UNREPORTED, detail=detail))


def put_off_request(tx: Connection, request: Request, error: str, due_at: datetime) -> None:
    """Record why a peer did not take the report, and when it is tried again."""
    tx.execute(update(t.commitment).where(*_held(request)).values(last_error=error, due_at=due_at))


def find_kept(tx: Connection, sop_instance_uids: Sequence[str]) -> dict[str, Kept]:
    """Find the rows of some instances, by their SOP Instance UIDs."""
    i = t.instance.c
    found = tx.execute(
        select(i.sop_instance_uid, i.sop_class_uid, i.path, i.digest).where(i.sop_instance_uid.in_(sop_instance_uids))
    )
    return {row.sop_instance_uid: Kept(row.sop_class_uid, row.path, row.digest) for row in found}


def _end(tx: Connection, request: Request, state: str, **values: Any) -> None:
    ended = {"state": state, "due_at": None, "ended_at": utc_now(), **values}
    tx.execute(update(t.commitment).where(*_held(request)).values(**ended))


def _same(row: Any) -> tuple[Any, ...]:
    return _c.calling_ae == row.calling_ae, _c.transaction_uid == row.transaction_uid


def _held(request: Request) -> tuple[Any, ...]:
    return *_same(request), _c.attempt == request.attempt, _c.state == "due"
