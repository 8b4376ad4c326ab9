"""A queue that is paused starts nothing in a worker that lives, or in one that starts; what runs goes on."""

from __future__ import annotations

from sqlalchemy import select

from dicom_node.catalog import Catalog
from dicom_node.db import tables as t
from dicom_node.operate import pause, resume
from tests.integration.engine.conftest import Site
from tests.integration.engine.rows import add_job, attempts, count, job_row

CATALOG = Catalog((), {}, {})
ROUNDS = 6  # heartbeats; between two of them a worker asks its queue several times


def enqueue(site: Site, model: str) -> str:
    with site.engine.begin() as tx:
        return add_job(tx, site.enqueuer, model)


def live_on(site: Site) -> None:
    """Wait until the newest worker has said several times that it lives."""

    def beat() -> object:
        newest = select(t.node.c.beat_at).order_by(t.node.c.started_at.desc()).limit(1)
        with site.engine.connect() as tx:
            return tx.execute(newest).scalar()

    for _ in range(ROUNDS):
        before = beat()
        site.wait(lambda before=before: beat() != before)  # type: ignore[misc]


def test_a_paused_queue_starts_nothing_until_it_is_resumed_restarts_included(site: Site) -> None:
    running = enqueue(site, "wait")
    worker = site.worker()
    site.wait(lambda: site.started(running, 1))
    with site.engine.begin() as tx:
        pause(tx, "jobs", CATALOG, reason="the night", actor="operator ann")
    live_on(site)
    (site.home / "go").touch()
    site.wait(lambda: job_row(site.engine, running).state == "completed")
    waiting = [enqueue(site, "quick"), enqueue(site, "quick")]
    live_on(site)
    worker.terminate()
    worker.wait()
    site.worker()
    site.wait(lambda: count(site.engine, t.node) == 2)
    live_on(site)
    assert [job_row(site.engine, job).state for job in waiting] == ["scheduled", "scheduled"]
    assert [attempts(site.engine, job) for job in waiting] == [[], []]

    with site.engine.begin() as tx:
        resume(tx, "jobs", CATALOG, actor="operator ann")
    site.wait(lambda: all(job_row(site.engine, job).state == "completed" for job in waiting))
    assert [len(attempts(site.engine, job)) for job in waiting] == [1, 1]
