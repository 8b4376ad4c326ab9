"""A series that is here already comes again, called by another of our AE titles: its rules count, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from pydicom import dcmread
from sqlalchemy import select

from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.db.instances import Stored
from dicom_node.db.superseded import held_of_earlier
from dicom_node.domain.delivery import Sent
from dicom_node.domain.rule import Condition, Operator, Rule
from tests.ct import small_ct
from tests.integration.operated import CARD, Operated, operated
from tests.stored import sender, store_files


def rule(name: str, called: str, model: str, *destinations: str) -> Rule:
    return Rule(name, model, destinations, (Condition("called_ae", Operator.ONE_OF, (called,)),))


RULES = (
    rule("chest", "CHEST", "lung", "pacs"),
    rule("liver", "LIVER", "liver", "pacs"),
    rule("liver lungs", "LIVER", "lung", "pacs", "research"),
)


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Operated]:
    with operated(database_url, tmp_path / "node") as node:
        node.catalog = Catalog(RULES, {"lung": CARD, "liver": replace(CARD, name="liver")}, {})
        yield node


def come(node: Operated, called: str, paths: Sequence[Path], quiet_s: float = 0.0) -> set[Stored]:
    """Store files that come called by a title, and let the assembler look."""
    by = replace(sender(association=str(uuid4())), called_ae=called)
    outcomes = store_files(node.engine, node.spool, paths, quiet_s=quiet_s, by=by)
    Assembler(node.settings, node.catalog, node.engine, node.enqueuer, node.spool).sweep()
    return set(outcomes)


def jobs(node: Operated) -> list[tuple[str, str, int, int, list[str]]]:
    j = t.job.c
    with transaction(node.engine) as tx:
        rows = tx.execute(select(j.rule, j.model, j.series_revision, j.run_no, j.destinations).order_by(j.created_at))
        return sorted(tuple(row) for row in rows)


def events(node: Operated) -> list[str]:
    with transaction(node.engine) as tx:
        return list(tx.scalars(select(t.audit_event.c.event).order_by(t.audit_event.c.id)))


def test_the_rules_of_the_other_title_add_their_jobs_and_nothing_is_stored_twice(
    node: Operated, tmp_path: Path
) -> None:
    paths = small_ct(tmp_path / "ct", slices=6, rows=16, columns=16)
    assert come(node, "CHEST", paths) == {Stored.NEW}
    first = ("chest", "lung", 1, 1, ["pacs"])
    assert jobs(node) == [first]
    assert come(node, "CHEST", paths) == {Stored.SAME}
    assert jobs(node) == [first]
    for _ in range(2):
        assert come(node, "LIVER", paths) == {Stored.SAME}
        assert jobs(node) == [first, ("liver", "liver", 1, 1, ["pacs"]), ("liver lungs", "lung", 1, 2, ["research"])]
    assert events(node).count("series came again") == 3
    with transaction(node.engine) as tx:
        assert tx.execute(select(t.series.c.revision, t.series.c.instance_count)).one() == (1, 6)
    told = node.told(str(dcmread(paths[0]).SeriesInstanceUID))
    assert "came again, called LIVER by CT1: what is here was kept, and the rules were asked again; 2 new jobs" in told
    for title in ("CHEST", "LIVER"):
        assert told.count(f"came again, called {title} by CT1: what came was here already, byte for byte") == 1


def test_of_a_late_slice_every_title_hears_and_rejects_what_it_has(node: Operated, tmp_path: Path) -> None:
    def send_lungs(run: int) -> None:
        with transaction(node.engine) as tx:
            job = tx.scalars(select(t.job.c.id).where(t.job.c.model == "lung", t.job.c.run_no == run)).one()
        node.complete(job)
        node.send(Sent(0), Sent(0))

    paths = small_ct(tmp_path / "ct", slices=7, rows=16, columns=16)
    come(node, "CHEST", paths[:6])
    send_lungs(1)
    come(node, "LIVER", paths[:6])
    send_lungs(2)
    come(node, "CHEST", paths[6:])
    later = [job for job in jobs(node) if job[2] == 2]
    assert later == [("chest", "lung", 2, 1, ["pacs", "research"]), ("liver", "liver", 2, 1, ["pacs"])]
    with transaction(node.engine) as tx:
        newest = tx.scalars(select(t.job.c.id).where(t.job.c.model == "lung", t.job.c.series_revision == 2)).one()
        held = held_of_earlier(tx, newest, ["pacs", "research"])
    assert {name: len(documents) for name, documents in held.items()} == {"pacs": 2, "research": 2}


def test_what_comes_again_before_it_is_complete_is_asked_about_once(node: Operated, tmp_path: Path) -> None:
    paths = small_ct(tmp_path / "ct", slices=6, rows=16, columns=16)
    come(node, "CHEST", paths[:5], quiet_s=3600)
    assert come(node, "LIVER", paths[:5], quiet_s=3600) == {Stored.SAME}
    come(node, "CHEST", paths[5:])
    assert [job[:2] for job in jobs(node)] == [("chest", "lung"), ("liver", "liver")]
    assert "series came again" not in events(node)


def test_a_series_that_no_rule_wanted_has_its_job_then(node: Operated, tmp_path: Path) -> None:
    paths = small_ct(tmp_path / "ct", slices=6, rows=16, columns=16)
    come(node, "OTHER", paths)
    with transaction(node.engine) as tx:
        assert "no rule matched" in str(tx.scalar(select(t.series.c.no_job_reason)))
    come(node, "CHEST", paths)
    assert jobs(node) == [("chest", "lung", 1, 1, ["pacs"])]
    with transaction(node.engine) as tx:
        assert tx.scalar(select(t.series.c.no_job_reason)) is None
