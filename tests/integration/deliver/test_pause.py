"""To a paused destination nothing goes, from a deliverer that lives or one that starts; the others get theirs."""

from __future__ import annotations

from sqlalchemy import select

from dicom_node.db import tables as t
from dicom_node.db.pauses import pause, resume
from dicom_node.engine import queue_of
from tests.integration.deliver.peer import MakeScp
from tests.integration.deliver.rows import deliveries
from tests.integration.deliver.site import Site

DONE = ["delivered", "delivered"]


def heed(site: Site) -> None:
    """Wait until the deliverer has looked at what is paused, which it does whenever it says that it lives."""

    def beat() -> object:
        with site.engine.connect() as tx:
            return tx.execute(select(t.node.c.beat_at)).scalar()

    for _ in range(3):
        before = beat()
        site.wait(lambda before=before: beat() != before)  # type: ignore[misc]


def test_nothing_goes_to_a_paused_destination_until_it_is_resumed_restarts_included(
    each_site: Site, scp: MakeScp
) -> None:
    site, pacs, archive = each_site, scp(), scp()
    ports = {"pacs": pacs.port, "archive": archive.port}
    process = site.deliverer(ports)
    first = site.results(*ports)
    site.wait(lambda: site.states(first) == site.states(first, "archive") == DONE)
    had = list(pacs.stored)

    with site.engine.begin() as tx:
        pause(tx, queue_of("pacs"), "the PACS is upgraded", actor="operator ann")
    heed(site)
    jobs = [site.results(*ports)]
    site.wait(lambda: site.states(jobs[0], "archive") == DONE)
    process.terminate()
    process.wait()
    site.deliverer(ports)
    jobs.append(site.results(*ports))
    site.wait(lambda: site.states(jobs[1], "archive") == DONE)
    assert pacs.stored == had
    held = [row for job in jobs for row in deliveries(site.engine, job, "pacs")]
    assert {(row.state, row.attempt) for row in held} == {("waiting", 0)}

    with site.engine.begin() as tx:
        resume(tx, queue_of("pacs"), actor="operator ann")
    site.wait(lambda: all(site.states(job) == DONE for job in jobs))
    assert len(pacs.stored) == len(had) + 4
