"""Open the database and run transactions on it.

SQLite (one machine) and PostgreSQL (several) differ only in the URL. SQLite runs in WAL mode with synchronous FULL, so
that a committed row survives a power cut, and every transaction that may write begins IMMEDIATE, so that two writers
wait for each other instead of failing half-way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url

BUSY_TIMEOUT_MS = 30_000


def open_engine(url: str, *, pool_size: int = 5) -> Engine:
    """Open an engine; connects on first use.

    Parameters
    ----------
    url : str
        ``sqlite:///path/to/node.db`` or ``postgresql://user:password@host/database``.
    pool_size : int
        Connections kept by this process.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, pool_size=pool_size, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(
        parsed, pool_size=pool_size, max_overflow=0, pool_pre_ping=True, connect_args={"connect_timeout": 10}
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction: commits when the block ends, rolls back when it raises."""
    with engine.begin() as tx:
        yield tx


def utc_now() -> datetime:
    """The host's clock, aware and in UTC, as stored in the tables."""
    return datetime.now(UTC)


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours: _begin_immediate
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
