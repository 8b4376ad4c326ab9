"""Store instances: 0x0000 is a promise, given once the file is synced and the row committed.

Two threads stand behind the loop of whoever talks to peers, so that neither a slow disk nor a slow database keeps it
from answering: one writes what arrives, one syncs and commits. The second takes everything that has become complete
meanwhile, from all peers, and pays for the disk once: group commit.

==========================================  ======================================================================
status (PS3.4 B.2.3, PS3.7 annex C)          when
==========================================  ======================================================================
0x0000                                       stored now, or stored before with the same bytes
0x0111 duplicate SOP instance                stored before with other bytes, which are kept
0x0110 processing failure                    what nobody foresaw; the log has the traceback
0xA700 out of resources                      disk full, or database away: the peer shall send again
0xA900 data set does not match SOP class     the data set is not what was announced, or not of the announced study
0xC000 cannot understand                     no usable UIDs, or elements that cannot be walked
==========================================  ======================================================================
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from typing import Any

from sqlalchemy import Connection, Engine

from dicom_node.db.audit import record
from dicom_node.db.engine import is_away
from dicom_node.db.instances import NewInstance, Stored, store_instances
from dicom_node.db.settled import Settled
from dicom_node.db.unstored import note_unstored
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.completeness import Sources
from dicom_node.errors import DuplicateDiffers, OutOfResources, StoreError
from dicom_node.spool import Spool
from dicom_node.store.arrival import Arrival

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 64
MOST_UNTOLD = 10_000
_TELL_AGAIN_S = 5.0
_ENOUGH_BYTES = 128 * 1024  # to be handed to a disk thread that is busy with the same data set

SUCCESS = 0x0000

Note = Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class Task:
    """Something else that the commit thread does with the database."""

    run: Callable[[Engine], None]


class Storage:
    """The two threads, and what the loop hands to them. Its methods return at once.

    Parameters
    ----------
    sources : Sources
        As `db.instances.store_instances` takes it.
    """

    def __init__(self, spool: Spool, engine: Engine, sources: Sources) -> None:
        self._spool = spool
        self._engine = engine
        self._sources = sources
        self._disk: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._commits: queue.SimpleQueue[Arrival | Task | Note | None] = queue.SimpleQueue()
        self._settled = Settled()  # the commit thread's
        self._untold: list[Note] = []  # for the audit trail, not yet committed
        self._threads = [
            Thread(target=self._write_all, name="write", daemon=True),
            Thread(target=self._commit_all, name="commit", daemon=True),
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Finish what was handed over, and end the threads."""
        self._disk.put(None)
        for thread in self._threads:
            thread.join(timeout_s)

    def tell_last(self) -> None:
        """Write what was told after `stop`: how associations ended that got their last answer only then."""
        if not self._threads[-1].is_alive():
            while not self._commits.empty():
                item = self._commits.get()
                self._untold += [item] if callable(item) else []
            self._tell()

    def write(self, arrival: Arrival, data: memoryview | bytes) -> None:
        """Append to the data set."""
        arrival.hold(data)
        if arrival.pending_bytes >= _ENOUGH_BYTES or arrival.written + arrival.pending_bytes == arrival.queued:
            self._disk.put(partial(self._write, arrival, arrival.take_pending()))

    def finish(self, arrival: Arrival) -> None:
        """Store what arrived; `arrival.answer` is called once that is settled."""
        self._disk.put(partial(self._finish, arrival, arrival.take_pending()))

    def abandon(self, arrival: Arrival) -> None:
        """Forget a data set whose rest will not come."""
        self._disk.put(arrival.discard)

    def do(self, run: Callable[[Engine], None]) -> None:
        """Have the commit thread do something with the database, after what was handed over before."""
        self._commits.put(Task(run))

    def tell(self, note: Note) -> None:
        """Write something to the database, later if it is away."""
        self._commits.put(note)

    # The disk thread

    def _write_all(self) -> None:
        while (step := self._disk.get()) is not None:
            try:
                step()
            except Exception:  # one data set must not cost the thread that writes all of them
                logger.exception("the disk thread failed in one step")
        self._commits.put(None)

    def _write(self, arrival: Arrival, pieces: list[memoryview | bytes]) -> None:
        for data in pieces:
            if arrival.error is None:
                try:
                    arrival.append(data, self._spool)
                except Exception as error:  # noqa: BLE001 - whatever it was: what lacks a piece is never stored
                    arrival.error = _problem(error)
                    arrival.note_series(b"".join(pieces))
            arrival.written += len(data)
        if (on_room := arrival.on_room) is not None and not arrival.is_ahead:
            arrival.on_room = None
            on_room()

    def _finish(self, arrival: Arrival, pieces: list[memoryview | bytes]) -> None:
        self._write(arrival, pieces)
        if arrival.error is None:
            try:
                arrival.identify()
            except Exception as error:  # noqa: BLE001 - whatever it was, the peer is owed an answer
                arrival.error = _problem(error)
        if arrival.error is not None:
            arrival.discard()
        self._commits.put(arrival)

    # The commit thread

    def _commit_all(self) -> None:
        ending = False
        while not ending:
            items = self._gather()
            ending = None in items
            arrivals = [item for item in items if isinstance(item, Arrival)]
            try:
                self._settle(arrivals)
            except Exception:  # whatever it was, the peers get an answer and the thread lives on
                logger.exception("%d instances were not stored", len(arrivals))
                for arrival in arrivals:
                    arrival.error = arrival.error or StoreError("processing failure")
            for arrival in arrivals:
                _answer(arrival)
            for task in (item for item in items if isinstance(item, Task)):
                task.run(self._engine)
            self._untold += [item for item in items if callable(item)]
            self._tell()

    def _gather(self) -> list[Arrival | Task | Note | None]:
        """Wait for something to do, then take what else is there."""
        items: list[Arrival | Task | Note | None] = []
        try:
            items.append(self._commits.get(timeout=_TELL_AGAIN_S if self._untold else None))
            while items[-1] is not None and len(items) < MOST_AT_ONCE:
                items.append(self._commits.get_nowait())
        except queue.Empty:
            pass
        return items

    def _settle(self, arrivals: Sequence[Arrival]) -> None:
        """Make files and rows of everything that is in order; what is refused gets its `error`."""
        complete = [a for a in arrivals if a.error is None]
        if complete:
            self._commit(self._keep(complete))
        self._untold += [partial(_record_refusal, a) for a in arrivals if a.error is not None]

    def _keep(self, complete: list[Arrival]) -> list[tuple[Arrival, NewInstance]]:
        """Make the files durable; their rows, to be written."""
        files = [a.file for a in complete if a.file is not None]
        try:
            paths = self._spool.keep(files)
        except OSError as error:
            _refuse(complete, OutOfResources(f"the spool cannot be synced: {error.strerror}"))
            return []
        return [(a, replace(a.instance, path=path)) for a, path in zip(complete, paths, strict=True) if a.instance]

    def _commit(self, kept: list[tuple[Arrival, NewInstance]]) -> None:
        """Write the rows of all in one transaction; of each alone and anew, when one of them cannot be stored."""
        if not kept:
            return
        in_doubt = False
        try:
            with self._engine.connect() as connection, connection.begin() as tx:
                news = [new for _, new in kept]
                outcomes = store_instances(connection, news, self._sources, self._spool.has_digest, self._settled)
                in_doubt = True
                tx.commit()
        except Exception as error:  # noqa: BLE001 - told by _refusal; the peers are owed an answer in any case
            may_be_outdated = self._settled.clear()
            if (len(kept) > 1 or may_be_outdated) and not in_doubt and not is_away(error):
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

    def _tell(self) -> None:
        """Write the notes; while the database is away they wait."""
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


def _problem(error: Exception) -> StoreError:
    """What a peer is told of an error on the way to the disk."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, OSError):
        return OutOfResources(f"the spool cannot be written: {error.strerror}")
    logger.error("an instance cannot be read", exc_info=error)
    return StoreError("processing failure")


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


def _answer(arrival: Arrival) -> None:
    if arrival.error is None:
        arrival.answer(SUCCESS, "")
    else:
        arrival.answer(arrival.error.status, str(arrival.error))


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
