"""The threads that write what arrives: one instance stays with one of them, from its first piece to its last sync."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock, Thread

logger = logging.getLogger(__name__)

Step = Callable[[], None]


class Hand:
    """One thread, and what it has still to do.

    Parameters
    ----------
    idle : callable
        What to do when nothing is given for as long as `idle_after` says; it is called with this hand.
    """

    def __init__(self, number: int, idle: Callable[[Hand], None], idle_after: Callable[[], float | None]) -> None:
        self._commits = False
        self._load = 0
        self._counting = Lock()
        self._steps: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._idle = partial(idle, self)
        self._idle_after = idle_after
        self._thread = Thread(target=self._work, name=f"store {number}", daemon=True)

    @property
    def burden(self) -> tuple[bool, int]:
        """How busy it is; the smaller, the sooner it will do what it is given now."""
        return self._commits, self._load

    def count(self, more: int) -> None:
        """Count the instances that it has in work."""
        with self._counting:
            self._load += more

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Say that it is committing, and had better be given nothing else."""
        self._commits = True
        try:
            yield
        finally:
            self._commits = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def do(self, step: Step) -> None:
        """Have something done, after what was given before."""
        self._steps.put(step)

    def end(self) -> None:
        """End the thread once it has done what it was given."""
        self._steps.put(None)

    def join(self, until: float) -> bool:
        """Wait for its end until some monotonic time; whether it has come."""
        self._thread.join(max(until - time.monotonic(), 0))
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _work(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """Do one step; a function of its own, so that what was done is not kept while there is nothing to do."""
        step = self._next()
        if step is None:
            return False
        try:
            step()
        except Exception:  # one data set must not cost the thread that writes others
            logger.exception("a storing thread failed in one step")
        return True

    def _next(self) -> Step | None:
        """Wait for something to do; `idle` when nothing comes for so long."""
        try:
            return self._steps.get(timeout=self._idle_after())
        except queue.Empty:
            return self._idle
