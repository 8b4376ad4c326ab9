"""Store instances: 0x0000 is a promise, given once the file is synced and the row committed.

A few threads stand behind the loop of whoever talks to peers, so that neither a slow disk nor a slow database keeps it
from answering. Each takes an instance the whole way: it writes what arrives, syncs it, and then commits it together
with everything that has become ready meanwhile, from all peers, unless another thread is just doing so: then that one
takes it along. So a single peer waits for no thread but one, and many peers pay for a commit once.

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
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from threading import Lock

from sqlalchemy import Engine

from dicom_node.domain.completeness import Sources
from dicom_node.errors import OutOfResources, StoreError
from dicom_node.spool import Spool
from dicom_node.store.arrival import Arrival
from dicom_node.store.hands import Hand
from dicom_node.store.rows import Note, Rows

logger = logging.getLogger(__name__)

HANDS = 8
MOST_AT_ONCE = 64
_TELL_AGAIN_S = 5.0
_ENOUGH_BYTES = 576 * 1024  # to be handed over before a data set is complete; a slice of 512 x 512 is less

SUCCESS = 0x0000


@dataclass(frozen=True, slots=True)
class Task:
    """Something else that is done with the database, by whoever commits."""

    run: Callable[[Engine], None]


class Storage:
    """The threads, and what the loop hands to them. Its methods return at once.

    Parameters
    ----------
    sources : Sources
        As `db.instances.store_instances` takes it.
    """

    def __init__(self, spool: Spool, engine: Engine, sources: Sources) -> None:
        self._spool = spool
        self._engine = engine
        self._hands = [Hand(number, self._commit_ready, self._tell_again_after) for number in range(HANDS)]
        self._ready: deque[Arrival | Task | Note] = deque()  # to be committed
        self._committing = Lock()  # whoever holds it has what follows
        self._rows = Rows(spool, engine, sources)

    def start(self) -> None:
        """Start the threads."""
        for hand in self._hands:
            hand.start()

    def stop(self, timeout_s: float) -> None:
        """Finish what was handed over, and end the threads."""
        until = time.monotonic() + timeout_s
        for hand in self._hands:
            hand.end()
        for hand in self._hands:
            hand.join(until)
        if not self._is_alive():
            self._rows.disconnect()

    def tell_last(self) -> None:
        """Write what was told after `stop`: how associations ended that got their last answer only then."""
        if not self._is_alive():
            self._commit_ready(None)
            self._rows.disconnect()

    def _is_alive(self) -> bool:
        return any(hand.is_alive for hand in self._hands)

    def write(self, arrival: Arrival, data: memoryview | bytes) -> None:
        """Append to the data set."""
        arrival.hold(data)
        if arrival.pending_bytes >= _ENOUGH_BYTES:
            self._hand_of(arrival).do(partial(self._write, arrival, arrival.take_pending()))

    def finish(self, arrival: Arrival) -> None:
        """Store what arrived; `arrival.answer` is called once that is settled."""
        self._hand_of(arrival).do(partial(self._finish, arrival, arrival.take_pending()))

    def abandon(self, arrival: Arrival) -> None:
        """Forget a data set whose rest will not come."""
        self._hand_of(arrival).do(partial(self._abandon, arrival))

    def do(self, run: Callable[[Engine], None]) -> None:
        """Have something done with the database, after what has been answered before."""
        self._commit_soon(Task(run))

    def tell(self, note: Note) -> None:
        """Write something to the database, later if it is away."""
        self._commit_soon(note)

    def _hand_of(self, arrival: Arrival) -> Hand:
        """Choose who has least to do for an instance that has just begun; one that is idle, if there is one."""
        if arrival.hand is None:
            arrival.hand = self._least_burdened()
            arrival.hand.count(1)
        return arrival.hand

    def _least_burdened(self) -> Hand:
        return min(self._hands, key=attrgetter("burden"))

    def _commit_soon(self, item: Task | Note) -> None:
        self._ready.append(item)
        hand = self._least_burdened()
        hand.do(partial(self._commit_ready, hand))

    # Writing: each instance by one thread

    def _write(self, arrival: Arrival, pieces: list[memoryview | bytes]) -> None:
        if pieces and arrival.error is None:
            try:
                arrival.append(pieces, self._spool)
            except Exception as error:  # noqa: BLE001 - whatever it was: what lacks a piece is never stored
                arrival.error = _problem(error)
                arrival.note_series(b"".join(pieces))
        arrival.written += sum(map(len, pieces))
        if (on_room := arrival.on_room) is not None and not arrival.is_ahead:
            arrival.on_room = None
            on_room()

    def _finish(self, arrival: Arrival, pieces: list[memoryview | bytes]) -> None:
        self._write(arrival, pieces)
        if arrival.error is None:
            try:
                arrival.identify()
                arrival.keep(self._spool)
            except Exception as error:  # noqa: BLE001 - whatever it was, the peer is owed an answer
                arrival.error = _problem(error)
        if arrival.error is not None:
            arrival.discard()
        self._ready.append(arrival)
        self._commit_ready(arrival.hand)

    def _abandon(self, arrival: Arrival) -> None:
        self._leave(arrival)
        arrival.discard()

    @staticmethod
    def _leave(arrival: Arrival) -> None:
        if arrival.hand is not None:
            arrival.hand.count(-1)

    # Committing: by one thread at a time, for all

    def _commit_ready(self, hand: Hand | None) -> None:
        """Commit what is ready. Who finds another thread at it may go: that one looks again before it leaves."""
        is_told = True
        while (self._ready or (self._rows.has_untold and is_told)) and self._committing.acquire(blocking=False):
            try:
                with hand.committing() if hand else nullcontext(), self._rows.turn:
                    is_told = self._commit_some(self._take_some())
            finally:
                self._committing.release()

    def _take_some(self) -> list[Arrival | Task | Note]:
        return [self._ready.popleft() for _ in range(min(len(self._ready), MOST_AT_ONCE))]

    def _commit_some(self, items: list[Arrival | Task | Note]) -> bool:
        """Commit and answer; whether there is nothing left to be told to the database."""
        arrivals = [item for item in items if isinstance(item, Arrival)]
        try:
            self._rows.settle(arrivals)
        except Exception:  # whatever it was, the peers get an answer and the thread lives on
            logger.exception("%d instances were not stored", len(arrivals))
            for arrival in arrivals:
                arrival.error = arrival.error or StoreError("processing failure")
        for arrival in arrivals:
            self._leave(arrival)
            _answer(arrival)
        for task in (item for item in items if isinstance(item, Task)):
            task.run(self._engine)
        self._rows.tell([item for item in items if callable(item)])
        return not self._rows.has_untold

    def _tell_again_after(self) -> float | None:
        return _TELL_AGAIN_S if self._rows.has_untold else None


def _problem(error: Exception) -> StoreError:
    """What a peer is told of an error on the way to the disk."""
    if isinstance(error, StoreError):
        return error.with_traceback(None)  # whose frames hold the data set, in a circle that is seldom collected
    if isinstance(error, OSError):
        return OutOfResources(f"the spool cannot be written: {error.strerror}")
    logger.error("an instance cannot be read", exc_info=error)
    return StoreError("processing failure")


def _answer(arrival: Arrival) -> None:
    if arrival.error is None:
        arrival.answer(SUCCESS, "")
    else:
        arrival.answer(arrival.error.status, str(arrival.error))
