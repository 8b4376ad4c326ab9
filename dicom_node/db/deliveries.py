"""Deliveries: created with the results, claimed by a sender, ended by the one who holds the attempt.

The objects of one job go to one destination one after the other, because the SR points at the SEG: whoever ends a
delivery enqueues the next position in the same transaction. Destinations do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.engine import utc_now
from dicom_node.db.nodes import is_alive
from dicom_node.db.proofs import begin_proof, end_proof, fail_proof, note_resent
from dicom_node.db.superseded import replaced_by
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.choice import STAND_INS
from dicom_node.domain.delivery import (
    Delivery,
    DeliveryState,
    ResultObject,
    Sent,
    kinds_for,
    stands_aside,
)
from dicom_node.domain.encoding import Encoding, encoded, plain
from dicom_node.domain.job import Job
from dicom_node.domain.model import OutputKind
from dicom_node.domain.proof import NO_PROOF, Proof, ProofPolicy
from dicom_node.domain.uids import delivery_id, result_id
from dicom_node.errors import ConflictError, NodeError, NotFoundError

MOST_LOST = 10  # attempts that ended with their sender before we believe that the object is what kills it
EARLY = timedelta(seconds=5)  # how far ahead of its time the engine may dispatch: on SQLite it keeps whole seconds

NO_CHOICE: Mapping[str, Collection[OutputKind]] = {}
ALL_BINARY: Mapping[str, Encoding] = {}

_d, _a = t.delivery, t.delivery_attempt
_WAITING, _SENDING, _FAILED = (DeliveryState[name].value for name in ("WAITING", "SENDING", "FAILED"))


class DeliveryQueue(Protocol):
    """The part of the engine that deliveries need."""

    def delivery(
        self, tx: Connection, delivery_id: str, destination: str, attempt: int, *, delay_s: float = 0.0
    ) -> None:
        """Enqueue one attempt in the transaction."""


def create_deliveries(
    tx: Connection,
    job: Job,
    results: Sequence[ResultObject],
    enqueuer: DeliveryQueue,
    wanted: Mapping[str, Collection[OutputKind]] = NO_CHOICE,
    encodings: Mapping[str, Encoding] = ALL_BINARY,
) -> None:
    """Write a delivery for each result and destination of a job, and enqueue the first to each destination.

    Parameters
    ----------
    wanted : mapping of str to collection of OutputKind
        What a destination gets; one that is not named, or with an empty collection, gets everything.
    encodings : mapping of str to Encoding
        How a destination wants segmentations; one that is not named wants BINARY.
    """
    made = {result.kind: result for result in results if result.only_for is None}
    order = list(OutputKind)
    for destination in dict.fromkeys(job.destinations):
        encoding = encodings.get(destination, Encoding.BINARY)
        chosen = kinds_for(made, wanted.get(destination, ()), encoding)
        for result in results:
            if destination in result.only_for if result.only_for is not None else result.kind in chosen:
                _insert(tx, job.id, result_id(job.id, result.name), destination, order.index(result.kind))
        if OutputKind.SEG in chosen and encoding is not Encoding.BINARY:
            _note_encoding(tx, job, destination, encoding, made[OutputKind.SEG])
        enqueue_next(tx, job.id, destination, enqueuer)


def claim_delivery(
    tx: Connection, delivery_id: str, executor_id: str, enqueuer: DeliveryQueue, *, again: bool = False
) -> Delivery | None:
    """Take the next attempt of a delivery.

    Parameters
    ----------
    again : bool
        The caller repeats a claim without knowing whether it was committed: its own earlier one counts as lost.

    Returns
    -------
    Delivery or None
        None when there is nothing to do: it has ended, was canceled, is not due, waits for another object, or is being
        sent by a sender that lives.
    """
    row = _load(tx, delivery_id)
    if row is None or row.state not in (_WAITING, _SENDING):
        return None
    if row.state == _WAITING and not _is_due(row):
        return None
    if row.state == _SENDING:
        if _sender_lives(tx, row, but=executor_id if again else None):
            return None
        if _lose(tx, row) >= MOST_LOST:
            _fail_lost(tx, row, enqueuer)
            return None
    n = row.attempt + 1
    tx.execute(update(_d).where(_d.c.id == row.id).values(state=_SENDING, attempt=n, next_attempt_at=None))
    tx.execute(insert(_a).values(delivery_id=row.id, n=n, executor_id=executor_id, started_at=utc_now()))
    record(tx, _event(Event.DELIVERY_STARTED, row, n, executor_id=executor_id))
    return _delivery(row, n, _tries(tx, row))


def finish_delivered(
    tx: Connection, delivery: Delivery, sent: Sent, enqueuer: DeliveryQueue, policy: ProofPolicy = NO_PROOF
) -> bool:
    """Record that the destination took the object; let the next object of the job go. False: not ours any more."""
    row = _end(tx, delivery, DeliveryState.DELIVERED, "delivered", sent.status, sent.comment or None)
    if row is None:
        return False
    hides = delivery.kind is OutputKind.REJECTION and policy.verify.by_query  # itself, too
    begin_proof(tx, delivery, NO_PROOF if hides else policy)
    record(tx, _event(Event.DELIVERY_DONE, row, delivery.attempt, status=sent.status, comment=sent.comment))
    enqueue_next(tx, row.job_id, row.destination, enqueuer)
    return True


def finish_retry(tx: Connection, delivery: Delivery, error: NodeError, delay_s: float, enqueuer: DeliveryQueue) -> bool:
    """Record a failed attempt and enqueue the next one after `delay_s`. False: not ours any more.

    What a newer job has taken the place of in the meantime is not tried again.
    """
    status: int | None = getattr(error, "status", None)
    if (newer := replaced_by(tx, delivery.job_id, delivery.asked_at)) is not None:
        return _finish_outdated(tx, delivery, status, f"{error}; not tried again: job {newer} has taken its place")
    due = utc_now() + timedelta(seconds=delay_s)
    row = _end(tx, delivery, DeliveryState.WAITING, "retry", status, str(error), next_attempt_at=due)
    if row is None:
        return False
    enqueuer.delivery(tx, row.id, row.destination, delivery.attempt + 1, delay_s=delay_s)
    at = due.isoformat(timespec="seconds")
    record(tx, _event(Event.DELIVERY_RETRY, row, delivery.attempt, status=status, error=str(error), next_attempt_at=at))
    return True


def finish_failed(tx: Connection, delivery: Delivery, error: NodeError, enqueuer: DeliveryQueue) -> bool:
    """Record that the delivery failed for good; the other objects of the job still go. False: not ours any more."""
    status: int | None = getattr(error, "status", None)
    is_refused: bool = getattr(error, "is_refused", False)
    aside = stands_aside(delivery.kind, status, is_refused=is_refused)
    row = _end(tx, delivery, DeliveryState.CANCELED if aside else DeliveryState.FAILED, "failed", status, str(error))
    if row is None:
        return False
    fail_proof(tx, row.id, str(error))
    if aside or is_refused:
        _send_instead(tx, row, str(error))
    if aside:
        _exchange_report(tx, row)
    else:
        record(tx, _event(Event.DELIVERY_FAILED, row, delivery.attempt, status=status, error=str(error)))
    enqueue_next(tx, row.job_id, row.destination, enqueuer)
    return True


def _finish_outdated(tx: Connection, delivery: Delivery, status: int | None, why: str) -> bool:
    row = _end(tx, delivery, DeliveryState.CANCELED, "failed", status, why)
    if row is None:
        return False
    record(tx, _event(Event.DELIVERY_FAILED, row, delivery.attempt, status=status, error=why))
    return True


def resend(
    tx: Connection, delivery_ids: Sequence[str], enqueuer: DeliveryQueue, *, actor: str = "operator"
) -> tuple[str, ...]:
    """Send again, now: deliveries that ended in any way, or that wait for their next attempt.

    Returns
    -------
    tuple of str
        The deliveries that will go; those that are being sent at this moment are left alone.

    Raises
    ------
    NotFoundError
        If one of them does not exist.
    ConflictError
        If all of them are being sent.
    """
    groups = sorted({_need(tx, one) for one in delivery_ids})
    wanted = [row for group in groups for row in _not_aside(_siblings(tx, *group)) if row.id in delivery_ids]
    free = [row for row in wanted if row.state != _SENDING]
    if wanted and not free:
        raise ConflictError("it is being sent at this moment")
    for row in free:
        fresh = _reset(tx, row, actor)
        end_proof(tx, row.id)
        record(tx, _event(Event.OPERATOR_RESEND, fresh, fresh.attempt, actor=actor))
    for job_id, destination in groups:
        enqueue_next(tx, job_id, destination, enqueuer)
    return tuple(row.id for row in free)


def send_missing(tx: Connection, proof: Proof, why: str, enqueuer: DeliveryQueue) -> bool:
    """Send an object again that its destination took and has not. False: somebody else sends it already."""
    for row in _siblings(tx, *_need(tx, proof.delivery_id)):
        if row.id == proof.delivery_id and row.state == DeliveryState.DELIVERED.value and row.attempt == proof.attempt:
            if not note_resent(tx, proof, why):
                return False
            _reset(tx, row, "node")
            enqueue_next(tx, row.job_id, row.destination, enqueuer)
            return True
    return False


def enqueue_next(tx: Connection, job_id: str, destination: str, enqueuer: DeliveryQueue) -> None:
    """Enqueue the first object of a job that has not gone to a destination, unless one before it is under way."""
    for row in _siblings(tx, job_id, destination):
        if row.state == _SENDING or (row.state == _WAITING and row.next_attempt_at is not None):
            return
        if row.state == _WAITING:
            tx.execute(update(_d).where(_d.c.id == row.id).values(next_attempt_at=utc_now()))
            enqueuer.delivery(tx, row.id, destination, row.attempt + 1)
            return


def waiting_elsewhere(tx: Connection, destinations: Sequence[str]) -> dict[str, int]:
    """Count the deliveries that wait for a destination which is none of these."""
    query = (
        select(_d.c.destination, func.count().label("waiting"))
        .where(_d.c.state == _WAITING, _d.c.destination.not_in(destinations))
        .group_by(_d.c.destination)
    )
    return {row.destination: row.waiting for row in tx.execute(query)}


def _insert(tx: Connection, job_id: str, result: str, destination: str, position: int) -> str:
    now = utc_now()
    row = delivery_id(result, destination)
    new = {"id": row, "result_id": result, "job_id": job_id, "destination": destination, "position": position}
    tx.execute(insert(_d).values(**new, state=_WAITING, created_at=now, asked_at=now))
    return row


def _note_encoding(tx: Connection, job: Job, destination: str, encoding: Encoding, seg: ResultObject) -> None:
    """Say why a destination gets a BINARY segmentation although it is to get another."""
    detail = {
        "destination": destination,
        "kind": encoded(OutputKind.SEG, encoding).value,
        "instead": OutputKind.SEG.value,
        "reason": seg.summary.get("not_as", {}).get(encoding.value, "it was not made"),
    }
    record(tx, AuditEvent(Event.DELIVERY_REPLACED, series_id=job.series_id, job_id=job.id, detail=detail))


def _send_instead(tx: Connection, row: Row[Any], why: str) -> None:
    """Have other objects of the job go where this one is not taken: of each role, one, unless one goes there anyway."""
    states: dict[OutputKind, set[str]] = {}
    for other in _siblings(tx, row.job_id, row.destination):
        states.setdefault(OutputKind.of(other.kind), set()).add(other.state)
    for role in STAND_INS.get(OutputKind.of(row.kind), ()):
        for kind in role:
            if states.get(kind, {_FAILED}) != {_FAILED}:
                break  # it goes there anyway
            if kind not in states and _also_send(tx, row, kind):
                record(tx, _event(Event.DELIVERY_REPLACED, row, row.attempt, instead=str(kind), error=why))
                break


def _exchange_report(tx: Connection, row: Row[Any]) -> None:
    """Have the report go that points at the object that goes now, in place of the one that waits for this one."""
    for other in _siblings(tx, row.job_id, row.destination):
        kind = OutputKind.of(other.kind)
        if plain(kind) is OutputKind.SR and kind is not OutputKind.SR and not other.attempt:
            tx.execute(delete(_d).where(_d.c.id == other.id))  # nobody has heard of it yet
            _also_send(tx, other, OutputKind.SR)


def _also_send(tx: Connection, row: Row[Any], kind: OutputKind) -> bool:
    """Have the objects of a kind go, too, that do not go there yet. False: there are none."""
    made = tx.execute(select(t.result.c.id, t.result.c.kind).where(t.result.c.job_id == row.job_id)).all()
    new = False
    for result in (each.id for each in made if OutputKind.of(each.kind) is kind):
        if tx.execute(select(_d.c.id).where(_d.c.id == delivery_id(result, row.destination))).first() is None:
            _insert(tx, row.job_id, result, row.destination, row.position)
            new = True
    return new


def _not_aside(rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Leave out what another form of the same object went in place of: never both."""
    kinds = {row.kind for row in rows}
    aside = DeliveryState.CANCELED.value
    return [row for row in rows if not (row.state == aside and _plain_of(row.kind) in kinds - {row.kind})]


