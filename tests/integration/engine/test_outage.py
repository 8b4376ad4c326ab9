"""The database goes away for longer than a heartbeat may be late: nobody is buried alive, no job is lost."""

from __future__ import annotations

import time

import pytest

from dicom_node.db import tables as t
from tests.integration.engine.conftest import Site
from tests.integration.engine.rows import add_job, attempts, count, job_row
from tests.peers.postgresql import PostgreSQL


@pytest.fixture
def database_url(postgresql: PostgreSQL) -> str:
    return postgresql.database()


def test_two_workers_sit_out_an_outage_and_finish_what_they_were_at(site: Site, postgresql: PostgreSQL) -> None:
    with site.engine.begin() as tx:
        jobs = [add_job(tx, site.enqueuer, "wait") for _ in range(2)]
    workers = [site.worker(slot) for slot in range(2)]
    site.wait(lambda: all(site.started(job, 1) for job in jobs))
    time.sleep(2.5)  # both have beaten long enough to be allowed to judge

    site.engine.dispose()
    postgresql.pause()
    (site.home / "go").touch()  # the jobs end while there is nothing to write it down in
    time.sleep(3.5)
    postgresql.resume()

    site.wait(lambda: all(job_row(site.engine, job).state == "completed" for job in jobs), timeout_s=60)
    assert [attempt.outcome for job in jobs for attempt in attempts(site.engine, job)] == ["completed", "completed"]
    assert [worker.poll() for worker in workers] == [None, None]
    assert count(site.engine, t.node, t.node.c.state == "dead") == 0
