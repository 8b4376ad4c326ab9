"""Who may claim a job, and who may end it."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, update

from dicom_node.db import tables as t
from dicom_node.db.engine import utc_now
from dicom_node.db.jobs import claim_job, finish_completed, finish_failed
from dicom_node.db.nodes import register_node
from dicom_node.domain.job import Failure, Job, Succeeded
from tests.integration.engine.conftest import Site
from tests.integration.engine.rows import add_job, attempts, count, job_row


def start(site: Site, executor_id: str) -> None:
    with site.engine.begin() as tx:
        register_node(tx, executor_id, host="here", role="work", slot=executor_id, pid=1, version="0")


def claim(site: Site, job_id: str, executor_id: str, *, again: bool = False) -> Job | None:
    with site.engine.begin() as tx:
        return claim_job(tx, job_id, executor_id, {}, site.enqueuer, again=again)


def add(site: Site, **options: int) -> str:
    with site.engine.begin() as tx:
        return add_job(tx, None, "quick", **options)  # type: ignore[arg-type]


def test_a_worker_that_lives_keeps_its_job(site: Site) -> None:
    start(site, "a")
    job_id = add(site)
    held = claim(site, job_id, "a")

    assert held is not None
    assert claim(site, job_id, "b") is None
    with site.engine.begin() as tx:
        assert finish_completed(tx, held, Succeeded(()), site.enqueuer)


def test_who_was_taken_over_can_end_nothing(site: Site) -> None:
    job_id = add(site)
    first = claim(site, job_id, "never registered")
    second = claim(site, job_id, "b")
    assert first is not None
    assert second is not None

    with site.engine.begin() as tx:
        assert not finish_failed(tx, first, "too late", Failure.FAILED, site.enqueuer)
        assert not finish_completed(tx, first, Succeeded(()), site.enqueuer)

    assert job_row(site.engine, job_id).state == "in progress"
    with site.engine.begin() as tx:
        assert finish_completed(tx, second, Succeeded(()), site.enqueuer)


def test_a_job_is_not_claimed_before_it_is_due(site: Site) -> None:
    job_id = add(site)
    with site.engine.begin() as tx:
        later = utc_now() + timedelta(minutes=1)
        tx.execute(update(t.job).where(t.job.c.id == job_id).values(next_attempt_at=later))

    assert claim(site, job_id, "a") is None


def test_a_claim_whose_answer_was_lost_is_the_same_attempt(site: Site) -> None:
    start(site, "a")
    job_id = add(site)
    first = claim(site, job_id, "a")

    assert claim(site, job_id, "a", again=True) == first
    assert len(attempts(site.engine, job_id)) == 1


def test_an_ended_job_is_not_claimed(site: Site) -> None:
    job_id = add(site)
    job = claim(site, job_id, "a")
    assert job is not None
    with site.engine.begin() as tx:
        finish_failed(tx, job, "as asked", Failure.FAILED, site.enqueuer)

    assert claim(site, job_id, "a") is None


def test_a_job_whose_instances_are_gone_fails_and_says_how_many(site: Site) -> None:
    job_id = add(site)
    with site.engine.begin() as tx:
        tx.execute(delete(t.instance))

    assert claim(site, job_id, "a") is None
    assert job_row(site.engine, job_id).error == "1 of 1 instances are no longer stored."
    assert count(site.engine, t.audit_event, t.audit_event.c.event == "job failed") == 1