def _plain_of(kind: str) -> str:
    return plain(OutputKind.of(kind)).value


def _load(tx: Connection, delivery_id: str) -> Row[Any] | None:
    """Read a delivery with its object, and keep other writers from it until the transaction ends."""
    r = t.result.c
    found = (_d, r.kind, r.sop_class_uid, r.sop_instance_uid, r.transfer_syntax_uid, r.path, r.sha256)
    return tx.execute(
        select(*found, t.job.c.series_id)
        .join(t.result, r.id == _d.c.result_id)
        .join(t.job, t.job.c.id == _d.c.job_id)
        .where(_d.c.id == delivery_id)
        .with_for_update(of=_d)
    ).one_or_none()


def _siblings(tx: Connection, job_id: str, destination: str) -> Sequence[Row[Any]]:
    """Read the deliveries of one job to one destination in order, and keep other writers from them."""
    ours = (_d.c.job_id == job_id, _d.c.destination == destination)
    with_kind = select(_d, t.result.c.kind).join(t.result, t.result.c.id == _d.c.result_id)
    return tx.execute(with_kind.where(*ours).order_by(_d.c.position, _d.c.id).with_for_update(of=_d)).all()


def _is_due(row: Row[Any]) -> bool:
    at: datetime | None = row.next_attempt_at
    return at is not None and at - EARLY <= utc_now()


