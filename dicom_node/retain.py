"""Retention: frees the spool of what nothing needs any more, by age, and earlier when the disk gets full.

What may go at all is said in db/retention.py; here is when. Rows go first, then their files, so it can be killed
anywhere and goes on; two at once do no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import chain

from sqlalchemy import Engine

from dicom_node.db import retention as db
from dicom_node.db.announcements import forget_announcements
from dicom_node.db.engine import reading, transaction, utc_now
from dicom_node.db.retention import Amount, Kind
from dicom_node.db.retrievals import forget_batches
from dicom_node.db.sweeps import held, note_end
from dicom_node.db.unstored import forget_unstored
from dicom_node.engine import Enqueuer
from dicom_node.settings import Retain
from dicom_node.spool import Spool

SWEEP = "retain"
AT_ONCE = 100
ENGINE_AT_ONCE = 1000
LEASE_S = 600.0
ORPHANED_AFTER_S = 24 * 3600.0
UNSTORED_FOR = timedelta(days=31)  # how long a refused instance is missed
_MIB = 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is due by age at this moment, and whether the disk asks for more."""

    images: dict[Kind, Amount]
    results: Amount
    rows: int
    engine_rows: int
    free_bytes: int
    wanted_bytes: int

    @property
    def is_short(self) -> bool:
        """Whether there is less free space than there should be."""
        return self.free_bytes < self.wanted_bytes


@dataclass(slots=True)
class Done:
    """What one sweep did."""

    series: int = 0
    files: int = 0
    results: int = 0
    orphans: int = 0
    retrievals: int = 0
    rows: int = 0
    engine_rows: int = 0
    for_disk: int = 0


class Retention:
    """Deletes what is due.

    Parameters
    ----------
    holder : str
        Who this process is, for the lease.
    """

    def __init__(self, settings: Retain, engine: Engine, enqueuer: Enqueuer, spool: Spool, holder: str) -> None:
        self._settings = settings
        self._engine = engine
        self._enqueuer = enqueuer
        self._spool = spool
        self._holder = holder

    def plan(self) -> Plan:
        """Tell what a sweep would delete by age; nothing is changed."""
        days = self._days()
        with reading(self._engine) as tx:
            images = {kind: db.count_images(tx, kind, before) for kind, before in days.items() if before}
            before = _ago(self._settings.results_days)
            results = db.count_results(tx, before) if before else Amount(0, 0, 0, None)
            rows_before = _ago(self._settings.rows_days)
            rows = db.count_rows(tx, rows_before) if rows_before else 0
        ended = _ago(self._settings.engine_days)
        engine_rows = self._enqueuer.count_ended(ended) if ended else 0
        return Plan(images, results, rows, engine_rows, self._spool.free_bytes(), self._settings.free_mib * _MIB)

    def sweep(self) -> Done | None:
        """Delete what is due, then for the disk, then what is left over. None: another process is at it."""
        with held(self._engine, SWEEP, self._holder, LEASE_S) as position:
            if position is None:
                return None
            done = Done()
            self._by_age(done)
            self._for_disk(done)
            self._rows(done)
            with transaction(self._engine) as tx:
                forget_unstored(tx, utc_now() - UNSTORED_FOR)
                forget_announcements(tx, utc_now() - UNSTORED_FOR)
                if before := _ago(self._settings.retrievals_days):
                    done.retrievals = forget_batches(tx, before)
            done.orphans = self._spool.sweep_results(self._wanted, ORPHANED_AFTER_S)
            self._spool.delete_empty_hours()
            with transaction(self._engine) as tx:
                note_end(tx, SWEEP, asdict(done))
        if any(asdict(done).values()):
            _log.info("retention: %s", ", ".join(f"{name} {n}" for name, n in asdict(done).items() if n))
        return done

    def watch_disk(self) -> None:
        """Look at the disk alone, more often than at everything."""
        if self._spool.free_bytes() < self._settings.free_mib * _MIB:
            with held(self._engine, SWEEP, self._holder, LEASE_S) as position:
                if position is not None:
                    self._for_disk(Done())

    def _by_age(self, done: Done) -> None:
        for kind, before in self._days().items():
            if before is not None:
                for _ in self._images(kind, before, "and their time is over", done):
                    pass
        before = _ago(self._settings.results_days)
        if before is not None:
            for _ in self._results(before, "delivered, and their time is over", done):
                pass

    def _for_disk(self, done: Done) -> None:
        """Delete the oldest until there is room again: images first, of those the least missed first."""
        images = (self._images(kind, None, "and the disk was short", done) for kind in Kind)
        for deleting in chain(images, [self._results(None, "delivered, and the disk was short", done)]):
            while self._is_short() and next(deleting, False) is None:
                done.for_disk += 1
        if self._is_short():
            free = self._spool.free_bytes() // _MIB
            _log.warning(
                "%d MiB are free, fewer than retain.free_mib = %d, and there is nothing left that may be deleted: "
                "make room, or see what is not delivered",
                free,
                self._settings.free_mib,
            )

    def _is_short(self) -> bool:
        return self._spool.free_bytes() < self._settings.free_mib * _MIB

    def _images(self, kind: Kind, before: datetime | None, reason: str, done: Done) -> Iterator[None]:
        """Delete series after series; yields after each."""
        seen: set[str] = set()
        while True:
            with reading(self._engine) as tx:
                due = [one for one in db.due_images(tx, kind, before, AT_ONCE) if one not in seen]
            if not due:
                return
            for series_id in due:
                seen.add(series_id)
                with transaction(self._engine) as tx:
                    paths = db.delete_images(tx, series_id, kind, before, reason)
                for path in paths:
                    self._spool.delete(path)
                done.series += bool(paths)
                done.files += len(paths)
                yield

    def _results(self, before: datetime | None, reason: str, done: Done) -> Iterator[None]:
        seen: set[str] = set()
        while True:
            with reading(self._engine) as tx:
                due = [one for one in db.due_results(tx, before, AT_ONCE) if one not in seen]
            if not due:
                return
            for job_id in due:
                seen.add(job_id)
                with transaction(self._engine) as tx:
                    may_go = db.delete_results(tx, job_id, before, reason)
                if may_go:
                    self._spool.delete_folder(f"results/{job_id}")
                done.results += may_go
                yield

    def _rows(self, done: Done) -> None:
        before = _ago(self._settings.rows_days)
        while before is not None:
            with transaction(self._engine) as tx:
                due = db.due_rows(tx, before, AT_ONCE)
                done.rows += sum(db.delete_rows(tx, series_id, before) for series_id in due)
            if len(due) < AT_ONCE:
                break
        ended = _ago(self._settings.engine_days)
        while ended is not None:
            forgotten = self._enqueuer.forget(ended, ENGINE_AT_ONCE)
            done.engine_rows += forgotten
            if forgotten < ENGINE_AT_ONCE:
                break

    def _wanted(self, job_ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(job_ids), AT_ONCE):
            with reading(self._engine) as tx:
                found |= db.jobs_with_results(tx, job_ids[start : start + AT_ONCE])
        return found

    def _days(self) -> dict[Kind, datetime | None]:
        return {
            Kind.UNMATCHED: _ago(self._settings.unmatched_days),
            Kind.DELIVERED: _ago(self._settings.images_days),
            Kind.FAILED: _ago(self._settings.failed_days),
        }


def _ago(days: float) -> datetime | None:
    return utc_now() - timedelta(days=days) if days else None
