"""A loop outlives its steps and ends when it is told to."""

from __future__ import annotations

import time
from itertools import pairwise
from threading import Event, Thread

import pytest

from dicom_node.loop import HostClock, persist, run_every


def test_a_step_that_raises_is_run_again() -> None:
    stop, calls = Event(), 0

    def step() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            stop.set()
        raise OSError("the disk is full")

    run_every(step, 0.001, stop)

    assert calls == 3


def test_a_failing_step_is_tried_less_and_less_often() -> None:
    stop = Event()
    times: list[float] = []

    def step() -> None:
        times.append(time.monotonic())
        if len(times) == 4:
            stop.set()
        raise OSError

    run_every(step, 0.05, stop)

    first, second, third = (later - earlier for earlier, later in pairwise(times))
    assert 0.09 < first < second < third


def test_stop_ends_a_long_pause_at_once() -> None:
    stop, ran = Event(), Event()
    thread = Thread(target=run_every, args=(ran.set, 3600.0, stop))
    thread.start()
    assert ran.wait(60)

    stop.set()
    thread.join(60)

    assert not thread.is_alive()


def test_nothing_runs_once_stop_is_set() -> None:
    stop = Event()
    stop.set()

    run_every(lambda: pytest.fail("ran"), 0.01, stop)


def test_persist_waits_for_what_may_pass_and_gives_the_answer() -> None:
    failures = [TimeoutError(), TimeoutError()]

    def step() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert persist(step, lambda error: isinstance(error, TimeoutError), first_s=0.001) == "done"


def test_persist_raises_at_once_what_will_not_pass() -> None:
    calls: list[int] = []

    def step() -> None:
        calls.append(1)
        raise ValueError("no such table")

    with pytest.raises(ValueError, match="no such table"):
        persist(step, lambda error: isinstance(error, TimeoutError))
    assert calls == [1]


def test_a_clock_that_was_set_is_noticed_and_one_that_runs_is_not() -> None:
    times = {"wall": 1_000.0, "monotonic": 50.0}
    clock = HostClock(lambda: times["wall"], lambda: times["monotonic"])
    times["wall"], times["monotonic"] = 1_060.0, 110.0
    assert clock.jumped_s() == 0.0
    times["wall"] = 1_060.0 - 3600
    assert clock.jumped_s() == -3600.0
    clock.accept()
    assert clock.jumped_s() == 0.0
    assert abs(HostClock().jumped_s()) < 1.0