def _sender_lives(tx: Connection, row: Row[Any], *, but: str | None) -> bool:
    attempt = select(_a.c.executor_id).where(_a.c.delivery_id == row.id, _a.c.n == row.attempt)
    sender: str = tx.execute(attempt).scalar_one()
    return sender != but and is_alive(tx, sender)


def _lose(tx: Connection, row: Row[Any]) -> int:
    """Write off the attempt that died with its sender; return how many did since the delivery was asked for."""
    mine = (_a.c.delivery_id == row.id, _a.c.n == row.attempt, _a.c.ended_at.is_(None))
    lost = {"ended_at": utc_now(), "outcome": "lost", "error": "the sender died"}
    tx.execute(update(_a).where(*mine).values(**lost))
    since = (_a.c.delivery_id == row.id, _a.c.started_at >= row.asked_at, _a.c.outcome == "lost")
    return tx.execute(select(func.count()).select_from(_a).where(*since)).scalar_one()


def _fail_lost(tx: Connection, row: Row[Any], enqueuer: DeliveryQueue) -> None:
    error = f"the sender died {MOST_LOST} times while it sent this object"
    failed = {"state": DeliveryState.FAILED.value, "finished_at": utc_now(), "last_error": error}
    tx.execute(update(_d).where(_d.c.id == row.id).values(**failed))
    fail_proof(tx, row.id, error)
    record(tx, _event(Event.DELIVERY_FAILED, row, row.attempt, error=error))
    enqueue_next(tx, row.job_id, row.destination, enqueuer)


