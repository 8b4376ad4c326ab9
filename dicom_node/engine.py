"""The job engine's port: enqueue in our transaction, run what is due, take up what a dead process left.

The only module that imports dbos. The domain tables are the truth and DBOS only dispatches: a workflow here has no
steps, calls one callback, and may run twice without harm, because the callback claims its job or delivery by
compare-and-set. What DBOS leaves to its proprietary part, finding dead processes, is done here with our `node` table.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, NoReturn
from uuid import uuid4

from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, EnqueueOptions
from sqlalchemy import Connection, Engine, column, select, table

from dicom_node import __version__
from dicom_node.db.engine import commit, is_away
from dicom_node.db.nodes import alive_nodes, beat, reap_nodes, register_node, stop_node
from dicom_node.db.reconcile import Unfinished, give_back, unfinished
from dicom_node.errors import ConfigurationError
from dicom_node.loop import run_every
from dicom_node.settings import Settings

JOBS = "jobs"
DRAIN_S = 10.0  # how long a stopping process waits for what it is doing before it gives it back
SETTLE_S = 20.0  # and how long it then waits for the callbacks to return
LEFT = 70  # exit status of a process that leaves its work to others: declared dead, or unable to stop
APPLICATION = "dicom-node"
VERSION = "1"  # pinned: with DBOS's default, a hash of the source, no upgraded worker would match a queued job
LIVE = ("ENQUEUED", "DELAYED", "PENDING")
SLOT_WAIT_S = 10.0

logger = logging.getLogger(__name__)


def queue_of(destination: str) -> str:
    """Name the queue of one destination: one for each, so that a dead destination never holds up another."""
    return f"deliver/{destination}"


def migrate(url: str) -> None:
    """Create or upgrade the engine's own tables (in schema ``dbos`` on PostgreSQL); see db/migrate.py for ours."""
    _log_through_ours()
    DBOS.migrate(url)


class Enqueuer:
    """Enqueue jobs and deliveries in the caller's transaction: both commit, or neither."""

    def __init__(self, engine: Engine) -> None:
        _log_through_ours()
        self._client = DBOSClient(
            system_database_engine=engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            lazy=True,
        )

    def job(self, tx: Connection, job_id: str, attempt: int, *, priority: int = 10, delay_s: float = 0.0) -> None:
        """Enqueue an attempt at a job.

        Parameters
        ----------
        attempt : int
            Which attempt is meant to come; the same number twice is enqueued once.
        priority : int
            Lower runs first, from 1.
        delay_s : float
            Not before so many seconds from now, by this machine's clock.
        """
        self._enqueue(tx, "job", JOBS, f"job/{job_id}/{attempt}", job_id, priority=priority, delay_s=delay_s)

    def delivery(
        self, tx: Connection, delivery_id: str, destination: str, attempt: int, *, delay_s: float = 0.0
    ) -> None:
        """Enqueue an attempt at a delivery, on the queue of its destination."""
        queue = queue_of(destination)
        self._enqueue(tx, "delivery", queue, f"delivery/{delivery_id}/{attempt}", delivery_id, delay_s=delay_s)

    def again(self, tx: Connection, one: Unfinished, delay_s: float) -> None:
        """Enqueue what the engine has lost, under an id that it has not seen."""
        queue = JOBS if one.kind == "job" else queue_of(one.destination)
        run = f"{one.kind}/{one.id}/{one.attempt + 1}/{uuid4().hex[:8]}"
        self._enqueue(tx, one.kind, queue, run, one.id, priority=one.priority, delay_s=delay_s)

    def register_queue(self, name: str, concurrency: int, poll_s: float) -> None:
        """Tell the engine of a queue and how many of its runs one process may have at a time."""
        self._client.register_queue(name, worker_concurrency=concurrency, polling_interval_sec=poll_s)

    def close(self) -> None:
        """Let go of the engine; the connections are the caller's."""
        self._client.destroy()

    def _enqueue(
        self, tx: Connection, name: str, queue: str, run: str, argument: str, *, priority: int = 10, delay_s: float
    ) -> None:
        options: EnqueueOptions = {
            "workflow_name": name,
            "queue_name": queue,
            "workflow_id": run,
            "app_version": VERSION,
            "priority": priority,
        }
        if delay_s > 0:
            options["delay_seconds"] = delay_s
        self._client.enqueue_in_transaction(tx, options, argument)


