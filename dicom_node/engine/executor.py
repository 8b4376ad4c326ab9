"""One process that runs jobs or deliveries."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from threading import Event, Lock, Timer
from typing import NoReturn
from uuid import uuid4

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
from sqlalchemy import Connection, Engine

from dicom_node import __version__
from dicom_node.db.engine import commit, reading
from dicom_node.db.nodes import register_node, stop_node, this_host
from dicom_node.db.pauses import paused
from dicom_node.db.reconcile import give_back, unfinished
from dicom_node.engine.enqueuer import APPLICATION, VERSION, Enqueuer, log_through_ours, row_of, runs
from dicom_node.engine.liveness import Liveness, every, slot_held
from dicom_node.settings import Settings

DRAIN_S = 10.0  # how long a stopping process waits for what it is doing before it gives it back
SETTLE_S = 20.0  # and how long it then waits for the callbacks to return
LEAVE_S = DRAIN_S + SETTLE_S + 15.0  # and after that it leaves: whoever hangs keeps its slot from the next process
LEFT = 70  # exit status of a process that leaves its work to others: declared dead, or unable to stop
LIVE = ("ENQUEUED", "DELAYED", "PENDING")

logger = logging.getLogger(__name__)


class Executor:
    """One process that runs jobs or deliveries, keeps saying that it lives, and buries those that do not.

    Parameters
    ----------
    role, slot : str, int
        Which of the processes of this machine it is. One process at a time holds a slot; one that starts in a slot
        takes up at once what the process before it left.
    queues : mapping of str to int
        The queues to serve, and how many runs of each at a time.
    on_job, on_report, on_delivery : callable, optional
        Called with (id, executor id) in a thread of the engine. They claim, and do nothing when they cannot. They
        must not raise for a database that is away: see `db.engine.commit`.
    before_exit : callable, optional
        Called when the process was declared dead, just before it exits: kill what must not live on.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        role: str,
        slot: int,
        queues: Mapping[str, int],
        on_job: Callable[[str, str], None] | None = None,
        on_report: Callable[[str, str], None] | None = None,
        on_delivery: Callable[[str, str], None] | None = None,
        before_exit: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._enqueuer = Enqueuer(engine)
        self._role, self._slot = role, str(slot)
        self._host = this_host()
        self._queues = dict(queues)
        self._offered: dict[str, int] = {}
        self._callbacks = {"job": on_job, "report": on_report, "delivery": on_delivery}
        self._before_exit = before_exit
        self._running: set[str] = set()
        self._idle: set[str] = set()
        self._counting = Lock()
        self.executor_id = f"{self._host}/{role}-{slot}/{uuid4().hex[:12]}"
        self._ended = Event()
        self._liveness = Liveness(engine, self.executor_id, settings.engine.dead_after_s, self._heed_death)

    def run(self, stop: Event) -> None:
        """Serve the queues until `stop`; then finish or give back what is running. Once for each executor.

        Raises
        ------
        ConfigurationError
            If another process holds the slot.
        """
        engine = self._settings.engine
        lock = self._settings.spool.path / "locks" / f"{self._host}-{self._role}-{self._slot}.lock"
        leaving = Timer(LEAVE_S, self._exit, [f"it did not come to an end within {LEAVE_S:.0f} s"])
        leaving.daemon = True
        with slot_held(lock):
            commit(self._engine, self._register)  # first: no process may claim anything that no reaper knows
            try:
                every(self._liveness.beat, engine.beat_s, self._ended)
                self._launch()
                others = [every(self._reap, engine.beat_s, stop), every(self._reconcile, engine.dead_after_s, stop)]
                others.append(every(self._heed_pauses, engine.beat_s, stop))
                stop.wait()
                leaving.start()
                for thread in others:
                    thread.join(timeout=5)
                self._drain()
                self._ended.set()  # first: a heartbeat after the goodbye finds that we are no longer among the living
                commit(self._engine, lambda tx: stop_node(tx, self.executor_id))
            finally:
                self._ended.set()
                DBOS.destroy(destroy_registry=True)
                self._enqueuer.close()
                leaving.cancel()

    def _register(self, tx: Connection) -> None:
        register_node(
            tx,
            self.executor_id,
            host=self._host,
            role=self._role,
            slot=self._slot,
            pid=os.getpid(),
            version=__version__,
        )

    def _launch(self) -> None:
        log_through_ours()
        self._heed_pauses()
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._settings.database.url,
            "sys_db_pool_size": 5,
            "application_version": VERSION,
            "executor_id": self.executor_id,
            "serializer": DBOSPortableJSONSerializer(),
            "run_migrations": False,
            "max_executor_threads": sum(self._queues.values()) + 4,
            "log_level": "WARNING",
        }
        DBOS(config=config)
        # how often a run may be started is for claim_job and claim_delivery to say, by the attempts in our rows
        workflow = partial(DBOS.workflow, max_recovery_attempts=100)

        @workflow(name="job")
        def job(job_id: str) -> None:
            self._call("job", job_id)

        @workflow(name="report")
        def report(job_id: str) -> None:
            self._call("report", job_id)

        @workflow(name="delivery")
        def delivery(delivery_id: str) -> None:
            self._call("delivery", delivery_id)

        DBOS.listen_queues(list(self._queues))
        DBOS.launch()

    def _heed_pauses(self) -> None:
        """Tell the engine to hand out nothing of a queue that a person has paused; it looks before each poll."""
        with reading(self._engine) as tx:
            held = paused(tx)
        for name, concurrency in self._queues.items():
            offered = 0 if name in held else concurrency
            if self._offered.get(name) != offered:
                self._enqueuer.register_queue(name, offered, self._settings.engine.poll_s)
                self._offered[name] = offered

    def _call(self, kind: str, row_id: str) -> None:
        callback, run = self._callbacks[kind], DBOS.workflow_id or ""
        if callback is None:
            raise RuntimeError(f"this process does not serve {kind} runs")
        with self._counting:
            self._running.add(run)
        try:
            callback(row_id, self.executor_id)
        except Exception:  # the engine notes that the run ended; reconciling gives the row back
            logger.exception("%s %s: the run ended with an error", kind, row_id)
            raise
        finally:
            with self._counting:
                self._running.discard(run)

    def _reap(self) -> None:
        """Give the runs of all who are not alive back to their queues; on each pass, not only when one dies."""
        gone = self._liveness.gone(lambda: {holder for _, holder in runs(self._engine, "PENDING") if holder})
        if gone:
            DBOS._recover_pending_workflows(sorted(gone))

    def _reconcile(self) -> None:
        """Enqueue anew what is unfinished and unknown to the engine. Read in this order, or what is new looks lost."""
        with reading(self._engine) as tx:
            candidates = unfinished(tx)
        if not candidates:
            return
        dropped = self._dropped()
        known = {row_of(run) for run, _ in runs(self._engine, *LIVE) if run not in dropped}
        for one in candidates:
            if (one.kind, one.id) not in known:
                with self._engine.begin() as tx:
                    if give_back(tx, one, self._enqueuer):
                        logger.warning("%s %s was %s with nobody to run it: enqueued", one.kind, one.id, one.state)

    def _dropped(self) -> set[str]:
        """Find the runs that the engine claimed for this process and never started: idle now and a pass ago."""
        before = self._idle
        claimed = {run for run, holder in runs(self._engine, "PENDING") if holder == self.executor_id}
        with self._counting:
            self._idle = claimed - self._running
        return before & self._idle

    def _drain(self) -> None:
        """Claim nothing more and wait for the callbacks; whoever does not return in time is left to the others."""
        wait_s = DRAIN_S + SETTLE_S if self._running else 0.0
        DBOS.destroy(workflow_completion_timeout_sec=int(wait_s))
        if self._running:
            self._exit(f"{len(self._running)} runs did not end in {wait_s:.0f} s and are left to another process")

    def _heed_death(self) -> None:
        if not self._ended.is_set():
            self._exit("it was declared dead")

    def _exit(self, why: str) -> NoReturn:
        """Leave at once, writing nothing more: what we were doing is for somebody else to take up."""
        logger.error("%s stops at once: %s", self.executor_id, why)
        try:
            if self._before_exit is not None:
                self._before_exit()
        finally:
            logging.shutdown()
            os._exit(LEFT)
