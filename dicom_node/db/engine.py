"""Open the database and run transactions on it.

SQLite (one machine) and PostgreSQL (several) differ only in the URL. SQLite runs in WAL mode with synchronous FULL, so
that a committed row survives a power cut, and every transaction that may write begins IMMEDIATE, so that two writers
wait for each other instead of failing half-way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dicom_node.db.driver import run
from dicom_node.loop import persist

BUSY_TIMEOUT_MS = 30_000
# PostgreSQL: who waits for a lock gives up as on SQLite, and a server that left without a word is noticed.
_PATIENCE: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "options": f"-c lock_timeout={BUSY_TIMEOUT_MS}",
}
# SQLITE_BUSY, _LOCKED, _NOMEM, _IOERR, _FULL, _CANTOPEN: the machine's trouble, not the statement's.
_SQLITE_PASSING = {5, 6, 7, 10, 13, 14}

_READ_ONLY = "dicom_node_read_only"

T = TypeVar("T")


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
    own = {name: value for name, value in _PATIENCE.items() if name not in parsed.query}
    return create_engine(parsed, pool_size=pool_size, max_overflow=0, pool_pre_ping=True, connect_args=own)


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction: commits when the block ends, rolls back when it raises."""
    with engine.begin() as tx:
        yield tx


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One snapshot to read from; it keeps no writer waiting, and cannot write."""
    with engine.connect() as connection:
        reader = connection.execution_options(**{_READ_ONLY: True, "postgresql_readonly": True})
        with reader.begin():
            yield reader


def commit(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run `work` in a transaction, again and again while the database is away, until it is committed.

    Parameters
    ----------
    work : callable
        Safe to repeat: when the connection breaks in the middle of a commit, it may have been committed already.
    """

    def attempt() -> T:
        with engine.begin() as tx:
            return work(tx)

    return persist(attempt, is_away)


def is_away(error: Exception) -> bool:
    """Whether an error says that the database cannot be reached or has no room, which may pass."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_PASSING
    return error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))


def is_lost(error: Exception) -> bool:
    """Whether an error says that a connection ended while nobody used it; another one may be had at once."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def utc_now() -> datetime:
    """Read the host's clock: aware and in UTC, as stored in the tables."""
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
    reads = connection.get_execution_options().get(_READ_ONLY, False)
    if connection.info.get(_READ_ONLY, False) != reads:
        run(connection, f"PRAGMA query_only={'ON' if reads else 'OFF'}")
        connection.info[_READ_ONLY] = reads
    run(connection, "BEGIN" if reads else "BEGIN IMMEDIATE")


def insert_into(tx: Connection, table: Table) -> Any:
    """Begin an INSERT that knows ON CONFLICT, which both databases have, each with a class of its own."""
    return (postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert)(table)