class Executor:
    """One process that runs jobs or deliveries, keeps saying that it lives, and buries those that do not.

    Parameters
    ----------
    role, slot : str, int
        Which of the processes of this machine it is. One process at a time holds a slot; one that starts in a slot
        takes up at once what the process before it left.
    queues : mapping of str to int
        The queues to serve, and how many runs of each at a time.
    on_job, on_delivery : callable, optional
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
        on_delivery: Callable[[str, str], None] | None = None,
        before_exit: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._role, self._slot = role, str(slot)
        self._queues = dict(queues)
        self._callbacks = {"job": on_job, "delivery": on_delivery}
        self._before_exit = before_exit
        self._host = socket.gethostname()[:60]
        self._running: Counter[str] = Counter()
        self._idle: set[str] = set()
        self._counting, self._lock = Lock(), Lock()
        self._last_beat: datetime | None = None
        self._steady_since: datetime | None = None
        self.executor_id = f"{self._host}/{role}-{slot}/{uuid4().hex[:12]}"

    def run(self, stop: Event) -> None:
        """Serve the queues until `stop`; then finish or give back what is running.

        Raises
        ------
        ConfigurationError
            If another process holds the slot.
        """
        enqueuer = Enqueuer(self._engine)
        ended = Event()
        with self._slot_held():
            # the row first: nothing can be claimed by a process that no reaper knows
            commit(self._engine, self._register)
            try:
                _every(self._beat, self._settings.engine.beat_s, ended)
                self._launch(enqueuer)
                others = [
                    _every(self._reap, self._settings.engine.beat_s, stop),
                    _every(lambda: self._reconcile(enqueuer), self._settings.engine.dead_after_s, stop),
                ]
                stop.wait()
                for thread in others:
                    thread.join(timeout=5)
                self._drain()
                commit(self._engine, lambda tx: stop_node(tx, self.executor_id))
            finally:
                ended.set()
                DBOS.destroy(destroy_registry=True)
                enqueuer.close()

    def _register(self, tx: Connection) -> None:
        if self._last_beat is None:
            register_node(
                tx,
                self.executor_id,
                host=self._host,
                role=self._role,
                slot=self._slot,
                pid=os.getpid(),
                version=__version__,
            )

    @contextmanager
    def _slot_held(self) -> Iterator[None]:
        """Hold the lock file of the slot: the kernel lets go of it when the process dies, however it dies."""
        folder = self._settings.spool.path / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._host}-{self._role}-{self._slot}.lock"
        with path.open("w") as file:
            _lock(file.fileno(), path)
            yield

    def _launch(self, enqueuer: Enqueuer) -> None:
        _log_through_ours()
        for name, concurrency in self._queues.items():
            enqueuer.register_queue(name, concurrency, self._settings.engine.poll_s)
        threads = sum(self._queues.values()) + 4
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._settings.database.url,
            "sys_db_pool_size": 5,
            "application_version": VERSION,
            "executor_id": self.executor_id,
            "serializer": DBOSPortableJSONSerializer(),
            "run_migrations": False,
            "max_executor_threads": threads,
            "log_level": "WARNING",
        }
        DBOS(config=config)
        # how often a run may be started is for claim_job and claim_delivery to say, by the attempts in our rows
        workflow = partial(DBOS.workflow, max_recovery_attempts=100)

        @workflow(name="job")
        def job(job_id: str) -> None:
            self._call("job", job_id)

        @workflow(name="delivery")
        def delivery(delivery_id: str) -> None:
            self._call("delivery", delivery_id)

        DBOS.listen_queues(list(self._queues))
        DBOS.launch()

    def _call(self, kind: str, row_id: str) -> None:
        callback = self._callbacks[kind]
        if callback is None:
            raise RuntimeError(f"this process does not serve {kind} runs")
        with self._counting:
            self._running[f"{kind}/{row_id}"] += 1
        try:
            callback(row_id, self.executor_id)
        except Exception:  # the reconciler gives the row back; the engine only notes that the run ended
            logger.exception("%s %s: the run ended with an error", kind, row_id)
            raise
        finally:
            with self._counting:
                self._running[f"{kind}/{row_id}"] -= 1

    def _beat(self) -> tuple[datetime, bool]:
        """Say that we live, and keep account of how long we have been able to say so without a gap.

        Measured on the database's clock, on which others are judged: a stop of ours, of the machine or of the
        database all show as a gap.

        Returns
        -------
        (datetime, bool)
            The heartbeat, and whether we have seen the database for so long up to it that the silence of another
            process is not our own doing.
        """
        with self._lock:
            with self._engine.begin() as tx:
                at = beat(tx, self.executor_id)
            if at is None:
                self._exit("it was declared dead")
            dead_after = timedelta(seconds=self._settings.engine.dead_after_s)
            if self._last_beat is None or not timedelta(0) <= at - self._last_beat <= dead_after / 2:
                self._steady_since = at
            self._last_beat = at
            return at, at - (self._steady_since or at) >= dead_after

    def _reap(self) -> None:
        """Declare dead who no longer beats, and give the runs of all who are not alive back to their queues."""
        seen_at, may_judge = self._beat()
        with self._engine.begin() as tx:
            if may_judge:
                for executor_id in reap_nodes(tx, self._settings.engine.dead_after_s, seen_at):
                    logger.warning("declared dead: %s", executor_id)
            alive = alive_nodes(tx)
        gone = {executor_id for _, executor_id in self._runs("PENDING") if executor_id} - alive
        if gone and self.executor_id in alive:
            DBOS._recover_pending_workflows(sorted(gone))

    def _reconcile(self, enqueuer: Enqueuer) -> None:
        """Enqueue anew what is unfinished and unknown to the engine. Read in this order, or what is new looks lost."""
        with self._engine.begin() as tx:
            candidates = unfinished(tx)
        if not candidates:
            return
        known = {_row_of(run) for run, _ in self._runs(*LIVE)} - self._dropped()
        for one in candidates:
            if f"{one.kind}/{one.id}" not in known:
                with self._engine.begin() as tx:
                    if give_back(tx, one, enqueuer):
                        logger.warning("%s %s was %s with nobody to run it: enqueued", one.kind, one.id, one.state)

    def _dropped(self) -> set[str]:
        """Find what the engine claimed for this process and then never started: seen idle now and a pass ago."""
        before = self._idle
        claimed = {_row_of(run) for run, executor_id in self._runs("PENDING") if executor_id == self.executor_id}
        with self._counting:
            self._idle = {row for row in claimed if not self._running[row]}
        return before & self._idle

    def _runs(self, *states: str) -> list[tuple[str, str | None]]:
        """Read (workflow id, executor id) from the engine's own table: lean, because the backlog may be long."""
        schema = "dbos" if self._engine.dialect.name == "postgresql" else None
        runs = table("workflow_status", column("workflow_uuid"), column("executor_id"), column("status"), schema=schema)
        query = select(runs.c.workflow_uuid, runs.c.executor_id).where(runs.c.status.in_(states))
        with self._engine.begin() as tx:
            return [(run, executor_id) for run, executor_id in tx.execute(query)]

    def _drain(self) -> None:
        """Claim nothing more and wait for the callbacks; whoever does not return in time is left to the others."""
        wait_s = DRAIN_S + SETTLE_S if self._running.total() else 0.0
        DBOS.destroy(workflow_completion_timeout_sec=int(wait_s))
        if self._running.total():
            self._exit(f"{self._running.total()} runs did not end in {wait_s:.0f} s and are left to another process")

    def _exit(self, why: str) -> NoReturn:
        """Leave at once, writing nothing more: what we were doing is for somebody else to take up."""
        logger.error("%s stops at once: %s", self.executor_id, why)
        try:
            if self._before_exit is not None:
                self._before_exit()
        finally:
            logging.shutdown()
            os._exit(LEFT)


