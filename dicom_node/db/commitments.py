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
    tx: Connection,
    calling_ae: str,
    called_ae: str,
    transaction_uid: str,
    objects: Sequence[tuple[str, str]],
    hold_s: float = 0.0,
) -> None:
    """Write down a request. One that is made again, because its answer was lost, is reported on again.

    Parameters
    ----------
    hold_s : float
        How long `claim_requests` leaves it alone: it may be reported on where it was made, by `claim_first`.
    """
    now = utc_now()
    again = {
        "called_ae": called_ae,
        "objects": [list(one) for one in objects],
        "state": "due",
        "attempt": 0,
        "asked_at": now,
        "due_at": now + timedelta(seconds=hold_s),
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
        if (request := _claim(tx, row, now + timedelta(seconds=lease_s))) is not None:
            taken.append(request)
    return taken


def claim_first(tx: Connection, calling_ae: str, transaction_uid: str, lease_s: float) -> Request | None:
    """Take a request that nobody has tried to report on yet; None when somebody has."""
    mine = _c.calling_ae == calling_ae, _c.transaction_uid == transaction_uid
    row = tx.execute(select(t.commitment).where(*mine, _c.state == "due", _c.attempt == 0)).one_or_none()
    return None if row is None else _claim(tx, row, utc_now() + timedelta(seconds=lease_s))


def hurry_request(tx: Connection, calling_ae: str, transaction_uid: str) -> None:
    """Make a request due now that was held."""
    mine = _c.calling_ae == calling_ae, _c.transaction_uid == transaction_uid
    tx.execute(update(t.commitment).where(*mine, _c.state == "due", _c.attempt == 0).values(due_at=utc_now()))


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


def _claim(tx: Connection, row: Any, due_at: datetime) -> Request | None:
    same = _c.calling_ae == row.calling_ae, _c.transaction_uid == row.transaction_uid
    claim = update(t.commitment).where(*same, _c.attempt == row.attempt, _c.due_at == row.due_at, _c.state == "due")
    if tx.execute(claim.values(due_at=due_at, attempt=row.attempt + 1)).rowcount != 1:
        return None
    objects = tuple((sop_class, uid) for sop_class, uid in row.objects)
    return Request(row.calling_ae, row.called_ae, row.transaction_uid, objects, row.attempt + 1, row.asked_at)


def _end(tx: Connection, request: Request, state: str, **values: Any) -> None:
    ended = {"state": state, "due_at": None, "ended_at": utc_now(), **values}
    tx.execute(update(t.commitment).where(*_held(request)).values(**ended))


def _held(request: Request) -> tuple[Any, ...]:
    same = _c.calling_ae == request.calling_ae, _c.transaction_uid == request.transaction_uid
    return *same, _c.attempt == request.attempt, _c.state == "due"
