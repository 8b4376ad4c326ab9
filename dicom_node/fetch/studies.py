"""One study from an archive: sent to a receiver of ours, or taken here on the road of a C-STORE."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from io import BytesIO
from uuid import uuid4

from sqlalchemy import Engine

from dicom_node import __version__
from dicom_node.db.engine import reading
from dicom_node.db.instances import RELEASED, Sender, end_association, find_stored, note_unread
from dicom_node.deliver import retrieve, wado
from dicom_node.deliver.web import service
from dicom_node.domain.delivery import Destination, DimseDestination, StowDestination
from dicom_node.domain.retrieval import Kind
from dicom_node.errors import DeliveryError, StoreError
from dicom_node.intake.instance import NoDicom, read_head
from dicom_node.store.arrival import Arrival
from dicom_node.store.storage import SUCCESS, Storage

WADO_AE = "WADO"
_ANSWER_S = 300.0


class Interrupted(Exception):
    """We are to stop; what is under way is asked for again later."""


def find_studies(source: Destination, kind: Kind, value: str) -> list[str]:
    """Ask an archive which studies an item means.

    Raises
    ------
    DeliveryError
        When it does not answer.
    """
    if isinstance(source, DimseDestination):
        return retrieve.find_studies(source, kind, value)
    assert isinstance(source, StowDestination)
    with service(source) as web:
        return wado.find_studies(web, source, kind, value)


class Fetch:
    """One way to get a study.

    Parameters
    ----------
    called_ae : str
        The title of ours that it comes to.
    keep_on : callable
        Whether to go on, asked all the time; the archive is told to stop when not.
    """

    def __init__(
        self,
        source: Destination,
        called_ae: str,
        storage: Storage,
        engine: Engine,
        allowed_s: float,
        keep_on: Callable[[], bool],
    ) -> None:
        self._source = source
        self._called_ae = called_ae
        self._storage = storage
        self._engine = engine
        self._allowed_s = allowed_s
        self._keep_on = keep_on
        self._stored = self._refused = 0
        self._reason = ""

    def study(self, how: str, study: str, now: datetime) -> int:
        """Get a study; how many instances came.

        Raises
        ------
        DeliveryError
            When not all of it came.
        Interrupted
            When we are to stop.
        """
        if how == "move":
            assert isinstance(self._source, DimseDestination)
            return retrieve.move(self._source, study, self._called_ae, self._allowed_s, self._keep_on).completed
        sender = self._sender(now)
        try:
            return self._get(sender, study) if how == "get" else self._wado(sender, study)
        finally:
            if self._stored:
                ended = partial(end_association, sender=sender, reason=RELEASED)
                self._storage.tell(partial(ended, stored=self._stored, refused=self._refused))

    def _get(self, sender: Sender, study: str) -> int:
        assert isinstance(self._source, DimseDestination)

        def take(one: retrieve.Arrived) -> int:
            uids = one.sop_class_uid, one.sop_instance_uid, one.transfer_syntax_uid
            return self._store(sender, *uids, one.data, study)

        try:
            return retrieve.get(self._source, study, take, self._allowed_s, self._keep_on).completed
        except DeliveryError as error:
            if self._reason:
                raise DeliveryError(f"{error}; the first that was refused here: {self._reason}", retry=True) from error
            raise

    def _wado(self, sender: Sender, study: str) -> int:
        assert isinstance(self._source, StowDestination)
        with service(self._source) as web:
            named = wado.list_instances(web, self._source, study)
            again: set[str] = set()
            for series, instance in named:
                if not self._keep_on():
                    raise Interrupted
                with reading(self._engine) as tx:
                    here = find_stored(tx, instance)
                if here is not None:
                    again.add(here.series_id)
                else:
                    self._take_file(sender, wado.retrieve(web, self._source, study, series, instance), study)
        for series_id in again:  # called by another title than before, it is asked about again
            self._storage.tell(partial(note_unread, sender=sender, series_id=series_id))
        if self._refused:
            told = f"{self._refused} of {len(named)} instances were refused here: {self._reason}"
            raise DeliveryError(told, retry=True)
        return len(named)

    def _take_file(self, sender: Sender, content: bytes, study: str) -> None:
        stream = BytesIO(content)
        try:
            head = read_head(stream)
        except (NoDicom, StoreError) as error:
            self._refused += 1
            self._reason = self._reason or str(error)
            return
        uids = head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid
        self._store(sender, *uids, content[head.start :], study)

    def _store(self, sender: Sender, sop_class: str, instance: str, syntax: str, data: bytes, study: str) -> int:
        """Store an instance and wait for it; its status."""
        settled: list[tuple[int, str]] = []
        done = threading.Event()

        def answer(status: int, comment: str) -> None:
            settled.append((status, comment))
            done.set()

        arrival = Arrival(sender, sop_class, instance, syntax, answer, study_instance_uid=study)
        arrival.check_announced()
        self._storage.write(arrival, data)
        self._storage.finish(arrival)
        done.wait(_ANSWER_S)
        status, comment = settled[0] if settled else (0xA700, "the storage does not answer")
        if status == SUCCESS:
            self._stored += 1
        else:
            self._refused += 1
            self._reason = self._reason or comment
        return status

    def _sender(self, now: datetime) -> Sender:
        source = self._source
        address = ""
        with suppress(AttributeError):
            address = str(source.host)[:64]  # type: ignore[attr-defined]
        return Sender(
            id=str(uuid4()),
            calling_ae=str(source.ae_title) if isinstance(source, DimseDestination) else WADO_AE,
            called_ae=self._called_ae,
            address=address,
            implementation=f"dicom-node {__version__} fetch",
            started_at=now,
        )