def _tries(tx: Connection, row: Row[Any]) -> int:
    since = (_a.c.delivery_id == row.id, _a.c.started_at >= row.asked_at, func.coalesce(_a.c.outcome, "") != "skipped")
    return tx.execute(select(func.count()).select_from(_a).where(*since)).scalar_one()


def _end(
    tx: Connection,
    delivery: Delivery,
    state: DeliveryState,
    outcome: str,
    status: int | None,
    error: str | None,
    *,
    next_attempt_at: datetime | None = None,
) -> Row[Any] | None:
    """End the attempt, and the delivery if the attempt still holds it. What the peer answered is kept in any case."""
    now = utc_now()
    _siblings(tx, delivery.job_id, delivery.destination)
    mine = (_a.c.delivery_id == delivery.id, _a.c.n == delivery.attempt, _a.c.ended_at.is_(None))
    tx.execute(update(_a).where(*mine).values(ended_at=now, outcome=outcome, status=status, error=error))
    held = (_d.c.id == delivery.id, _d.c.attempt == delivery.attempt, _d.c.state == _SENDING)
    ended = {
        "state": state.value,
        "next_attempt_at": next_attempt_at,
        "finished_at": None if next_attempt_at else now,
        "last_status": status,
        "last_error": error,
    }
    if tx.execute(update(_d).where(*held).values(**ended)).rowcount != 1:
        return None
    return _load(tx, delivery.id)


