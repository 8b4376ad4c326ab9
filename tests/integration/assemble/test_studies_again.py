"""Studies whose series come again by another title, or that wait while somebody sets the clock of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydicom import dcmread
from sqlalchemy import select, update

from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction, utc_now
from dicom_node.domain.rule import Condition, Operator, Rule
from tests.integration.assemble.test_studies import CATALOG, MODEL, MR, role, sweep
from tests.integration.operated import Operated, operated
from tests.integration.test_assemble import SetClock
from tests.mr import Study
from tests.stored import sender, store_files


def pair(name: str, called: str, *destinations: str) -> Rule:
    """A rule that wants T2 and FLAIR of what is called by a title."""
    when = (MR, Condition("called_ae", Operator.ONE_OF, (called,)))
    return Rule(name, "brats", destinations, when, inputs=(role("T2"), role("FLAIR")), wait_s=1800)


RULES = (pair("routine", "ROUTINE", "pacs"), pair("trial", "TRIAL", "research"))


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Operated]:
    with operated(database_url, tmp_path / "node") as made:
        made.catalog = Catalog(RULES, {"brats": MODEL}, {})
        yield made


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "mr")


def come(node: Operated, called: str, *series: list[Path]) -> None:
    """Have series come, each by an association of its own, called by a title."""
    for paths in series:
        by = replace(sender(association=str(uuid4())), called_ae=called)
        store_files(node.engine, node.spool, paths, quiet_s=0.0, by=by)
        sweep(node)


def jobs(node: Operated) -> list[tuple[str, str, list[str], list[str]]]:
    """Rule, state, destinations and input series of each job."""
    j, n = t.job.c, t.job_input.c
    with transaction(node.engine) as tx:
        found = tx.execute(select(j.id, j.rule, j.state, j.destinations).order_by(j.created_at)).all()
        uids = {
            row.id: list(
                tx.scalars(
                    select(t.series.c.series_instance_uid)
                    .join(t.job_input, n.series_id == t.series.c.id)
                    .where(n.job_id == row.id)
                    .order_by(n.position)
                )
            )
            for row in found
        }
    return [(row.rule, row.state, row.destinations, uids[row.id]) for row in found]


def wait(node: Operated) -> Any:
    with transaction(node.engine) as tx:
        return tx.execute(select(t.study_wait)).one_or_none()


def test_what_comes_again_by_another_title_fills_the_roles_of_its_rules(node: Operated, study: Study) -> None:
    t2, flair = study.series("t2 tse"), study.series("flair")
    uids = [str(dcmread(paths[0]).SeriesInstanceUID) for paths in (t2, flair)]
    routine = ("routine", "scheduled", ["pacs"], uids)
    trial = ("trial", "scheduled", ["research"], uids)
    come(node, "ROUTINE", t2, flair)
    assert jobs(node) == [routine]

    come(node, "TRIAL", t2)
    assert jobs(node) == [routine]
    assert wait(node).rule == "trial", "one of two has come so"
    come(node, "TRIAL", flair)
    assert jobs(node) == [routine, trial]
    assert wait(node) is None

    come(node, "ROUTINE", t2, flair)
    come(node, "TRIAL", flair, t2)
    assert jobs(node) == [routine, trial], "neither takes the place of the other, and nothing is made twice"
    told = node.told(uids[0])
    assert "came again, called TRIAL by CT1" in told


def test_who_comes_again_alone_is_waited_for_and_then_told_of(node: Operated, study: Study) -> None:
    t2, flair = study.series("t2 tse"), study.series("flair")
    come(node, "ROUTINE", t2, flair)
    come(node, "TRIAL", t2)
    with transaction(node.engine) as tx:
        tx.execute(update(t.study_wait).values(until=utc_now() - timedelta(seconds=1)))
    sweep(node)

    assert [(rule, state) for rule, state, _, _ in jobs(node)] == [("routine", "scheduled"), ("trial", "failed")]
    assert "Rule trial waited 1800 s for all its series: no series of the study fits FLAIR." in node.told(study.uid)


@pytest.mark.parametrize("set_by", [3600.0, -3600.0])
def test_a_clock_that_is_set_lets_a_study_wait_its_time_and_no_longer(
    set_by: float, node: Operated, study: Study
) -> None:
    node.catalog = CATALOG
    clock = SetClock()
    assembler = Assembler(node.settings, node.catalog, node.engine, node.enqueuer, node.spool, clock=clock)
    store_files(node.engine, node.spool, study.series("t2 tse"), quiet_s=0.0, by=sender("MR1"))
    assert assembler.sweep() == 1
    meant = wait(node).until

    with transaction(node.engine) as tx:  # as if everything had happened by the other clock
        tx.execute(update(t.study_wait).values(until=meant - timedelta(seconds=set_by)))
    clock.by += set_by
    assembler.sweep()

    assert jobs(node) == []
    left_s = (wait(node).until - utc_now()).total_seconds()
    assert 0 < left_s <= 1800
    assert left_s == pytest.approx((meant - utc_now()).total_seconds(), abs=600), "the whole time from now on"
    with transaction(node.engine) as tx:
        tx.execute(update(t.study_wait).values(until=utc_now() - timedelta(seconds=1)))
    assembler.sweep()
    assert [(rule, state) for rule, state, _, _ in jobs(node)] == [("brats", "failed")]
