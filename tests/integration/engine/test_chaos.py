"""Workers die at random instants, again and again: every job ends once, with one result."""

from __future__ import annotations

import random
import time

from dicom_node.db import tables as t
from tests.integration.engine.conftest import Site
from tests.integration.engine.rows import add_job, attempts, count, job_row

JOBS = 20
KILLING_S = 7.0
SEED = 7


def test_random_kills_leave_each_job_completed_once(site: Site) -> None:
    chance = random.Random(SEED)
    jobs: list[str] = []
    workers = [site.worker(slot) for slot in range(2)]
    started = time.monotonic()
    kills = 0
    while time.monotonic() - started < (KILLING_S if kills >= 2 else 4 * KILLING_S):  # a slow machine starts them late
        if len(jobs) < JOBS:
            with site.engine.begin() as tx:
                jobs.append(add_job(tx, site.enqueuer, "nap", max_attempts=1000))
        time.sleep(chance.uniform(0.1, 0.5))
        slot = chance.randrange(2)
        if chance.random() < 0.3 and count(site.engine, t.node, t.node.c.pid == workers[slot].pid):
            workers[slot].kill()
            workers[slot].wait()
            workers[slot] = site.worker(slot)
            kills += 1
    assert kills >= 2

    site.wait(lambda: all(job_row(site.engine, job).state == "completed" for job in jobs), timeout_s=120)

    assert count(site.engine, t.result) == len(jobs)
    for job in jobs:
        outcomes = [attempt.outcome for attempt in attempts(site.engine, job)]
        assert outcomes == ["lost"] * (len(outcomes) - 1) + ["completed"]