def _need(tx: Connection, delivery_id: str) -> tuple[str, str]:
    found = tx.execute(select(_d.c.job_id, _d.c.destination).where(_d.c.id == delivery_id)).one_or_none()
    if found is None:
        raise NotFoundError(f"there is no delivery {delivery_id}")
    return found.job_id, found.destination


def _reset(tx: Connection, row: Row[Any], actor: str) -> Row[Any]:
    """Make a delivery wait as if it were new; the number of an attempt that is enqueued already is used up."""
    now = utc_now()
    n = row.attempt
    if row.state in (_WAITING, DeliveryState.CANCELED.value):
        n += 1
        skipped = {"started_at": now, "ended_at": now, "outcome": "skipped", "error": "sent anew on request"}
        tx.execute(insert(_a).values(delivery_id=row.id, n=n, executor_id=actor, **skipped))
    anew = {"state": _WAITING, "attempt": n, "asked_at": now, "next_attempt_at": None, "finished_at": None}
    tx.execute(update(_d).where(_d.c.id == row.id).values(**anew))
    fresh = _load(tx, row.id)
    assert fresh is not None
    return fresh


def _delivery(row: Row[Any], n: int, tries: int) -> Delivery:
    return Delivery(
        id=row.id,
        job_id=row.job_id,
        destination=row.destination,
        kind=OutputKind.of(row.kind),
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        path=row.path,
        sha256=row.sha256,
        attempt=n,
        created_at=row.created_at,
        asked_at=row.asked_at,
        tries=tries,
    )


def _event(
    event: Event, row: Row[Any], n: int, *, actor: str = "node", status: int | None = None, **detail: str
) -> AuditEvent:
    """Tell what happened to a delivery; empty details are left out."""
    known = {
        "destination": row.destination,
        "kind": row.kind,
        "sop_instance_uid": row.sop_instance_uid,
        "attempt": n,
        "status": None if status is None else f"0x{status:04X}",
        **detail,
    }
    return AuditEvent(
        event,
        series_id=row.series_id,
        job_id=row.job_id,
        delivery_id=row.id,
        actor=actor,
        detail={key: value for key, value in known.items() if value not in (None, "")},
    )
