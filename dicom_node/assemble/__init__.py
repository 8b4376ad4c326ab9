"""Assembly: closes a series once it is complete, finds its volume or says why there is none, and has it routed.

DICOM sends no "that was the last one". A series counts as complete when the announced number of instances is there, or
when nothing came for a while (`assemble.quiet_s`). An instance that comes later reopens it; it is then closed again, as
a new revision with jobs of its own.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from threading import Event as StopEvent
from threading import Thread
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError

from dicom_node.assemble.asking import Asker, Count
from dicom_node.catalog import Catalog
from dicom_node.db.announcements import compare_announcements
from dicom_node.db.audit import record
from dicom_node.db.engine import reading, transaction, utc_now
from dicom_node.db.instances import paths_known
from dicom_node.db.jobs import JobQueue
from dicom_node.db.origin import came_again, take_again
from dicom_node.db.routing import supersede_jobs
from dicom_node.db.series import (
    OUR_RESULT,
    ClosedSeries,
    close_series,
    due_series,
    holds_our_results,
    postpone_series,
    read_closed,
    wait_anew,
    write_no_job_reason,
    write_verdict,
)
from dicom_node.db.studies import due_waits, lock_study_of, wait_for_series_anew
from dicom_node.db.unstored import find_unstored
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.header import texts
from dicom_node.domain.rule import Values
from dicom_node.domain.study import Verdict
from dicom_node.examination import examine_closed, examine_stored
from dicom_node.loop import HostClock, run_every
from dicom_node.route import StudyDesk, decide_overdue, read_attributes, route_again, route_series
from dicom_node.rulebook import SETTLED_S, Rulebook
from dicom_node.settings import Settings
from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

OUR_MANUFACTURER = "dicom-node"  # as results/header.py writes it
_TRY_AGAIN_S = 60.0
MOST_SKEW = timedelta(seconds=5)  # between machines whose clocks are kept right; what is more was set
_CLEAN_EVERY_S = 3600.0
_ORPHANED_AFTER_S = 24 * 3600.0
_PATHS_AT_ONCE = 1000


class Assembler:
    """Closes series that are due, one transaction each; their files are read before it.

    `counts` are those who may be asked how many instances a series has, by the name that sources have for them.
    `clock` tells when somebody sets the clock of the machine.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        engine: Engine,
        enqueuer: JobQueue,
        spool: Spool,
        *,
        rules_settle_s: float = SETTLED_S,
        counts: Mapping[str, Count] = MappingProxyType({}),
        clock: HostClock | None = None,
    ) -> None:
        self._settings = settings
        self._rulebook = Rulebook(settings, catalog, rules_settle_s)
        self._engine = engine
        self._enqueuer = enqueuer
        self._spool = spool
        self._sources = settings.assemble.waiting()
        self._askers = [
            Asker(name, count, sources, engine)
            for name, count in counts.items()
            if (sources := self._sources.asking(name))
        ]
        self._clock = clock or HostClock()
        self._not_before: dict[str, float] = {}  # what could not be closed -> monotonic time of the next try

    def run(self, stop: StopEvent) -> None:
        """Sweep until `stop`; beside that, delete files that no row has named for a day."""
        cleaning = Thread(target=run_every, args=(self.clean, _CLEAN_EVERY_S, stop), name="clean", daemon=True)
        cleaning.start()
        sweep_s = self._settings.assemble.sweep_s
        for asker in self._askers:  # each in a thread of its own: one that is silent holds up nobody else
            Thread(target=run_every, args=(asker.look, sweep_s, stop), name="ask", daemon=True).start()
        run_every(self.sweep, sweep_s, stop)
        cleaning.join(timeout=5)

    def sweep(self) -> int:
        """Close every series that is due, and decide on the studies that waited long enough for one.

        Returns
        -------
        int
            How many were closed.
        """
        self._follow_rules()
        self._look_at_clock()
        with transaction(self._engine) as tx:
            compare_announcements(tx, utc_now())
            due, again = due_series(tx, utc_now()), came_again(tx)
        for series_id in again:
            self._try(f"series {series_id}", self._ask_again, series_id)
        closed = sum(self._try(f"series {series_id}", self._close, series_id) for series_id in due)
        self._decide_overdue()
        return closed

    def _decide_overdue(self) -> None:
        with reading(self._engine) as tx:
            waits = due_waits(tx, utc_now())
        for wait in waits:
            self._try(f"the wait of study {wait.study_id} for rule {wait.rule}", self._decide, wait.study_id, wait.rule)

    def _decide(self, study_id: str, rule: str) -> bool:
        catalog = self._rulebook.catalog
        desk = StudyDesk(catalog.rules, catalog.models, self._enqueuer, self._settings.work.max_attempts)
        with transaction(self._engine) as tx:
            return decide_overdue(tx, study_id, rule, desk, utc_now())

    def _look_at_clock(self) -> None:
        """Let no series be closed too early, or much too late, because the host's clock was set."""
        jumped_s = self._clock.jumped_s()
        with transaction(self._engine) as tx:
            forward = jumped_s > MOST_SKEW.total_seconds()
            count = wait_anew(tx, utc_now(), most_skew=MOST_SKEW, all_of_them=forward)
            if abs(jumped_s) > MOST_SKEW.total_seconds():
                wait_for_series_anew(tx, utc_now())
        self._clock.accept()
        if count:
            logger.warning("the clock of this machine was set (%+.0f s): %d series wait anew", jumped_s, count)

    def ask(self) -> int:
        """Ask now whatever is to be asked about series that are not complete; how many questions that were."""
        return sum(asker.look() for asker in self._askers)

    def _follow_rules(self) -> None:
        change = self._rulebook.look()
        if change is not None:
            event = Event.RULES_REFUSED if change.problems else Event.RULES_CHANGED
            told = {name: list(value) for name, value in asdict(change).items() if value}
            with transaction(self._engine) as tx:
                record(tx, AuditEvent(event, detail=told))

    def clean(self) -> None:
        """Delete what dead receivers left in the spool: half-arrived data sets, and stored files without a row."""

        def known(paths: Sequence[str]) -> set[str]:
            some = [paths[start : start + _PATHS_AT_ONCE] for start in range(0, len(paths), _PATHS_AT_ONCE)]
            with reading(self._engine) as tx:
                return {path for few in some for path in paths_known(tx, few)}

        self._spool.sweep_incoming()
        self._spool.sweep_orphans(known, older_than_s=_ORPHANED_AFTER_S)

    def _try(self, what: str, act: Callable[..., bool], *args: str) -> bool:
        """Do what nothing else may be held up by; what fails is tried again later."""
        if time.monotonic() < self._not_before.get(what, 0.0):
            return False
        try:
            done = act(*args)
        except (OperationalError, InterfaceError):  # the database is away: nothing can be done
            raise
        except Exception:  # what nobody foresaw of one series must not hold up the others
            logger.exception("%s cannot be closed or routed; next try in %.0f s", what, _TRY_AGAIN_S)
            self._not_before[what] = time.monotonic() + _TRY_AGAIN_S
            return False
        self._not_before.pop(what, None)
        return done

    def _close(self, series_id: str) -> bool:
        try:
            return self._close_now(series_id)
        except _TooEarlyError as early:
            with transaction(self._engine) as tx:
                postpone_series(tx, series_id, early.until, early.reason)
            return False
        except _ChangedError:  # the next sweep looks at it as it is then
            return False

    def _close_now(self, series_id: str) -> bool:
        catalog = self._rulebook.catalog
        seen = self._look(series_id, catalog, lambda series: examine_stored(series.instances, self._spool.path))
        if seen is None:
            return False
        with transaction(self._engine) as tx:
            lock_study_of(tx, series_id)  # before the series, as everybody does who decides about a study
            series = close_series(tx, series_id, utc_now())
            if series is None:
                return False
            if not series.holds_as(seen.series):
                raise _ChangedError
            if seen.verdict is None:
                _keep_unprocessed(tx, series)
            else:
                verdict = _refuse_unstored(tx, series, self._refuse_lacking(series, seen.verdict))
                write_verdict(tx, series.id, verdict)
                _record_closing(tx, series, verdict)
                attempts = self._settings.work.max_attempts
                route_series(tx, series, verdict, seen.attributes, catalog, self._enqueuer, max_attempts=attempts)
        logger.info("series %s closed, revision %d: %s", series.id, series.revision, series.close_reason)
        return True

    def _look(self, series_id: str, catalog: Catalog, examine: Callable[[ClosedSeries], Verdict]) -> _Seen | None:
        """Read all that is read of the files of a series, before the transaction that decides about it.

        A transaction that writes keeps every receiver of a SQLite from answering, and a disk may be slow, or away.
        """
        with reading(self._engine) as tx:
            series = read_closed(tx, series_id)
            if series is None:
                return None
            if _is_ours(tx, series):
                return _Seen(series)
        verdict = examine(series)
        return _Seen(series, verdict, read_attributes(series, verdict, catalog.rules, self._spool))

    def _refuse_lacking(self, series: ClosedSeries, verdict: Verdict) -> Verdict:
        """Refuse a series that is not whole, unless its source wants that analysed, too."""
        if series.lacking is None:
            if verdict.lacks_slices and not series.expected_count:
                _wait_for_slices(series, verdict)
            return verdict
        verdict.facts["complete"] = False
        if self._sources[series.source].runs_incomplete:
            return verdict
        return replace(verdict, refusal=f"{series.lacking}.", parts=())

    def _ask_again(self, series_id: str) -> bool:
        """Ask the rules about a series that came again, called by another AE title than before."""
        catalog = self._rulebook.catalog
        seen = self._look(series_id, catalog, lambda series: examine_closed(series, self._spool.path))
        with transaction(self._engine) as tx:
            lock_study_of(tx, series_id)
            series = read_closed(tx, series_id)
            if seen is not None and series is not None and not series.is_as(seen.series):
                return False  # the next sweep looks at it as it is then
            origin = take_again(tx, series_id)
            if seen is None or series is None or origin is None or seen.verdict is None:
                return False
            series = replace(series, origin=origin)
            attempts = self._settings.work.max_attempts
            route_again(tx, series, seen.verdict, seen.attributes, catalog, self._enqueuer, max_attempts=attempts)
        logger.info("series %s came again: the rules were asked", series.id)
        return True


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the files of a series said; of a result of ours, which nobody examines, the verdict is None."""

    series: ClosedSeries
    verdict: Verdict | None = None
    attributes: Mapping[str, Values] = field(default_factory=dict)


class _ChangedError(Exception):
    """A series is not what it was when its files were read."""


class _TooEarlyError(Exception):
    """A series is not to be closed yet."""

    def __init__(self, until: datetime, reason: str) -> None:
        super().__init__(reason)
        self.until = until
        self.reason = reason


def _wait_for_slices(series: ClosedSeries, verdict: Verdict) -> None:
    """Let a series with a gap wait as if instances had been announced; told that there are no more, nobody waits."""
    if series.patient_until is not None and series.closed_at < series.patient_until and verdict.refusal:
        raise _TooEarlyError(series.patient_until, verdict.refusal)


def _is_ours(tx: Connection, series: ClosedSeries) -> bool:
    """Whether a series is a result of a node like this one, known by its equipment or by its UIDs."""
    by_equipment = any(
        OUR_MANUFACTURER in (name.casefold() for name in texts(instance.header, "Manufacturer"))
        for instance in series.instances
    )
    return by_equipment or holds_our_results(tx, series.id)


def _keep_unprocessed(tx: Connection, series: ClosedSeries) -> None:
    write_no_job_reason(tx, series.id, OUR_RESULT)
    detail = {"revision": series.revision, "instances": len(series.instances), "closed": series.close_reason}
    record(tx, AuditEvent(Event.OWN_RESULT_RETURNED, series_id=series.id, detail=detail))
    supersede_jobs(tx, series.id, series.revision, {}, series.closed_at)


def _refuse_unstored(tx: Connection, series: ClosedSeries, verdict: Verdict) -> Verdict:
    """Refuse a series of which instances were turned away and never came again, however well the rest fits together."""
    unstored = find_unstored(tx, series.series_instance_uid)
    if unstored is None:
        return verdict
    few = "1 instance was" if unstored.count == 1 else f"{unstored.count} instances were"
    cause = f"{few} refused when they came and were not sent again: {unstored.reason}"
    refusal = f"Not whole: {cause}." + (f" {verdict.refusal}" if verdict.refusal else "")
    return replace(verdict, refusal=refusal, parts=())


def _record_closing(tx: Connection, series: ClosedSeries, verdict: Verdict) -> None:
    closed: dict[str, Any] = {
        "revision": series.revision,
        "closed": series.close_reason,
        "instances": len(series.instances),
        "slices": verdict.facts["slices"],
        "slice_spacing_mm": verdict.facts.get("slice_spacing_mm"),
        "frame_of_reference": verdict.facts.get("frame_of_reference"),
    }
    if len(verdict.parts) > 1:
        closed["volumes"] = verdict.facts["volumes"]
    if series.source:
        closed["source"] = series.source
    if verdict.facts.get("single"):
        closed["single"] = True
    aside = Counter(reason for _, reason in verdict.set_aside)
    if aside:
        closed["set_aside"] = [f"{n} x {reason}" for reason, n in aside.items()]
    record(tx, AuditEvent(Event.SERIES_COMPLETE, series_id=series.id, detail=closed))
    if verdict.refusal and not verdict.parts:  # of several volumes a card may take one: its job is refused, or not
        refused = {"revision": series.revision, "reason": verdict.refusal}
        record(tx, AuditEvent(Event.SERIES_REFUSED, series_id=series.id, detail=refused))
