"""Files on their way into the storage, and what became of each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import IO

from sqlalchemy import Engine

from dicom_node.db.engine import reading
from dicom_node.db.instances import Sender, Stored, find_stored, note_unread
from dicom_node.errors import CannotUnderstand, OutOfResources, StoreError
from dicom_node.intake.found import Found, opened
from dicom_node.intake.instance import PIECE, Announced, NoDicom, Section, Truncated, digest_whole, read_head
from dicom_node.store.arrival import Arrival, instance_of
from dicom_node.store.storage import SUCCESS, Storage

MOST_UNDER_WAY = 64


class Became(StrEnum):
    """What became of a file."""

    TAKEN = "taken"
    THERE = "already there"
    REFUSED = "refused"
    PASSED_OVER = "passed over"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file, and why. `status` is that of C-STORE; `may_pass`: it may be taken another time."""

    found: Found
    became: Became
    reason: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    may_pass: bool = False
    status: int = SUCCESS
    is_truncated: bool = False


class Batch:
    """Takes files, several under way at once.

    Parameters
    ----------
    storage : Storage or None
        Started; None to look only, and store nothing.
    tell : callable
        Called with the outcome of each file, from whichever thread knows it.
    once : bool
        Whether a series that is there already is told of only if the same has not been told before.
    """

    def __init__(
        self,
        storage: Storage | None,
        engine: Engine,
        sender: Sender,
        tell: Callable[[Outcome], None],
        *,
        once: bool = False,
    ) -> None:
        self._storage = storage
        self._engine = engine
        self._sender = sender
        self._tell = tell
        self._once = once
        self._room = threading.Semaphore(MOST_UNDER_WAY)
        self._again: set[str] = set()

    def take(self, found: Found) -> None:
        """Look at a file, and store it unless it is stored already."""
        if found.problem:
            self._tell(Outcome(found, Became.REFUSED, found.problem))
            return
        try:
            with opened(found) as stream:
                self._take(found, stream)
        except NoDicom as error:
            self._tell(Outcome(found, Became.PASSED_OVER, str(error)))
        except StoreError as error:
            cut = isinstance(error, Truncated)
            self._tell(
                Outcome(found, Became.REFUSED, str(error), may_pass=error.retry, status=error.status, is_truncated=cut)
            )
        except OSError as error:
            self._tell(Outcome(found, Became.REFUSED, f"it cannot be read: {error.strerror or error}", may_pass=True))

    def settle(self) -> None:
        """Wait until it is known of every file what became of it."""
        for _ in range(MOST_UNDER_WAY):
            self._room.acquire()
        self._room.release(MOST_UNDER_WAY)

    def _take(self, found: Found, stream: IO[bytes]) -> None:
        head = read_head(stream)
        with reading(self._engine) as tx:
            stored = find_stored(tx, head.sop_instance_uid)
        digest = digest_whole(stream, head, found.size, like=stored.digest if stored else "")
        if stored and (stored.digest, stored.transfer_syntax_uid) == (digest, head.transfer_syntax_uid):
            self._note_again(stored.series_id)
            self._tell(Outcome(found, Became.THERE, sop_instance_uid=head.sop_instance_uid))
            return
        arrival = Arrival(
            self._sender, head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid, lambda status, text: None
        )
        arrival.check_announced()
        if self._storage is None:
            self._look(found, arrival, stream, head, digest, differs=stored is not None)
        else:
            arrival.answer = partial(self._settled, found, arrival, digest)
            self._store(self._storage, arrival, stream, head)

    def _note_again(self, series_id: str) -> None:
        """Say once of a series that it came again: the rules of another title that it is called by now count, too."""
        if self._storage is not None and series_id not in self._again:
            self._again.add(series_id)
            self._storage.tell(partial(note_unread, sender=self._sender, series_id=series_id, once=self._once))

    def _look(
        self, found: Found, arrival: Arrival, stream: IO[bytes], head: Announced, digest: str, *, differs: bool
    ) -> None:
        """Say what would become of a file."""
        if arrival.error is not None:
            raise arrival.error
        data_set = _Looked(stream, head.start, found.size, digest)
        instance = instance_of(arrival, data_set)
        if differs:
            raise CannotUnderstand("this SOP Instance UID is stored with other bytes")
        self._tell(Outcome(found, Became.TAKEN, "", instance.sop_instance_uid, instance.study_instance_uid))

    def _store(self, storage: Storage, arrival: Arrival, stream: IO[bytes], head: Announced) -> None:
        self._room.acquire()
        caught_up = threading.Event()
        try:
            stream.seek(head.start)
            while piece := stream.read(PIECE):
                storage.write(arrival, piece)
                if arrival.is_ahead:  # looked at twice: the disk may have caught up in between
                    caught_up.clear()
                    arrival.on_room = caught_up.set
                    if arrival.is_ahead:
                        caught_up.wait()
                    arrival.on_room = None
        except BaseException:
            storage.abandon(arrival)
            self._room.release()
            raise
        storage.finish(arrival)

    def _settled(self, found: Found, arrival: Arrival, digest: str, status: int, comment: str) -> None:
        """Take the answer of the storing threads."""
        uid = arrival.sop_instance_uid
        if status != SUCCESS:
            may_pass = status == OutOfResources.status
            outcome = Outcome(found, Became.REFUSED, comment, uid, may_pass=may_pass, status=status)
        elif arrival.instance is None or arrival.instance.digest != digest:
            outcome = Outcome(found, Became.REFUSED, "it changed while it was read", uid, may_pass=True)
        else:
            became = Became.TAKEN if arrival.outcome is Stored.NEW else Became.THERE
            outcome = Outcome(found, became, "", uid, arrival.instance.study_instance_uid)
        try:
            self._tell(outcome)
        finally:
            self._room.release()


class _Looked(Section):
    """A data set that was read through already."""

    def __init__(self, stream: IO[bytes], start: int, size: int, digest: str) -> None:
        super().__init__(stream, start)
        self.size = size
        self.digest = digest
