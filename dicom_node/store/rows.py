"""The rows of instances that have become durable, and what else there is to tell the database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine

from dicom_node.db.audit import record
from dicom_node.db.engine import is_away, is_lost
from dicom_node.db.instances import NewInstance, Stored, store_instances
from dicom_node.db.settled import Settled
from dicom_node.db.unstored import note_unstored
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.completeness import Sources
from dicom_node.errors import DuplicateDiffers, OutOfResources, StoreError
from dicom_node.spool import Spool
from dicom_node.store.arrival import Arrival
from dicom_node.store.turn import Turn

logger = logging.getLogger(__name__)

MOST_UNTOLD = 10_000

Note = Callable[[Connection], None]


class Rows:
    """What one thread at a time writes.

    Parameters
    ----------
    sources : Sources
        As `db.instances.store_instances` takes it.

    Attributes
    ----------
    turn : context manager
        To be held while rows are written.
    """

    def __init__(self, spool: Spool, engine: Engine, sources: Sources) -> None:
        self._spool = spool
        self._engine = engine
        self._sources = sources
        self._connection: Connection | None = None  # kept: nobody shall wait for a look whether it is still there
        is_shared = engine.dialect.name == "sqlite"
        self.turn: AbstractContextManager[None] = Turn(spool.root / "locks" / "rows") if is_shared else nullcontext()
        self._settled = Settled()
        self._untold: list[Note] = []  # for the audit trail, not yet committed

    @property
    def has_untold(self) -> bool:
        """Whether there are notes that the database has not taken yet."""
        return bool(self._untold)

    def settle(self, arrivals: Sequence[Arrival]) -> None:
        """Make rows of everything that is in order; what is refused gets its `error`."""
        self._commit([(a, a.instance) for a in arrivals if a.error is None and a.instance is not None])
        self._untold += [partial(_record_refusal, a) for a in arrivals if a.error is not None]

    def tell(self, notes: Sequence[Note]) -> None:
        """Write notes, and those that have waited; while the database is away they wait."""
        self._untold += notes
        if not self._untold:
            return
        try:
            with self._engine.begin() as tx:
                for note in self._untold:
                    _write_down(note, tx)
        except Exception as error:
            if is_away(error):
                del self._untold[:-MOST_UNTOLD]
                return
            logger.exception("%d notes for the audit trail cannot be written", len(self._untold))
        self._untold.clear()

    def disconnect(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _commit(self, kept: list[tuple[Arrival, NewInstance]]) -> None:
        """Write the rows of all in one transaction; of each alone and anew, when one of them cannot be stored."""
        if not kept:
            return
        in_doubt, was_kept = False, self._connection is not None
        try:
            connection = self._connection = self._connection or self._engine.connect()
            with connection.begin() as tx:
                news = [new for _, new in kept]
                outcomes = store_instances(connection, news, self._sources, self._spool.has_digest, self._settled)
                in_doubt = True
                tx.commit()
        except Exception as error:  # noqa: BLE001 - told by _refusal; the peers are owed an answer in any case
            self.disconnect()
            may_be_outdated = self._settled.clear() or len(kept) > 1
            if not in_doubt and ((was_kept and is_lost(error)) or (may_be_outdated and not is_away(error))):
                for one in kept:
                    self._commit([one])
                return
            _refuse([arrival for arrival, _ in kept], _refusal(error))
            if not in_doubt:  # when a commit breaks, the rows may be there all the same: then the files must be
                for _, new in kept:
                    self._spool.delete(new.path)
            return
        for (arrival, new), outcome in zip(kept, outcomes, strict=True):
            arrival.outcome = outcome
            if outcome is not Stored.NEW:
                self._spool.delete(new.path)
            if outcome is Stored.DIFFERS:
                arrival.error = DuplicateDiffers("this SOP Instance UID is stored with other bytes")


def _write_down(note: Note, tx: Connection) -> None:
    """Write one note, in a savepoint: one that no database takes must not cost the others."""
    try:
        with tx.begin_nested():
            note(tx)
    except Exception as error:
        if is_away(error):
            raise
        logger.exception("a note for the audit trail cannot be written")


def _refusal(error: Exception) -> StoreError:
    if is_away(error):
        logger.warning("instances are refused, the database is away: %s", type(error).__name__)
        return OutOfResources("the database does not answer")
    logger.error("an instance cannot be stored", exc_info=error)
    return StoreError("processing failure")


def _refuse(arrivals: Sequence[Arrival], error: StoreError) -> None:
    for arrival in arrivals:
        arrival.error = error


def _record_refusal(arrival: Arrival, tx: Connection) -> None:
    assert arrival.error is not None
    if isinstance(arrival.error, DuplicateDiffers):
        return  # store_instances has told it, with both checksums
    detail: dict[str, Any] = {
        "instance": arrival.sop_instance_uid[:64],
        "status": f"0x{arrival.error.status:04X}",
        "reason": str(arrival.error),
        "from": arrival.sender.calling_ae,
        "address": arrival.sender.address,
    }
    who = arrival.sender
    record(tx, AuditEvent(Event.INSTANCE_REFUSED, association_id=who.id, actor=who.actor, detail=detail))
    series = arrival.instance.series_instance_uid if arrival.instance else arrival.series_instance_uid
    if series and arrival.error.retry:
        note_unstored(tx, series, arrival.sop_instance_uid, str(arrival.error))
