"""The proof of each delivery: begun when a destination takes the object, written on by whoever asks or hears of it.

`proof.attempt` is the token: what belongs to an older attempt at the delivery is not written down. A report of storage
commitment comes to a receiver, which only notes it; the deliverer that asks this destination draws the conclusion.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, case, delete, insert, or_, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.engine import utc_now
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.delivery import Delivery, DeliveryState
from dicom_node.domain.proof import CommitmentReport, Proof, ProofPolicy, ProofState, Verify

MOST_AT_ONCE = 100  # objects in one request for storage commitment

_p, _d, _r = t.proof, t.delivery, t.result
_DUE = ProofState.DUE.value


def begin_proof(tx: Connection, delivery: Delivery, policy: ProofPolicy) -> None:
    """Have a delivery proven that was taken just now; what an earlier attempt had proven counts no more."""
    if policy.verify is Verify.NONE:
        end_proof(tx, delivery.id)
        return
    now = utc_now()
    anew: dict[str, Any] = {
        "destination": delivery.destination,
        "attempt": delivery.attempt,
        "state": _DUE,
        "since": now,
        "due_at": now + timedelta(seconds=policy.after_s),
        "looks": 0,
        "transaction_uid": None,
        "asked": 0,
        "asked_at": None,
        "failure_reason": None,
        "committed_at": None,
        "seen_at": None,
        "ended_at": None,
    }
    if tx.execute(update(_p).where(_p.c.delivery_id == delivery.id).values(**anew)).rowcount == 0:
        tx.execute(insert(_p).values(delivery_id=delivery.id, **anew))


def end_proof(tx: Connection, delivery_id: str) -> None:
    """Forget the proof of a delivery: somebody sends it anew."""
    tx.execute(delete(_p).where(_p.c.delivery_id == delivery_id))


def fail_proof(tx: Connection, delivery_id: str, why: str) -> None:
    """Note that an object that was missing cannot be sent again."""
    open_one = (_p.c.delivery_id == delivery_id, _p.c.state == _DUE)
    ended = {"state": ProofState.FAILED.value, "said": why, "due_at": None, "ended_at": utc_now()}
    tx.execute(update(_p).where(*open_one).values(**ended))


def claim_proofs(tx: Connection, destination: str, verify: Verify, lease_s: float) -> list[Proof]:
    """Take the proofs whose time has come; nobody else gets them for `lease_s`."""
    now = utc_now()
    due = (_p.c.destination == destination, _p.c.state == _DUE, _p.c.due_at <= now)
    rows = tx.execute(
        _query()
        .where(*due, _d.c.state == DeliveryState.DELIVERED.value)
        .order_by(_p.c.due_at)
        .limit(MOST_AT_ONCE)
        .with_for_update(of=_p, skip_locked=True)
    ).all()
    ids = [row.delivery_id for row in rows]
    tx.execute(update(_p).where(_p.c.delivery_id.in_(ids)).values(due_at=now + timedelta(seconds=lease_s)))
    return [_proof(row, verify) for row in rows]


def close_unwanted(tx: Connection, wanted: Collection[str]) -> int:
    """End the open proofs at destinations of which no proof is wanted any more; how many there were."""
    unwanted = (_p.c.state == _DUE, _p.c.destination.not_in(wanted))
    why = "the settings ask for no proof of this destination any more"
    ended = {"state": ProofState.NO_ANSWER.value, "said": why, "due_at": None, "ended_at": utc_now()}
    return tx.execute(update(_p).where(*unwanted).values(**ended)).rowcount


def note_asked(tx: Connection, transaction_uid: str, proofs: Sequence[Proof]) -> None:
    """Note a request for storage commitment, before it is made: its report may come at once."""
    now = utc_now()
    for proof in proofs:
        asked = {"transaction_uid": transaction_uid, "asked": proof.asked + 1, "asked_at": now, "failure_reason": None}
        if _write(tx, proof, **asked):
            _record(tx, Event.COMMITMENT_ASKED, proof, transaction_uid=transaction_uid)


def note_unasked(tx: Connection, transaction_uid: str) -> None:
    """Take a request for storage commitment back that was not answered; a report that comes all the same counts."""
    never = {"asked_at": None, "asked": _p.c.asked - 1}
    tx.execute(update(_p).where(_p.c.transaction_uid == transaction_uid).values(**never))


def note_report(tx: Connection, report: CommitmentReport) -> int | None:
    """Note a report of storage commitment (PS3.4 J.3.3); the deliverer then draws the conclusion.

    Returns
    -------
    int or None
        How many deliveries it says something new about; None when nobody asked for it, or something else was asked
        since.
    """
    rows = tx.execute(_query().where(_p.c.transaction_uid == report.transaction_uid).with_for_update(of=_p)).all()
    if not rows:
        return None
    told = 0
    for row in rows:
        if row.committed_at is not None:
            continue
        news: dict[str, Any] = {}
        if row.sop_instance_uid in report.committed:
            news = {"committed_at": utc_now(), "failure_reason": None}
        elif row.sop_instance_uid in report.failed:
            news = {"failure_reason": report.failed[row.sop_instance_uid]}
        if news:
            told += 1
            again = {"state": _DUE, "due_at": utc_now(), "ended_at": None}
            tx.execute(update(_p).where(_p.c.delivery_id == row.delivery_id).values(**news, **again))
    return told


def note_seen(tx: Connection, proof: Proof, until: datetime) -> bool:
    """Note that a query found the object, whose commitment is waited for until then. False: it was sent anew."""
    return _write(tx, proof, seen_at=utc_now(), looks=proof.looks + 1, due_at=_unless_reported(until))


def note_unproven(tx: Connection, proof: Proof, until: datetime, why: str) -> bool:
    """Note what stands in the way, and look again at `until`. False: it was sent anew."""
    return _write(tx, proof, looks=proof.looks + 1, due_at=until, said=why)


def note_waiting(tx: Connection, proof: Proof, until: datetime) -> bool:
    """Look again at `until`, or when a report comes. False: it was sent anew."""
    return _write(tx, proof, due_at=_unless_reported(until))


def finish_proven(tx: Connection, proof: Proof, *, seen: bool) -> bool:
    """End a proof well. False: it was sent anew, or a commitment was refused meanwhile."""
    now = utc_now()
    ended: dict[str, Any] = {"state": ProofState.PROVEN.value, "due_at": None, "ended_at": now, "said": None}
    if seen:
        ended["seen_at"] = now
    if not _write(tx, proof, **ended):
        return False
    answers = {"committed": proof.committed_at, "seen": seen or proof.seen_at}
    how = " and ".join(word for word, is_so in answers.items() if is_so)
    _record(tx, Event.DELIVERY_PROVEN, proof, how=how)
    return True


def finish_unproven(tx: Connection, proof: Proof, state: ProofState, why: str) -> bool:
    """End a proof without one. False: it was sent anew."""
    if not _write(tx, proof, state=state.value, due_at=None, ended_at=utc_now(), said=why):
        return False
    _record(tx, Event.DELIVERY_UNPROVEN, proof, state=state.value, reason=why)
    return True


def note_resent(tx: Connection, proof: Proof, why: str) -> bool:
    """Note that the object is sent again because it is missing. False: it was sent anew already."""
    if not _write(tx, proof, resent=proof.resent + 1, due_at=None, said=why):
        return False
    _record(tx, Event.DELIVERY_LOST, proof, reason=why, times=proof.resent + 1)
    return True


def _unless_reported(until: datetime) -> Any:
    """Look at once where a report has come in the meantime."""
    return case((or_(_p.c.committed_at.is_not(None), _p.c.failure_reason.is_not(None)), utc_now()), else_=until)


def _query() -> Any:
    return (
        select(
            _p,
            _r.c.sop_class_uid,
            _r.c.sop_instance_uid,
            _r.c.series_instance_uid,
            _r.c.path,
            _r.c.sha256,
            t.study.c.study_instance_uid,
        )
        .join(_d, _d.c.id == _p.c.delivery_id)
        .join(_r, _r.c.id == _d.c.result_id)
        .join(t.job, t.job.c.id == _d.c.job_id)
        .join(t.series, t.series.c.id == t.job.c.series_id)
        .join(t.study, t.study.c.id == t.series.c.study_id)
    )


def _proof(row: Row[Any], verify: Verify) -> Proof:
    known = {name: row._mapping[name] for name in Proof.__slots__ if name != "verify"}
    return Proof(verify=verify, **known)


def _write(tx: Connection, proof: Proof, **values: Any) -> bool:
    held = (_p.c.delivery_id == proof.delivery_id, _p.c.attempt == proof.attempt, _p.c.state == _DUE)
    return tx.execute(update(_p).where(*held).values(**values)).rowcount == 1


def _record(tx: Connection, event: Event, proof: Proof, **detail: Any) -> None:
    about = select(_d.c.job_id, _d.c.destination, t.job.c.series_id, _r.c.kind)
    about = about.join(t.job, t.job.c.id == _d.c.job_id).join(_r, _r.c.id == _d.c.result_id)
    row = tx.execute(about.where(_d.c.id == proof.delivery_id)).one()
    what = {"destination": row.destination, "kind": row.kind, "sop_instance_uid": proof.sop_instance_uid}
    record(
        tx,
        AuditEvent(
            event,
            series_id=row.series_id,
            job_id=row.job_id,
            delivery_id=proof.delivery_id,
            detail={**what, **{key: value for key, value in detail.items() if value not in (None, "")}},
        ),
    )
