"""Processes die, stop, sleep and come back: each job still ends exactly once."""

from __future__ import annotations

import signal

from sqlalchemy import column, select, table, update

from dicom_node.db import tables as t
from dicom_node.db.engine import utc_now
from dicom_node.domain.audit import Event
from tests.integration.engine.conftest import Site
from tests.integration.engine.rows import add_job, attempts, count, job_row


def completed(site: Site, job_id: str) -> bool:
    return bool(job_row(site.engine, job_id).state == "completed")


def outcomes(site: Site, job_id: str) -> list[str]:
    return [attempt.outcome for attempt in attempts(site.engine, job_id)]


def enqueue(site: Site, model: str, **options: int) -> str:
    with site.engine.begin() as tx:
        return add_job(tx, site.enqueuer, model, **options)  # type: ignore[arg-type]


def test_a_stat_job_runs_before_routine_ones_that_came_first(site: Site) -> None:
    jobs = [enqueue(site, "quick"), enqueue(site, "quick"), enqueue(site, "quick", priority=1)]

    site.worker()
    site.wait(lambda: all(completed(site, job) for job in jobs))

    started = sorted(jobs, key=lambda job: attempts(site.engine, job)[0].started_at)
    assert started[0] == jobs[2]


def test_another_worker_finishes_what_a_killed_one_began(site: Site) -> None:
    job = enqueue(site, "wait")
    first = site.worker(0)
    site.wait(lambda: site.started(job, 1))
    site.worker(1)
    first.kill()
    (site.home / "go").touch()

    site.wait(lambda: completed(site, job))

    assert outcomes(site, job) == ["lost", "completed"]
    assert count(site.engine, t.result) == 1
    assert count(site.engine, t.audit_event, t.audit_event.c.event == Event.JOB_RECOVERED.value) == 1
    assert count(site.engine, t.audit_event, t.audit_event.c.event == Event.NODE_DIED.value) == 1


def test_a_restarted_slot_takes_up_its_work_without_waiting_for_the_heartbeat_to_grow_old(site: Site) -> None:
    job = enqueue(site, "wait")
    first = site.worker(dead_after_s=300)
    site.wait(lambda: site.started(job, 1))
    first.kill()
    (site.home / "go").touch()

    site.worker(dead_after_s=300)
    site.wait(lambda: completed(site, job))

    assert outcomes(site, job) == ["lost", "completed"]


def test_a_worker_whose_engine_does_not_end_leaves_all_the_same(site: Site) -> None:
    (site.home / "hang").touch()
    worker = site.worker()
    site.wait(lambda: count(site.engine, t.node, t.node.c.state == "alive"))

    worker.terminate()

    assert worker.wait(180) == 70
    assert "did not come to an end" in (site.home / "worker.log").read_text()
    (site.home / "hang").unlink()
    job = enqueue(site, "quick")
    site.worker()
    site.wait(lambda: completed(site, job))


def test_a_worker_that_said_goodbye_does_not_take_that_for_its_death(site: Site) -> None:
    (site.home / "slow").touch()
    worker = site.worker()
    site.wait(lambda: count(site.engine, t.node, t.node.c.state == "alive"))

    worker.terminate()

    assert worker.wait(180) == 0, (site.home / "worker.log").read_text()


def test_a_process_that_slept_too_long_writes_nothing_and_exits_70(site: Site) -> None:
    job = enqueue(site, "wait")
    sleeper = site.worker(0)
    site.wait(lambda: site.started(job, 1))
    with site.engine.begin():  # SQLite's one writer is this test, so it does not fall asleep over the lock
        sleeper.send_signal(signal.SIGSTOP)
    site.worker(1)
    site.wait(lambda: site.started(job, 2))

    sleeper.send_signal(signal.SIGCONT)
    assert sleeper.wait(180) == 70

    assert job_row(site.engine, job).state == "in progress"
    (site.home / "go").touch()
    site.wait(lambda: completed(site, job))
    assert outcomes(site, job) == ["lost", "completed"]
    assert count(site.engine, t.result) == 1


def test_a_job_that_kills_its_worker_fails_after_exactly_its_attempts(site: Site) -> None:
    job = enqueue(site, "poison", max_attempts=2)
    after = enqueue(site, "quick")

    for _ in range(2):
        assert site.worker().wait(180) == -signal.SIGKILL
    site.worker()
    site.wait(lambda: completed(site, after))

    site.wait(lambda: job_row(site.engine, job).state == "failed")
    assert outcomes(site, job) == ["lost", "lost"]
    assert "died" in job_row(site.engine, job).error


def test_a_failed_attempt_is_tried_again_after_its_delay(site: Site) -> None:
    job = enqueue(site, "fail once")

    site.worker()
    site.wait(lambda: completed(site, job))

    first, second = attempts(site.engine, job)
    assert (first.outcome, second.outcome) == ("retry", "completed")
    assert (second.started_at - first.ended_at).total_seconds() >= 1.0


def test_a_job_that_the_engine_has_lost_is_enqueued_again(site: Site) -> None:
    with site.engine.begin() as tx:
        job = add_job(tx, None, "quick")

    site.worker()
    site.wait(lambda: completed(site, job))

    assert outcomes(site, job) == ["completed"]


def test_a_job_that_was_claimed_but_never_started_is_enqueued_again(site: Site) -> None:
    site.worker()
    site.wait(lambda: count(site.engine, t.node, t.node.c.state == "alive"))
    schema = "dbos" if site.engine.dialect.name == "postgresql" else None
    runs = table("workflow_status", column("status"), column("executor_id"), schema=schema)
    with site.engine.begin() as tx:
        job = add_job(tx, None, "quick")
        site.enqueuer.job(tx, job, 1, delay_s=3600)
        alive = tx.execute(select(t.node.c.executor_id)).scalar_one()
        tx.execute(update(runs).values(status="PENDING", executor_id=alive))

    site.wait(lambda: completed(site, job))

    assert outcomes(site, job) == ["completed"]


def test_a_run_that_ends_with_an_error_does_not_leave_its_job_behind(site: Site) -> None:
    (site.home / "raise").touch()
    job = enqueue(site, "quick")
    site.worker()
    site.wait(lambda: "as asked" in (site.home / "worker.log").read_text())
    (site.home / "raise").unlink()

    site.wait(lambda: completed(site, job))

    assert outcomes(site, job) == ["completed"]


def test_a_job_canceled_while_it_runs_gets_no_result(site: Site) -> None:
    job = enqueue(site, "wait")
    site.worker()
    site.wait(lambda: site.started(job, 1))
    with site.engine.begin() as tx:
        tx.execute(update(t.job).where(t.job.c.id == job).values(state="canceled", finished_at=utc_now()))
    (site.home / "go").touch()

    site.wait(lambda: outcomes(site, job) == ["discarded"])

    assert job_row(site.engine, job).state == "canceled"
    assert count(site.engine, t.result) == 0


def test_a_stopped_worker_says_so_and_leaves_the_queue_alone(site: Site) -> None:
    worker = site.worker()
    site.wait(lambda: count(site.engine, t.node, t.node.c.state == "alive"))

    worker.terminate()
    assert worker.wait(180) == 0

    assert count(site.engine, t.node, t.node.c.state == "stopped") == 1
    job = enqueue(site, "quick")
    schema = "dbos" if site.engine.dialect.name == "postgresql" else None
    runs = table("workflow_status", column("status"), schema=schema)
    assert count(site.engine, runs, runs.c.status == "ENQUEUED") == 1
    assert job_row(site.engine, job).state == "scheduled"