def _every(step: Callable[[], object], seconds: float, stop: Event) -> Thread:
    """Run a step in a thread of its own. While the database is away it keeps its pace: a late heartbeat may cost us."""

    def reachable_step() -> None:
        try:
            step()
        except Exception as error:
            if not is_away(error):
                raise
            logger.warning("the database is away: %s", type(error).__name__)

    thread = Thread(target=run_every, args=(reachable_step, seconds, stop), daemon=True)
    thread.start()
    return thread


def _row_of(run: str) -> str:
    """Give the kind and row id in the id of a run."""
    return "/".join(run.split("/")[:2])


def _lock(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + SLOT_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigurationError(f"{path}: another process of this node holds this slot") from None
            Event().wait(0.1)


class _Seldom(logging.Filter):
    """Let the same warning through once in 30 s: a database that is away is told once, not at each poll."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[Any, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        where = record.module, record.lineno
        now = time.monotonic()
        if record.levelno < logging.ERROR and now - self._last.get(where, -1e9) < 30:
            return False
        self._last[where] = now
        return True


def _log_through_ours() -> None:
    """Keep DBOS from writing to the console by itself: its warnings go the way of all our logs."""
    theirs = logging.getLogger("dbos")
    if not any(isinstance(f, _Seldom) for f in theirs.filters):
        theirs.addFilter(_Seldom())
        theirs.addHandler(logging.NullHandler())
        theirs.setLevel(logging.WARNING)
        theirs.propagate = True
