"""Which item of which batch is due, and what it comes to.

One process at a time works on all batches, under a lease; an item that was under way when it died is asked for again,
which does no harm: what is here already is known by its bytes.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from functools import partial
from threading import Event as StopEvent
from typing import Any

from sqlalchemy import Engine, Row
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.catalog import destination
from dicom_node.db import retrievals
from dicom_node.db.engine import commit, is_away, reading, utc_now
from dicom_node.db.nodes import this_host
from dicom_node.db.sweeps import held
from dicom_node.domain.job import retry_delay_s
from dicom_node.domain.night import Hours
from dicom_node.domain.retrieval import ItemState, Kind
from dicom_node.errors import DeliveryError
from dicom_node.fetch.studies import Fetch, Interrupted, find_studies
from dicom_node.loop import run_every
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.store.storage import Storage

LOOK_S = 1.0
LEASE_S = 3600.0
FLUSH_S = 30.0
MOST_STUDIES = 20  # that one accession number may have
LONGEST_RETRY_S = 6 * 3600.0

_log = logging.getLogger(__name__)


class Fetcher:
    """Works on the batches of `dicom-node retrieve`, one item of each in turn."""

    def __init__(self, settings: Settings, engine: Engine, spool: Spool, slot: int) -> None:
        self._settings = settings
        self._engine = engine
        self._storage = Storage(spool, engine, settings.assemble.waiting())
        self._holder = f"{this_host()}/fetch-{slot}"
        self._next: dict[str, float] = {}  # batch -> monotonic time before which no item of it is begun
        self._stop = StopEvent()
        self._look_at = 0.0  # monotonic time of the next look at whether the batch under way was canceled
        self._is_canceled = False

    def run(self, stop: StopEvent) -> None:
        """Work until `stop`."""
        self._stop = stop
        self._storage.start()
        run_every(self._tolerant_step, LOOK_S, stop)
        self._storage.stop(FLUSH_S)
        self._storage.tell_last()

    def step(self) -> int:
        """Work on every batch that may go on, until no item is due; how many items were worked on."""
        worked = 0
        while not self._stop.is_set():
            with held(self._engine, "fetch", self._holder, LEASE_S) as position:
                if position is None:
                    return worked
                some = sum(self._one_of(batch) for batch in self._batches())
            worked += some
            if not some:
                return worked
        return worked

    def _tolerant_step(self) -> None:
        try:
            self.step()
        except Exception as error:
            if not is_away(error):
                raise
            _log.warning("the database is away: %s", type(error).__name__)

    def _batches(self) -> list[Row[Any]]:
        now, clock = datetime.now(), time.monotonic()
        with reading(self._engine) as tx:
            running = retrievals.running_batches(tx)
        in_time = [one for one in running if not one.hours or Hours.read(one.hours).hold(now)]
        return [one for one in in_time if self._next.get(one.id, 0.0) <= clock]

    def _one_of(self, batch: Row[Any]) -> bool:
        if self._stop.is_set():
            return False
        with reading(self._engine) as tx:
            item = retrievals.next_item(tx, batch.id, utc_now())
        if item is None:
            return False
        if batch.per_minute:
            self._next[batch.id] = time.monotonic() + 60.0 / batch.per_minute
        commit(self._engine, lambda tx: retrievals.note_attempt(tx, item))
        self._look_at, self._is_canceled = 0.0, False
        try:
            studies, instances = self._fetch(batch, item)
        except Interrupted:
            return False
        except DeliveryError as error:
            if not self._is_wanted(batch):
                return False  # it was told to stop, and did
            self._failed(batch, item, error)
            return True
        came = retrievals.Came(studies, instances)
        commit(self._engine, lambda tx: retrievals.end_item(tx, item, ItemState.DONE, came))
        _log.info("retrieval %s, item %d: %d instances", batch.id[:8], item.position, instances)
        return True

    def _fetch(self, batch: Row[Any], item: Row[Any]) -> tuple[int, int]:
        section = self._settings.destinations.get(batch.source)
        if section is None:
            raise DeliveryError(f"there is no [destinations.{batch.source}] any more", retry=False)
        source = destination(batch.source, section, self._settings)
        kind = Kind(item.kind)
        studies = find_studies(source, kind, item.value)
        if not studies:
            raise DeliveryError(f"{batch.source} knows no study with this {kind}", retry=False)
        if len(studies) > MOST_STUDIES:
            raise DeliveryError(f"{batch.source} has {len(studies)} studies with this {kind}", retry=False)
        allowed_s = self._settings.retrieve.timeout_s
        instances = 0
        for study in studies:
            if not self._keep_on(batch):
                raise Interrupted
            wanted = partial(self._is_wanted, batch)
            fetch = Fetch(source, batch.called_ae, self._storage, self._engine, allowed_s, wanted)
            instances += fetch.study(batch.how, study, utc_now())
        return len(studies), instances

    def _keep_on(self, batch: Row[Any]) -> bool:
        if self._stop.is_set():
            return False
        with reading(self._engine) as tx:
            return retrievals.is_running(tx, batch.id)

    def _is_wanted(self, batch: Row[Any]) -> bool:
        """Whether what is under way is to be finished: a batch that is held finishes it, one that is canceled not."""
        if self._stop.is_set():
            return False
        clock = time.monotonic()
        if clock >= self._look_at:
            self._look_at = clock + LOOK_S
            try:
                with reading(self._engine) as tx:
                    self._is_canceled = retrievals.is_canceled(tx, batch.id)
            except SQLAlchemyError as error:
                if not is_away(error):
                    raise
        return not self._is_canceled

    def _failed(self, batch: Row[Any], item: Row[Any], error: DeliveryError) -> None:
        settings, attempt, reason = self._settings.retrieve, item.attempt + 1, str(error)
        _log.warning("retrieval %s, item %d: %s", batch.id[:8], item.position, reason)
        if error.retry and attempt < settings.max_attempts:
            wait_s = retry_delay_s(attempt, first_s=settings.retry_s, longest_s=LONGEST_RETRY_S)
            until = utc_now() + timedelta(seconds=wait_s)
            commit(self._engine, lambda tx: retrievals.put_off(tx, item, until, reason))
            return
        came = retrievals.Came(reason=reason)
        commit(self._engine, lambda tx: retrievals.end_item(tx, item, ItemState.FAILED, came))
