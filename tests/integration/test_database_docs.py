"""docs/database.md is true: each view has the columns it tells, and each question can be copied to both databases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.exc import DBAPIError

from dicom_node.db import migrate, views
from dicom_node.db.engine import open_engine, transaction
from dicom_node.domain.delivery import Sent
from dicom_node.errors import ConfigurationError, DeliveryError
from tests.ct import small_ct
from tests.integration.operated import Operated, operated

PAGE = (Path(__file__).parents[2] / "docs" / "database.md").read_text()
QUESTIONS = re.findall(r"^### (.+?)$\n+```sql\n(.+?);\n```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Operated]:
    with operated(database_url, tmp_path) as made:
        yield made


def answers(node: Operated) -> dict[str, list[dict[str, Any]]]:
    """Ask every question of the page, with a reader's transaction."""
    found = {}
    with transaction(node.engine) as tx:
        for title, sql in QUESTIONS:
            found[title] = [dict(row._mapping) for row in tx.execute(text(sql.replace(":", "\\:")))]
    return found


def test_each_view_has_the_columns_that_the_page_tells(node: Operated) -> None:
    told = {}
    for name, body in re.findall(r"^### (v_\w+)\n(.+?)(?=^### |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL):
        rows = re.findall(r"^\| (`.+?) \|", body, flags=re.MULTILINE)
        told[name] = sorted(column for row in rows for column in re.findall(r"`(\w+)`", row))
    there = inspect(node.engine)
    assert told == {name: sorted(c["name"] for c in there.get_columns(name)) for name in there.get_view_names()}
    assert sorted(told) == sorted(views.names())


def test_every_question_is_answered(node: Operated, tmp_path: Path) -> None:
    def numbered(number: int, ds: Dataset) -> Dataset:
        ds.AccessionNumber, ds.PatientID, ds.StationName = "A12345", "P12345", "CT scanner 1"
        return ds

    node.receive(paths := small_ct(tmp_path / "done", slices=8, change=numbered), "CT1")
    (job,) = node.jobs()
    node.complete(job["id"])
    node.send(Sent(0x0000), DeliveryError("pacs answered 0xC000", retry=False, status=0xC000))
    node.receive(small_ct(tmp_path / "failed", slices=8), "CT2")
    (failed,) = node.jobs(state="scheduled")
    node.fail(failed["id"], "The model lung crashed.")
    node.receive(small_ct(tmp_path / "few", slices=3), "CT3")
    node.receive(small_ct(tmp_path / "waits", slices=8), "CT2")
    found = answers(node)
    assert [title for title, _ in QUESTIONS] == list(found), "two questions of one name"

    (mine,) = found["Where is my result?"]
    assert (mine["state"], mine["deliveries"], mine["delivered"], mine["delivered_at"]) == ("completed", 2, 1, None)
    assert len(found["Everything about one patient"]) == 1
    assert {(row["kind"], row["what"], row["reason"]) for row in found["What failed since midnight?"]} == {
        ("job", "lung", "The model lung crashed."),
        ("delivery", "pacs", "pacs answered 0xC000"),
    }
    assert found["What do jobs fail of most often?"][0]["error"] == "The model lung crashed."
    assert [(r["state"], r["model"]) for r in found["What waits, and how long already?"]] == [("scheduled", "lung")]
    assert [row["state"] for row in found["What has not arrived at its destination?"]] == ["failed"]
    (unwanted,) = found["Which series have no job, and why?"]
    assert (unwanted["source_ae"], unwanted["instance_count"]) == ("CT3", 3)
    assert "slices at least 5: no, 3" in unwanted["reason"]
    by = {(r["source_ae"], r["completed"], r["failed"]) for r in found["How much was done each day?"]}
    assert by == {("CT1", 1, 0), ("CT2", 0, 1)}
    (peer,) = found["Who sends, and with which software?"]  # all of it came by one association
    assert (peer["calling_ae"], peer["implementation"], peer["associations"]) == ("CT1", "TEST", 1)
    (latency,) = found["Median and 95th percentile of all models, last week"]
    assert (latency["scanner"], latency["jobs"]) == ("CT scanner 1", 1)
    assert latency["work_median_s"] == latency["work_p95_s"] == latency["work_longest_s"] >= 0

    with transaction(node.engine) as tx:
        timed = tx.execute(text("SELECT * FROM v_job WHERE source_ae = 'CT1'")).one()
        step = tx.execute(text("SELECT step, seconds FROM v_job_step")).one()
        attempts = tx.execute(text("SELECT outcome FROM v_attempt ORDER BY started_at")).all()
    assert all(0 <= timed._mapping[name] < 60 for name in ("receive_s", "settle_s", "queue_s", "work_s"))
    assert timed.deliver_s is None
    assert tuple(step) == ("infer", 1.5)
    assert [row.outcome for row in attempts] == ["completed", "failed"]
    assert timed.series_instance_uid == dcmread(paths[0]).SeriesInstanceUID


def test_a_reader_reads_the_views_after_an_upgrade_too_and_nothing_else(postgresql_url: str) -> None:
    migrate.upgrade(postgresql_url)
    engine = open_engine(postgresql_url)
    role = 'an "odd" % reader'
    with transaction(engine) as tx:
        assert views.add_reader(tx, role, "50% secret'")
        assert not views.add_reader(tx, role, None)
    migrate.downgrade(postgresql_url, "base")
    migrate.upgrade(postgresql_url)
    with transaction(engine) as tx:
        views.add_reader(tx, role, None)
    migrate.upgrade(postgresql_url)
    engine.dispose()
    reading = create_engine(make_url(postgresql_url).set(drivername="postgresql+psycopg", username=role))
    with reading.begin() as tx:
        for name in views.names():
            tx.execute(text(f"SELECT * FROM {name}"))
    for forbidden in ("SELECT * FROM job", "UPDATE v_node SET state = 'dead'", "CREATE TABLE mine (x int)"):
        with pytest.raises(DBAPIError, match=r"denied|read-only"), reading.begin() as tx:
            tx.execute(text(forbidden))
    reading.dispose()


def test_sqlite_has_no_readers(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'node.db'}")
    with pytest.raises(ConfigurationError, match="mode=ro"), transaction(engine) as tx:
        views.add_reader(tx, "analyst", None)
    engine.dispose()
