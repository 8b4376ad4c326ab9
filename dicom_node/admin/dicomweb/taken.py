"""What one STOW-RS request brings: each part on its way into the storage, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from fastapi import HTTPException
from pydicom import Dataset

from dicom_node.admin.dicomweb.multipart import PartBegun, PartEnded
from dicom_node.db.instances import Sender
from dicom_node.domain.uids import is_uid
from dicom_node.errors import CannotUnderstand, OutOfResources, StoreError
from dicom_node.settings import Web
from dicom_node.store.arrival import Arrival
from dicom_node.store.part10 import announced, head_length
from dicom_node.store.storage import SUCCESS, Storage

MOST_UNDER_WAY = 64
_KINDS = ("application/dicom", "")  # a part that says nothing is what the request says
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Outcome:
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    status: int
    comment: str


class Taken:
    """The instances of one request. Its methods belong to the loop that the request is served in.

    Parameters
    ----------
    study : str
        The only study that the request is for; empty for any.
    limits : Web
        Of which the number of instances and the size of each are held to.
    """

    def __init__(self, storage: Storage, sender: Sender, study: str, limits: Web) -> None:
        self._storage = storage
        self._sender = sender
        self._study = study
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(MOST_UNDER_WAY)
        self._outcomes: list[_Outcome] = []
        self._begun = 0
        self._size = 0  # of the part that is coming in
        self._head = bytearray()
        self._arrival: Arrival | None = None

    @property
    def stored(self) -> int:
        """How many are stored."""
        return sum(one.status == SUCCESS for one in self._outcomes)

    @property
    def refused(self) -> int:
        """How many were refused."""
        return len(self._outcomes) - self.stored

    @property
    def studies(self) -> list[str]:
        """The studies of what is stored."""
        return sorted({one.study_instance_uid for one in self._outcomes if one.status == SUCCESS})

    @property
    def reasons(self) -> list[str]:
        """Why some were refused, each reason once."""
        return sorted({one.comment for one in self._outcomes if one.status != SUCCESS})

    @property
    def may_pass(self) -> bool:
        """Whether everything that was refused was so for want of room or of the database."""
        failed = [one.status for one in self._outcomes if one.status != SUCCESS]
        return bool(failed) and all(status == OutOfResources.status for status in failed)

    async def take(self, found: PartBegun | PartEnded | bytes) -> None:
        """Take what the body holds next.

        Raises
        ------
        HTTPException
            413 or 415 when it is more, or something else, than is taken.
        """
        if isinstance(found, PartBegun):
            self._begin(found)
        elif isinstance(found, PartEnded):
            await self._end()
        else:
            await self._write(found)

    def abandon(self) -> None:
        """Forget a part whose rest will not come."""
        if self._arrival is not None:
            self._storage.abandon(self._arrival)
            self._arrival = None

    async def settle(self) -> None:
        """Wait until it is known of every part what became of it."""
        for _ in range(MOST_UNDER_WAY):
            await self._room.acquire()

    def response(self, root: str) -> Dataset:
        """Say what became of each instance (PS3.18 table 10.5.3-1, annex I).

        Parameters
        ----------
        root : str
            URL of the service.
        """
        ds = Dataset()
        stored = [one for one in self._outcomes if one.status == SUCCESS]
        failed = [one for one in self._outcomes if one.status != SUCCESS]
        named = [one for one in failed if is_uid(one.sop_class_uid) and is_uid(one.sop_instance_uid)]
        if len(self.studies) == 1:
            ds.RetrieveURL = f"{root}/studies/{self.studies[0]}"
        if named:
            ds.FailedSOPSequence = [_reference(one) for one in named]
        if stored:
            ds.ReferencedSOPSequence = [_reference(one, root) for one in stored]
        if len(named) < len(failed):
            ds.OtherFailuresSequence = [_reason(one.status) for one in failed if one not in named]
        return ds

    def _begin(self, part: PartBegun) -> None:
        if part.media_type not in _KINDS:
            raise HTTPException(415, "Every part has to be application/dicom.")
        self._begun += 1
        if self._begun > self._limits.store_instances:
            raise HTTPException(413, f"A request may have {self._limits.store_instances} instances.")
        self._size = 0
        self._head.clear()
        self._arrival = None

    async def _write(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limits.store_instance_mib * _MIB:
            raise HTTPException(413, f"An instance may have {self._limits.store_instance_mib} MiB.")
        if self._arrival is None:
            self._head += data
            data = self._identify()
        if self._arrival is not None and data:
            self._storage.write(self._arrival, data)
            await self._hold_back(self._arrival)

    def _identify(self) -> bytes:
        """Make an arrival once the head of the file is there; what came after the head."""
        try:
            length = head_length(self._head)
            if length is None or len(self._head) < length:
                return b""
            self._arrive(*announced(bytes(self._head[:length])))
            return bytes(self._head[length:])
        except StoreError as error:
            self._arrive().error = error
            return b""

    def _arrive(self, sop_class_uid: str = "", sop_instance_uid: str = "", transfer_syntax_uid: str = "") -> Arrival:
        uids = sop_class_uid, sop_instance_uid, transfer_syntax_uid
        arrival = Arrival(self._sender, *uids, _nobody, study_instance_uid=self._study)
        arrival.answer = partial(self._answer, arrival)
        arrival.check_announced()
        self._arrival = arrival
        return arrival

    async def _end(self) -> None:
        arrival = self._arrival
        if arrival is None:
            arrival = self._arrive()
            arrival.error = CannotUnderstand("this is no DICOM file: it ends before its data set begins")
        await self._room.acquire()
        self._arrival = None
        self._storage.finish(arrival)

    async def _hold_back(self, arrival: Arrival) -> None:
        """Take no more while the disk is far behind. Looked at twice: it may have caught up in between."""
        if arrival.is_ahead:
            caught_up = asyncio.Event()
            arrival.on_room = partial(self._post, caught_up.set)
            if arrival.is_ahead:
                await caught_up.wait()
            arrival.on_room = None

    def _answer(self, arrival: Arrival, status: int, comment: str) -> None:
        """Hand what the storing threads say over to the loop."""
        instance = arrival.instance
        place = (instance.study_instance_uid, instance.series_instance_uid) if instance else ("", "")
        outcome = _Outcome(arrival.sop_class_uid, arrival.sop_instance_uid, *place, status, comment)
        self._post(partial(self._settled, outcome))

    def _settled(self, outcome: _Outcome) -> None:
        self._outcomes.append(outcome)
        self._room.release()

    def _post(self, step: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(step)


def _nobody(status: int, comment: str) -> None:
    """Stand in until the arrival exists that the answer is about."""


def _reference(one: _Outcome, root: str = "") -> Dataset:
    item = _reason(one.status) if one.status != SUCCESS else Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    if root:
        of = f"{root}/studies/{one.study_instance_uid}/series/{one.series_instance_uid}"
        item.RetrieveURL = f"{of}/instances/{one.sop_instance_uid}"
    return item


def _reason(status: int) -> Dataset:
    item = Dataset()
    item.FailureReason = status
    return item
