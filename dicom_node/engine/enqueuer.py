"""Enqueue jobs and deliveries in the caller's transaction."""

from __future__ import annotations

import logging
import time
from datetime import datetime
from typing import Any
from uuid import uuid4

from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions
from sqlalchemy import Connection, Engine, TableClause, column, func, select, table

from dicom_node.db.engine import reading
from dicom_node.db.reconcile import Unfinished

JOBS = "jobs"
APPLICATION = "dicom-node"
ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
VERSION = "1"  # pinned: with DBOS's default, a hash of the source, no upgraded worker would match a queued job


def queue_of(destination: str) -> str:
    """Name the queue of one destination: one for each, so that a dead destination never holds up another."""
    return f"deliver/{destination}"


def migrate(url: str) -> None:
    """Create or upgrade the engine's own tables (in schema ``dbos`` on PostgreSQL); see db/migrate.py for ours."""
    log_through_ours()
    DBOS.migrate(url)


class Enqueuer:
    """Enqueue jobs and deliveries in the caller's transaction: both commit, or neither."""

    def __init__(self, engine: Engine) -> None:
        log_through_ours()
        self._engine = engine
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

    def report(self, tx: Connection, job_id: str, attempt: int, *, priority: int = 10, delay_s: float = 0.0) -> None:
        """Enqueue an attempt at the report of a failed job, on the queue of the jobs: workers write it."""
        self._enqueue(tx, "report", JOBS, f"report/{job_id}/{attempt}", job_id, priority=priority, delay_s=delay_s)

    def delivery(
        self, tx: Connection, delivery_id: str, destination: str, attempt: int, *, delay_s: float = 0.0
    ) -> None:
        """Enqueue an attempt at a delivery, on the queue of its destination."""
        queue = queue_of(destination)
        self._enqueue(tx, "delivery", queue, f"delivery/{delivery_id}/{attempt}", delivery_id, delay_s=delay_s)

    def again(self, tx: Connection, one: Unfinished, delay_s: float) -> None:
        """Enqueue what the engine has lost, under an id that it has not seen."""
        queue = queue_of(one.destination) if one.kind == "delivery" else JOBS
        run = f"{one.kind}/{one.id}/{one.attempt + 1}/{uuid4().hex[:8]}"
        self._enqueue(tx, one.kind, queue, run, one.id, priority=one.priority, delay_s=delay_s)

    def forget(self, ended_before: datetime, limit: int) -> int:
        """Delete the engine's rows of runs that ended before, and count them; our rows tell what became of them."""
        t = _status_table(self._engine)
        before_ms = int(ended_before.timestamp() * 1000)
        old = select(t.c.workflow_uuid).where(t.c.status.in_(ENDED), t.c.updated_at < before_ms).limit(limit)
        with reading(self._engine) as tx:
            runs = list(tx.scalars(old))
        if runs:
            self._client.delete_workflows(runs)
        return len(runs)

    def count_ended(self, ended_before: datetime) -> int:
        """How many runs `forget` would forget."""
        t = _status_table(self._engine)
        old = (t.c.status.in_(ENDED), t.c.updated_at < int(ended_before.timestamp() * 1000))
        with reading(self._engine) as tx:
            return int(tx.scalar(select(func.count()).select_from(t).where(*old)) or 0)

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


def runs(engine: Engine, *states: str) -> list[tuple[str, str | None]]:
    """Read (run id, executor id) from the engine's own table: lean, because the backlog may be long."""
    t = _status_table(engine)
    query = select(t.c.workflow_uuid, t.c.executor_id).where(t.c.status.in_(states))
    with reading(engine) as tx:
        return [(run, executor_id) for run, executor_id in tx.execute(query)]


def _status_table(engine: Engine) -> TableClause:
    schema = "dbos" if engine.dialect.name == "postgresql" else None
    names = ("workflow_uuid", "executor_id", "status", "updated_at")
    return table("workflow_status", *(column(name) for name in names), schema=schema)


def row_of(run: str) -> tuple[str, str]:
    """Give the kind and the row id that a run's id begins with."""
    kind, row_id, *_ = run.split("/")
    return kind, row_id


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


def log_through_ours() -> None:
    """Keep DBOS from writing to the console by itself: its warnings go the way of all our logs."""
    theirs = logging.getLogger("dbos")
    if not any(isinstance(f, _Seldom) for f in theirs.filters):
        theirs.addFilter(_Seldom())
        theirs.addHandler(logging.NullHandler())
        theirs.setLevel(logging.WARNING)
        theirs.propagate = True
