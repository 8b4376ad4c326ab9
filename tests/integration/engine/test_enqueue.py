"""Enqueuing is part of our transaction: the job's row and the engine's row exist together or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import column, table
from sqlalchemy.exc import IntegrityError

from dicom_node.db import tables as t
from tests.integration.engine.conftest import Site
from tests.integration.engine.rows import add_job, add_series, count


def engine_rows(site: Site) -> int:
    schema = "dbos" if site.engine.dialect.name == "postgresql" else None
    return count(site.engine, table("workflow_status", column("workflow_uuid"), schema=schema))


def test_a_raised_error_leaves_neither_the_job_nor_its_run(site: Site) -> None:
    def close_series() -> None:
        with site.engine.begin() as tx:
            add_job(tx, site.enqueuer, "quick")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        close_series()

    assert count(site.engine, t.job) == 0
    assert engine_rows(site) == 0


def test_a_broken_constraint_after_enqueuing_takes_the_run_with_it(site: Site) -> None:
    with site.engine.begin() as tx:
        series = add_series(tx)
        add_job(tx, site.enqueuer, "quick", series=series)

    def close_series() -> None:
        with site.engine.begin() as tx:
            site.enqueuer.job(tx, "another", 1)
            add_job(tx, site.enqueuer, "quick", series=series)

    with pytest.raises(IntegrityError):
        close_series()

    assert count(site.engine, t.job) == 1
    assert engine_rows(site) == 1


def test_the_same_attempt_enqueued_twice_is_one_run(site: Site) -> None:
    with site.engine.begin() as tx:
        job_id = add_job(tx, site.enqueuer, "quick")
    with site.engine.begin() as tx:
        site.enqueuer.job(tx, job_id, 1)

    assert engine_rows(site) == 1


def test_enqueued_data_are_readable_text(site: Site) -> None:
    with site.engine.begin() as tx:
        job_id = add_job(tx, site.enqueuer, "quick")
    schema = "dbos" if site.engine.dialect.name == "postgresql" else None
    inputs = table("workflow_input", column("inputs"), schema=schema)

    with site.engine.begin() as tx:
        stored = tx.execute(inputs.select()).scalar_one()

    assert job_id in stored  # JSON: unpickling what lies in a database would be running it as code


def test_nothing_of_the_engine_lies_outside_the_database(site: Site, tmp_path: Path) -> None:
    with site.engine.begin() as tx:
        add_job(tx, site.enqueuer, "quick")

    assert not list(tmp_path.glob("**/*dbos*"))
