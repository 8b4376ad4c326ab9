"""Who lives, and who is to be declared dead: the part of a job engine that DBOS leaves out.

Every process holds a slot of its machine, says at a fixed pace that it lives, and looks for those that have fallen
silent. All times are the database's clock.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Lock, Thread

from sqlalchemy import Engine

from dicom_node.db.engine import is_away
from dicom_node.db.nodes import alive_nodes, beat, reap_nodes
from dicom_node.errors import ConfigurationError
from dicom_node.loop import run_every

SLOT_WAIT_S = 10.0

logger = logging.getLogger(__name__)


class Liveness:
    """The heartbeat of this process, and its judgement of the others.

    Parameters
    ----------
    executor_id : str
        This process, as registered in the table of nodes.
    dead_after_s : float
        The longest silence that is not taken for death.
    on_death : callable
        Called when this process is no longer among the living: others have declared it dead, or it said goodbye.
    """

    def __init__(self, engine: Engine, executor_id: str, dead_after_s: float, on_death: Callable[[], None]) -> None:
        self._engine = engine
        self._executor_id = executor_id
        self._dead_after = timedelta(seconds=dead_after_s)
        self._on_death = on_death
        self._lock = Lock()
        self._last: datetime | None = None
        self._steady_since: datetime | None = None

    def beat(self) -> datetime | None:
        """Say that we live, and keep account of how long we have been able to say so without a gap.

        Measured on the database's clock, on which others are judged: a stop of ours, of the machine or of the
        database all show as a gap.

        Returns
        -------
        datetime or None
            The heartbeat, if we have seen the database for so long up to it that the silence of another process is
            not our own doing; otherwise None.
        """
        with self._lock:
            with self._engine.begin() as tx:
                at = beat(tx, self._executor_id)
            if at is None:
                self._on_death()
                return None
            if self._last is None or not timedelta(0) <= at - self._last <= self._dead_after / 2:
                self._steady_since = at
            self._last = at
            return at if at - (self._steady_since or at) >= self._dead_after else None

    def gone(self, holders: Callable[[], set[str]]) -> set[str]:
        """Declare dead who has fallen silent; of those who hold runs, give the ones that do not live.

        Parameters
        ----------
        holders : callable
            Gives the executor ids that hold runs. Asked first: who claims one after that may be newer than our list
            of the living.
        """
        seen_at = self.beat()
        holding = holders()
        with self._engine.begin() as tx:
            if seen_at is not None:
                for executor_id in reap_nodes(tx, self._dead_after.total_seconds(), seen_at):
                    logger.warning("declared dead: %s", executor_id)
            alive = alive_nodes(tx)
        return holding - alive if self._executor_id in alive else set()


@contextmanager
def slot_held(path: Path) -> Iterator[None]:
    """Hold the lock file of a slot. The kernel lets go of it when the process dies, however it dies.

    Raises
    ------
    ConfigurationError
        If another process still holds it after ten seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        _lock(file.fileno(), path)
        yield


def every(step: Callable[[], object], seconds: float, stop: Event) -> Thread:
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
