"""Which processes are alive, by the heartbeats that they write on the database's own clock."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.domain.audit import AuditEvent, Event


def register_node(
    tx: Connection, executor_id: str, *, host: str, role: str, slot: str, pid: int, version: str
) -> list[str]:
    """Announce a process, before it may claim anything.

    The caller holds the file lock of its slot, so whoever held the slot before is gone: its rows are marked dead at
    once, and what it was doing is taken up without waiting for its heartbeat to grow old.

    Returns
    -------
    list of str
        The executor ids that were marked dead.
    """
    earlier = t.node.c.host == host, t.node.c.role == role, t.node.c.slot == slot
    dead = _mark_dead(tx, *earlier, reason="its slot started again")
    tx.execute(
        insert(t.node).values(
            executor_id=executor_id,
            host=host,
            slot=slot,
            role=role,
            pid=pid,
            version=version,
            state="alive",
            started_at=t.clock(),
            beat_at=t.clock(),
        )
    )
    record(tx, AuditEvent(Event.NODE_STARTED, detail={"executor": executor_id, "role": role, "version": version}))
    return dead


def beat(tx: Connection, executor_id: str) -> datetime | None:
    """Say that the process lives. None: it was declared dead and must stop without writing anything."""
    mine = update(t.node).where(t.node.c.executor_id == executor_id, t.node.c.state == "alive")
    return tx.execute(mine.values(beat_at=t.clock()).returning(t.node.c.beat_at)).scalar_one_or_none()


def reap_nodes(tx: Connection, dead_after_s: float, seen_at: datetime) -> list[str]:
    """Declare dead every process whose heartbeat is older than `dead_after_s`.

    Parameters
    ----------
    seen_at : datetime
        The latest heartbeat of the one who asks. When that is old itself, what looks like their silence may be the
        absence of the database, and nobody is declared dead.

    Returns
    -------
    list of str
        Their executor ids.
    """
    now = tx.execute(select(t.clock())).scalar_one()
    dead_after = timedelta(seconds=dead_after_s)
    if now - seen_at > dead_after / 2:
        return []
    return _mark_dead(tx, t.node.c.beat_at < now - dead_after, reason=f"no heartbeat for {dead_after_s:g} s")


def alive_nodes(tx: Connection) -> set[str]:
    """Executor ids of the processes that nobody declared dead."""
    return set(tx.execute(select(t.node.c.executor_id).where(t.node.c.state == "alive")).scalars())


def this_host() -> str:
    """Name this machine as the rows do."""
    return socket.gethostname()[:60]


def alive_pids(tx: Connection, host: str) -> set[int]:
    """Process ids of the living on one machine."""
    mine = t.node.c.host == host, t.node.c.state == "alive"
    return set(tx.execute(select(t.node.c.pid).where(*mine)).scalars())


def stop_node(tx: Connection, executor_id: str) -> None:
    """Say that the process stops in good order."""
    mine = update(t.node).where(t.node.c.executor_id == executor_id, t.node.c.state == "alive")
    if tx.execute(mine.values(state="stopped", beat_at=t.clock())).rowcount:
        record(tx, AuditEvent(Event.NODE_STOPPED, detail={"executor": executor_id}))


def is_alive(tx: Connection, executor_id: str) -> bool:
    """Whether the process is registered and not declared dead."""
    mine = select(t.node.c.state).where(t.node.c.executor_id == executor_id)
    return tx.execute(mine).scalar_one_or_none() == "alive"


def _mark_dead(tx: Connection, *which: object, reason: str) -> list[str]:
    statement = update(t.node).where(t.node.c.state == "alive", *which)  # type: ignore[arg-type]
    dead = list(tx.execute(statement.values(state="dead").returning(t.node.c.executor_id)).scalars())
    record(tx, *(AuditEvent(Event.NODE_DIED, detail={"executor": e, "reason": reason}) for e in dead))
    return dead
