"""Instances as they arrive: one transaction for everything that several associations delivered together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Integer, Row, Table, bindparam, func, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record, told_of
from dicom_node.db.engine import insert_into, utc_now
from dicom_node.db.origin import has_come, note_again
from dicom_node.db.prepared import Prepared
from dicom_node.db.settled import Settled
from dicom_node.digest import is_earlier
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.completeness import Source, Sources

RELEASED = "released"  # how an association ends that the peer had no more to send on


class Stored(StrEnum):
    """What became of an instance."""

    NEW = "new"
    SAME = "same"  # the same bytes under the same UID: stored already
    DIFFERS = "differs"  # other bytes under the same UID: refused, the first is kept


@dataclass(frozen=True, slots=True)
class Sender:
    """The association or request that an instance came by. `account`: who signed in to send it; empty for DIMSE."""

    id: str
    calling_ae: str
    called_ae: str
    address: str
    implementation: str
    started_at: datetime
    account: str = ""

    @property
    def actor(self) -> str:
        """As the audit trail names who did it."""
        return f"user {self.account}" if self.account else "node"


@dataclass(frozen=True, slots=True)
class NewInstance:
    """An instance whose file is synced in the spool, before its row is written.

    `header` has the attributes named in `domain.study.HEADER`, as JSON takes them. Texts of it that have a column of
    their own are cut to what the column holds.
    """

    sender: Sender
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    digest: str
    header: dict[str, Any]


_MOST_OF_SERIES = 1_000_000  # an announced number of instances beyond it is garbage

# Built once: building a statement costs more than running it.
_STUDY = select(t.study.c.id).where(t.study.c.study_instance_uid == bindparam("uid"))
_SERIES = (
    select(t.series.c.id)
    .join(t.study)
    .where(t.study.c.study_instance_uid == bindparam("study"), t.series.c.series_instance_uid == bindparam("series"))
)
_INSTANCES = select(
    t.instance.c.sop_instance_uid, t.instance.c.digest, t.instance.c.transfer_syntax_uid, t.instance.c.series_id
).where(t.instance.c.sop_instance_uid.in_(bindparam("uids", expanding=True)))

# FOR NO KEY UPDATE: another receiver that has inserted instances holds a share of the key, and waits here, too.
_LOCKED = (
    select(t.series.c.state, t.series.c.revision)
    .where(t.series.c.id == bindparam("series"))
    .with_for_update(key_share=True)
)
_GROWN = (
    update(t.series)
    .where(t.series.c.id == bindparam("series"))
    .values(
        instance_count=t.series.c.instance_count + bindparam("more"),
        expected_count=func.coalesce(bindparam("expected", type_=Integer), t.series.c.expected_count),
        last_received_at=bindparam("now"),
        settle_at=bindparam("settle_at"),
        patient_until=bindparam("patient_until"),
        source=bindparam("source"),
        ask_at=bindparam("ask_at"),
    )
)
_REOPENED = _GROWN.values(state="receiving", images_deleted_at=None)
# Nearly always. It names nothing that stays as it is: SQLite writes every index anew of which a column is named.
_GROWING = Prepared(lambda tx: _GROWN.where(t.series.c.state == "receiving"))
_ASSOCIATION = Prepared(lambda tx: insert_into(tx, t.association).on_conflict_do_nothing())
_INSTANCE = Prepared(lambda tx: insert_into(tx, t.instance).on_conflict_do_nothing())


def store_instances(
    tx: Connection,
    new: Sequence[NewInstance],
    sources: Sources,
    has_digest: Callable[[str, str], bool],
    settled: Settled | None = None,
) -> list[Stored]:
    """Write the rows of instances, and of their studies, series and associations where these are new.

    Parameters
    ----------
    new : sequence of NewInstance
        From any number of associations. Two with the same SOP Instance UID: the first counts.
    sources : Sources
        How long to wait for the rest of a series, by who sends it.
    has_digest : callable
        Says of a file in the spool whether its data set has a digest. Asked about instances that an earlier version
        stored, under a digest of another kind.
    settled : Settled, optional
        What earlier calls have settled; what this one settles is added.

    Returns
    -------
    list of Stored
        One for each of `new`, in its order.
    """
    now = utc_now()
    settled = Settled() if settled is None else settled
    settled.make_room()
    _ensure_associations(tx, {one.sender.id: one.sender for one in new}, settled)
    is_settled = all(_series_of(one) in settled.series for one in new)
    # an instance that is stored already must not begin a series; where there is none to begin, inserting tells
    known = {} if is_settled else _known(tx, [one.sop_instance_uid for one in new])
    fresh: dict[str, NewInstance] = {}
    for one in sorted(new, key=_place):  # so that two receivers cannot lock each other out
        if one.sop_instance_uid not in known:
            fresh.setdefault(one.sop_instance_uid, one)
    stored = _store_fresh(tx, fresh, now, sources, settled)
    twins = [one.sop_instance_uid for one in new if stored.get(one.sop_instance_uid) is not one]
    known |= _known(tx, [uid for uid in twins if uid not in known])
    outcomes = [
        Stored.NEW
        if stored.get(one.sop_instance_uid) is one
        else _compare(tx, one, known[one.sop_instance_uid], has_digest)
        for one in new
    ]
    again = [one for one, outcome in zip(new, outcomes, strict=True) if outcome is Stored.SAME]
    for series_id, who in {(known[one.sop_instance_uid].series_id, one.sender) for one in again}:
        if (series_id, who.id) not in settled.again:
            settled.again.add((series_id, who.id))
            _note_again(tx, who, series_id)
    return outcomes


def end_association(tx: Connection, sender: Sender, *, reason: str, stored: int, refused: int) -> None:
    """Record how an association ended that stored or was refused at least one instance."""
    _ensure_associations(tx, {sender.id: sender}, Settled())
    ended = {"ended_at": utc_now(), "end_reason": reason[:200], "stored": stored, "refused": refused}
    tx.execute(update(t.association).where(t.association.c.id == sender.id).values(**ended))


def paths_of_series(tx: Connection, series_id: str) -> list[str]:
    """List the files of a series, in the order in which they came."""
    mine = select(t.instance.c.path).where(t.instance.c.series_id == series_id).order_by(t.instance.c.id)
    return list(tx.scalars(mine))


def find_stored(tx: Connection, sop_instance_uid: str) -> Row[Any] | None:
    """Series, digest and transfer syntax of an instance that is stored; None when it is not."""
    return _known(tx, [sop_instance_uid]).get(sop_instance_uid)


def note_unread(tx: Connection, sender: Sender, series_id: str, *, once: bool = False) -> None:
    """Keep that what is stored of a series came again by an association that stored nothing of it.

    Somebody who looks at the bytes first, and has no need to store them, says so: by another called AE title than
    before the series is asked about again, as if all of it had been sent.

    Parameters
    ----------
    once : bool
        Whether to tell of it only if nobody has told the same before: what lies in a folder is found at every start.
    """
    if not has_come(tx, series_id, sender.called_ae):
        end_association(tx, sender, reason=RELEASED, stored=0, refused=0)  # once more if it stores of another series
    _note_again(tx, sender, series_id, once=once)


def paths_known(tx: Connection, paths: Iterable[str]) -> set[str]:
    """Of some paths in the spool, those that have a row."""
    return set(tx.scalars(select(t.instance.c.path).where(t.instance.c.path.in_(list(paths)))))


def _place(one: NewInstance) -> tuple[str, str, str]:
    return one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid


def _series_of(one: NewInstance) -> tuple[str, str]:
    return one.study_instance_uid, one.series_instance_uid


def _store_fresh(
    tx: Connection, fresh: dict[str, NewInstance], now: datetime, sources: Sources, settled: Settled
) -> dict[str, NewInstance]:
    """Insert what nobody has stored yet, by SOP Instance UID; what no other receiver was faster with."""
    series = settled.series
    for one in fresh.values():
        if _series_of(one) not in series:
            series[_series_of(one)] = _ensure_series(tx, one, now, sources)
    stored = _insert(tx, {uid: (one, series[_series_of(one)]) for uid, one in fresh.items()}, now)
    grown: dict[str, list[NewInstance]] = {}
    for one in stored.values():
        grown.setdefault(series[_series_of(one)], []).append(one)
    for series_id, arrived in grown.items():
        _grow(tx, series_id, arrived, now, sources)
    return stored


def _note_again(tx: Connection, sender: Sender, series_id: str, *, once: bool = False) -> None:
    """Keep that a series came again: for the rules of a title that it did not come by, or else to be told of."""
    if not has_come(tx, series_id, sender.called_ae):
        note_again(tx, series_id, sender.id)
    elif tx.scalar(select(t.series.c.state).where(t.series.c.id == series_id)) == "complete":
        detail = {"called": [sender.called_ae], "from": [sender.calling_ae]}
        if once and detail in told_of(tx, Event.SERIES_CAME_AGAIN, series_id):
            return
        again = AuditEvent(Event.SERIES_CAME_AGAIN, sender.id, series_id, actor=sender.actor, detail=detail)
        record(tx, again)


def _ensure_associations(tx: Connection, senders: dict[str, Sender], settled: Settled) -> None:
    rows = [
        {
            "id": sender.id,
            "calling_ae": sender.calling_ae,
            "called_ae": sender.called_ae,
            "peer_address": sender.address,
            "implementation": sender.implementation[:96],
            "account": sender.account,
            "started_at": sender.started_at,
        }
        for sender in senders.values()
        if sender.id not in settled.associations
    ]
    if rows:
        _ASSOCIATION.execute(tx, rows)
        settled.associations.update(senders)


def _ensure_series(tx: Connection, one: NewInstance, now: datetime, sources: Sources) -> str:
    which = {"study": one.study_instance_uid, "series": one.series_instance_uid}
    if series_id := tx.scalar(_SERIES, which):
        return str(series_id)
    study_id = tx.scalar(_STUDY, {"uid": one.study_instance_uid})
    if study_id is None:
        study = {
            "id": str(uuid4()),
            "study_instance_uid": one.study_instance_uid,
            "patient_id": _text(one, "PatientID", 64),
            "accession_number": _text(one, "AccessionNumber", 64),
            "study_date": _text(one, "StudyDate", 8),
            "first_received_at": now,
        }
        _insert_new(tx, t.study, study)
        study_id = tx.scalars(_STUDY, {"uid": one.study_instance_uid}).one()
    series = {
        "id": str(uuid4()),
        "study_id": study_id,
        "series_instance_uid": one.series_instance_uid,
        "modality": _text(one, "Modality", 16),
        "series_description": _text(one, "SeriesDescription", 64),
        "source_ae": one.sender.calling_ae,
        "scanner": _scanner(one),
        "state": "receiving",
        "first_received_at": now,
        "last_received_at": now,
        **_waiting(sources.of([one.sender]), now),
    }
    if _insert_new(tx, t.series, series):
        detail = {"study": one.study_instance_uid, "series": one.series_instance_uid, "from": one.sender.calling_ae}
        record(
            tx,
            AuditEvent(
                Event.SERIES_STARTED, one.sender.id, series_id=series["id"], actor=one.sender.actor, detail=detail
            ),
        )
    return str(tx.scalars(_SERIES, which).one())


def _row(one: NewInstance, series_id: str, now: datetime) -> dict[str, Any]:
    return {
        "series_id": series_id,
        "association_id": one.sender.id,
        "sop_instance_uid": one.sop_instance_uid,
        "sop_class_uid": one.sop_class_uid,
        "transfer_syntax_uid": one.transfer_syntax_uid,
        "path": one.path,
        "size": one.size,
        "digest": one.digest,
        "received_at": now,
        "header": one.header,
    }


def _insert(tx: Connection, fresh: dict[str, tuple[NewInstance, str]], now: datetime) -> dict[str, NewInstance]:
    """Insert instances, each with the id of its series; those that no other receiver was faster with."""
    if not fresh:
        return {}
    inserted = _INSTANCE.execute(tx, [_row(one, series_id, now) for one, series_id in fresh.values()])
    stored = {uid: one for uid, (one, _) in fresh.items()}
    if inserted == len(fresh):
        return stored
    mine = paths_known(tx, [one.path for one in stored.values()])
    return {uid: one for uid, one in stored.items() if one.path in mine}


def _known(tx: Connection, uids: list[str]) -> dict[str, Row[*tuple[Any, ...]]]:
    """Of SOP Instance UIDs, the instances that are stored."""
    return {row.sop_instance_uid: row for row in tx.execute(_INSTANCES, {"uids": uids})} if uids else {}


def _compare(
    tx: Connection, one: NewInstance, found: Row[*tuple[Any, ...]], has_digest: Callable[[str, str], bool]
) -> Stored:
    if found.transfer_syntax_uid == one.transfer_syntax_uid and (
        found.digest == one.digest or (is_earlier(found.digest) and has_digest(one.path, found.digest))
    ):
        return Stored.SAME
    _tell_difference(tx, one, found)
    return Stored.DIFFERS


def _grow(tx: Connection, series_id: str, arrived: list[NewInstance], now: datetime, sources: Sources) -> None:
    """Count what arrived and put off the settling; a complete series opens again."""
    expected = [n for one in arrived if (n := _count(one.header.get("NumberOfSeriesRelatedInstances")))]
    growth = {
        "series": series_id,
        "more": len(arrived),
        "expected": max(expected, default=None),
        "now": now,
        **_waiting(sources.of(one.sender for one in arrived), now),
    }
    if _GROWING.execute(tx, [growth]):
        return
    before = tx.execute(_LOCKED, {"series": series_id}).one()
    tx.execute(_REOPENED, growth)
    if before.state == "complete":
        detail = {"revision": before.revision, "late_instances": len(arrived)}
        by = arrived[0].sender
        record(tx, AuditEvent(Event.SERIES_REOPENED, by.id, series_id=series_id, actor=by.actor, detail=detail))


def _waiting(source: Source, now: datetime) -> dict[str, Any]:
    """Give the columns of a series that say how long it is waited for."""
    return {
        "source": source.name,
        "settle_at": now + timedelta(seconds=source.quiet_s),
        "patient_until": now + timedelta(seconds=source.patience_s),
        "ask_at": now + timedelta(seconds=source.ask_after_s) if source.ask else None,
    }


def _tell_difference(tx: Connection, one: NewInstance, found: Row[*tuple[Any, ...]]) -> None:
    detail = {
        "instance": one.sop_instance_uid,
        "kept": {"digest": found.digest, "transfer_syntax": found.transfer_syntax_uid},
        "refused": {"digest": one.digest, "transfer_syntax": one.transfer_syntax_uid},
    }
    told = AuditEvent(
        Event.INSTANCE_DUPLICATE_DIFFERS,
        one.sender.id,
        series_id=found.series_id,
        actor=one.sender.actor,
        detail=detail,
    )
    record(tx, told)


def _insert_new(tx: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Insert a row unless one with the same key is there; whether it was inserted."""
    # psycopg counts no inserted rows, so the row has to say that it is new
    insert = insert_into(tx, table).on_conflict_do_nothing().returning(table.c.id)
    return tx.execute(insert, row).first() is not None


def _text(one: NewInstance, keyword: str, longest: int) -> str:
    return str(one.header.get(keyword) or "")[:longest]


def _scanner(one: NewInstance) -> str:
    model = f"{_text(one, 'Manufacturer', 31)} {_text(one, 'ManufacturerModelName', 64)}"
    return _text(one, "StationName", 96) or model.strip()


def _count(value: object) -> int | None:
    try:
        number = int(value) if isinstance(value, (int, float, str)) else 0
    except ValueError:
        return None
    return number if 0 < number <= _MOST_OF_SERIES else None
