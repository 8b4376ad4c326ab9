"""Run a step until told to stop. The only place where the node sleeps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_WAIT_S = 30.0


class HostClock:
    """Notices that somebody, or a time service, has set the clock of this machine."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._apart = wall() - monotonic()

    def jumped_s(self) -> float:
        """Tell by how many seconds the clock was set since the last `accept`; negative for backwards."""
        return self._wall() - self._monotonic() - self._apart

    def accept(self) -> None:
        """Go on from the clock as it is now."""
        self._apart = self._wall() - self._monotonic()


def run_every(step: Callable[[], object], seconds: float, stop: Event) -> None:
    """Run `step` at once and then every `seconds`, until `stop` is set.

    A step that raises is logged with its traceback and tried again; the wait doubles while it keeps failing, up to
    30 s (or `seconds`, where that is longer), so that an absent database does not fill the log.

    Parameters
    ----------
    step : callable
        What to do; its result is ignored.
    seconds : float
        Pause between the end of one step and the start of the next.
    stop : threading.Event
        Ends the loop, also in the middle of a pause.
    """
    wait_s = seconds
    while not stop.is_set():
        try:
            step()
            wait_s = seconds
        except Exception:  # a loop outlives what nobody foresaw; the step says what its failure costs
            wait_s = min(max(wait_s * 2, 0.1), max(seconds, LONGEST_WAIT_S))
            logger.exception("a step failed; next try in %.1f s", wait_s)
        stop.wait(wait_s)


def persist(
    step: Callable[[], T], may_pass: Callable[[Exception], bool], *, first_s: float = 0.1, longest_s: float = 5.0
) -> T:
    """Repeat `step` until it no longer fails in a way that may pass.

    Parameters
    ----------
    step : callable
        Safe to repeat: it may have had its effect although it raised.
    may_pass : callable
        Whether an error is worth waiting for; any other is raised at once.
    first_s, longest_s : float
        The wait after the first failure, doubling up to the longest, in seconds.

    Returns
    -------
    object
        What `step` returned.
    """
    wait_s = first_s
    while True:
        try:
            return step()
        except Exception as error:
            if not may_pass(error):
                raise
            logger.warning("waiting %.1f s for: %s", wait_s, type(error).__name__)
        Event().wait(wait_s)
        wait_s = min(wait_s * 2, longest_s)
