"""Jobs on several series of a study: when they are made, of which series, and what is said when one is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from itertools import permutations
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import delete, func, select, update

from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from dicom_node.db import retention
from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine, transaction, utc_now
from dicom_node.db.retention import Kind
from dicom_node.domain.model import Accepts
from dicom_node.domain.rule import Condition, Operator, Role, Rule
from dicom_node.errors import ConflictError
from tests.integration.operated import CARD, Operated, operated
from tests.mr import Study
from tests.peers.validators import problems
from tests.stored import sender, store_files
from tests.unit.results.test_sr import items

MR = Condition("Modality", Operator.ONE_OF, ("MR",))
CONTRAST, PLAIN = (Condition("ContrastBolusAgent", Operator.EXISTS, (given,)) for given in (True, False))


def role(name: str, *conditions: Condition) -> Role:
    return Role(name, (Condition("SeriesDescription", Operator.CONTAINS, (name.rstrip("c").lower(),)), *conditions))


BRATS = Rule(
    "brats", "brats", ("pacs",), (MR,),
    inputs=(role("T1c", CONTRAST), role("T1", PLAIN), role("T2"), role("FLAIR")), wait_s=1800,
)  # fmt: skip
MODEL = replace(CARD, name="brats", accepts=Accepts(("MR",)))
CATALOG = Catalog((BRATS,), {"brats": MODEL, "lung": CARD}, {})
DESCRIPTIONS = {"T1c": "t1 mprage +Gd", "T1": "t1 mprage", "T2": "t2 tse", "FLAIR": "flair"}


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Operated]:
    with operated(database_url, tmp_path) as made:
        made.catalog = CATALOG
        yield made


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    home = tmp_path_factory.mktemp("lite")
    with operated(f"sqlite:///{home / 'node.db'}", home) as made:
        yield made


@pytest.fixture
def lite(on_sqlite: Operated) -> Operated:
    """A node on SQLite that other tests use, each with a study of its own: what is tested holds on any database."""
    on_sqlite.catalog = CATALOG
    return on_sqlite


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Operated]:
    """A node on SQLite with one study."""
    with operated(f"sqlite:///{tmp_path / 'node.db'}", tmp_path) as made:
        made.catalog = CATALOG
        yield made


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "mr")


def series(study: Study, name: str, **how: Any) -> list[Path]:
    return study.series(DESCRIPTIONS[name], contrast=name == "T1c", **how)


def uid(paths: list[Path]) -> str:
    return str(dcmread(paths[0]).SeriesInstanceUID)


def inputs(node: Operated, job_id: str) -> dict[str, str]:
    """Series Instance UID of each role of a job, in order."""
    query = (
        select(t.job_input.c.role, t.series.c.series_instance_uid)
        .join(t.series, t.series.c.id == t.job_input.c.series_id)
        .where(t.job_input.c.job_id == job_id)
        .order_by(t.job_input.c.position)
    )
    with transaction(node.engine) as tx:
        return {row.role: row.series_instance_uid for row in tx.execute(query)}


def jobs(node: Operated, study: Study) -> list[Any]:
    of_study = select(t.series.c.id).join(t.study).where(t.study.c.study_instance_uid == study.uid)
    with transaction(node.engine) as tx:
        found = select(t.job).where(t.job.c.series_id.in_(of_study))
        return list(tx.execute(found.order_by(t.job.c.created_at, t.job.c.run_no)))


def waits(node: Operated, study: Study) -> bool:
    with transaction(node.engine) as tx:
        query = select(t.study_wait).join(t.study).where(t.study.c.study_instance_uid == study.uid)
        return tx.execute(query).first() is not None


def wait_out(node: Operated) -> None:
    """As if everybody had waited long enough; then the sweep."""
    with transaction(node.engine) as tx:
        tx.execute(update(t.study_wait).values(until=utc_now() - timedelta(seconds=1)))
    sweep(node)


def sweep(node: Operated) -> None:
    Assembler(node.settings, node.catalog, node.engine, node.enqueuer, node.spool).sweep()


def events(node: Operated, event: str) -> int:
    with transaction(node.engine) as tx:
        return tx.scalar(select(func.count()).where(t.audit_event.c.event == event)) or 0


def test_one_job_is_made_when_every_role_is_filled_whatever_came_first(lite: Operated, tmp_path: Path) -> None:
    for number, order in enumerate(list(permutations(DESCRIPTIONS))[::9]):
        study = Study(tmp_path / f"mr{number}")
        sent = {name: series(study, name) for name in DESCRIPTIONS}
        localizer = study.series("localizer", slices=3)
        for name in order[:3]:
            lite.receive(sent[name])
        lite.receive(localizer)
        assert jobs(lite, study) == []
        lite.receive(sent[order[3]])
        (job,) = jobs(lite, study)
        assert job.state == "scheduled"
        assert inputs(lite, job.id) == {name: uid(sent[name]) for name in DESCRIPTIONS}
        assert [one.role for one in lite.claim(job.id).inputs] == list(DESCRIPTIONS)
    assert not waits(lite, study)


def test_a_missing_series_is_waited_for_and_then_told_and_made_up_for(node: Operated, study: Study) -> None:
    for name in ("T1", "T1c", "T2"):
        node.receive(series(study, name))
    assert jobs(node, study) == []
    told = node.told(study.uid)
    assert "rule brats: it fills T2; FLAIR is waited for until " in told
    sweep(node)
    assert jobs(node, study) == []

    wait_out(node)
    (failed,) = jobs(node, study)
    assert (failed.state, failed.failure, failed.report) == ("failed", "not eligible", "due")
    assert failed.error == "Rule brats waited 1800 s for all its series: no series of the study fits FLAIR."
    assert list(inputs(node, failed.id)) == ["T1c", "T1", "T2"]
    assert "No result of brats: Rule brats waited 1800 s" in node.told(study.uid)
    sweep(node)
    assert events(node, "series of a study missing") == 3

    flair = series(study, "FLAIR")
    node.receive(flair)
    first, job = jobs(node, study)
    assert first.id == failed.id
    assert (job.state, job.supersedes) == ("scheduled", failed.id)
    assert inputs(node, job.id)["FLAIR"] == uid(flair)
    assert jobs(node, study)[0].report == "canceled"  # nobody is told "not analysed" beside the result


def test_not_analysed_lists_every_series_that_was_there_and_says_which_was_not(lite: Operated, study: Study) -> None:
    sent = {name: series(study, name) for name in ("T1", "T1c", "T2")}
    for paths in sent.values():
        lite.receive(paths)
    wait_out(lite)
    (failed,) = jobs(lite, study)

    lite.report(failed.id)

    with transaction(lite.engine) as tx:
        path = tx.scalars(select(t.result.c.path).where(t.result.c.job_id == failed.id)).one()
    data = lite.spool.path(path).read_bytes()
    sr = dcmread(BytesIO(data))
    (listed,) = sr.CurrentRequestedProcedureEvidenceSequence
    assert {item.SeriesInstanceUID: uids_in(item) for item in listed.ReferencedSeriesSequence} == {
        uid(paths): {dcmread(path).SOPInstanceUID for path in paths} for paths in sent.values()
    }
    (comment,) = items(sr, "Comment")
    assert "waited 1800 s for all its series: no series of the study fits FLAIR. No model was run." in comment.TextValue
    counts = {name: len(paths) for name, paths in sent.items()}
    said = ", ".join(f"{counts[name]} of the series for {name} ({DESCRIPTIONS[name]})" for name in ("T1c", "T1", "T2"))
    assert f"{sum(counts.values())} instances were received: {said}." in comment.TextValue
    assert len([*items(sr, "Image Library Group")]) == 3
    assert problems(data, sources=[path for paths in sent.values() for path in paths]) == []


def uids_in(listed: Dataset) -> set[str]:
    return {str(item.ReferencedSOPInstanceUID) for item in listed.ReferencedSOPSequence}


def test_a_rule_that_tells_nobody_leaves_the_reason_and_no_job(lite: Operated, study: Study) -> None:
    lite.catalog = replace(lite.catalog, rules=(replace(BRATS, report_failures=False),))
    only = series(study, "T2")
    lite.receive(only)
    wait_out(lite)
    assert jobs(lite, study) == []
    assert "no series of the study fits T1c; no series of the study fits T1;" in lite.told(study.uid)
    with transaction(lite.engine) as tx:
        reason = tx.scalar(select(t.series.c.no_job_reason).where(t.series.c.series_instance_uid == uid(only)))
    assert "rule brats waited 1800 s for all its series" in str(reason)
    assert not waits(lite, study)


def test_a_series_that_is_no_volume_fills_nothing_and_is_named(lite: Operated, study: Study) -> None:
    gap = series(study, "FLAIR", change=lambda number, ds: None if number == 3 else ds)
    for paths in (gap, *(series(study, name) for name in ("T1", "T1c", "T2"))):
        lite.receive(paths)
    assert jobs(lite, study) == []
    wait_out(lite)
    (failed,) = jobs(lite, study)
    assert f"series {uid(gap)}, which fits FLAIR, is no volume (" in failed.error
    again = series(study, "FLAIR", at="110000")
    lite.receive(again)
    assert inputs(lite, jobs(lite, study)[-1].id)["FLAIR"] == uid(again)


def test_a_repeat_takes_the_place_of_what_it_repeats(node: Operated, study: Study) -> None:
    sent = {name: series(study, name) for name in DESCRIPTIONS}
    for paths in sent.values():
        node.receive(paths)
    (first,) = jobs(node, study)
    repeat = series(study, "T2", at="113000")
    node.receive(repeat)
    first, second = jobs(node, study)
    assert (first.state, second.state, second.supersedes) == ("canceled", "scheduled", first.id)
    assert inputs(node, second.id) == {name: uid(sent[name]) for name in DESCRIPTIONS} | {"T2": uid(repeat)}
    assert f"rule brats: it fits T2, but series {uid(repeat)} was preferred" in node.told(uid(sent["T2"]))
    assert "No result of brats yet" in node.told(uid(repeat))

    taken = f"job {second.id} has taken the place of job {first.id}"
    with pytest.raises(ConflictError, match=taken):
        node.retry(first.id)


def test_late_slices_of_any_input_make_a_new_job_and_stop_the_old(lite: Operated, study: Study) -> None:
    late = series(study, "T2", slices=8)
    lite.receive(late[:6])
    for name in ("T1", "T1c", "FLAIR"):
        lite.receive(series(study, name))
    lite.receive(late[6:])
    old, new = jobs(lite, study)
    assert (old.state, new.state) == ("canceled", "scheduled")
    with transaction(lite.engine) as tx:
        of_t2 = select(t.job_input).where(t.job_input.c.role == "T2", t.job_input.c.job_id.in_([old.id, new.id]))
        used = {row.series_revision: len(row.slices) for row in tx.execute(of_t2)}
    assert used == {1: 6, 2: 8}


def test_a_series_that_becomes_unfit_stops_the_job_that_uses_it(lite: Operated, study: Study) -> None:
    flair = series(study, "FLAIR", slices=8)
    for paths in (*(series(study, name) for name in ("T1", "T1c", "T2")), flair[:5]):
        lite.receive(paths)
    lite.receive(flair[6:])  # with one of them missing
    (job,) = jobs(lite, study)
    assert job.state == "canceled"
    wait_out(lite)
    assert "is no volume" in jobs(lite, study)[-1].error
    lite.receive(flair[5:6])
    assert jobs(lite, study)[-1].state == "scheduled"


def test_the_same_images_again_change_nothing(lite: Operated, study: Study) -> None:
    sent = [series(study, name) for name in DESCRIPTIONS]
    for paths in [*sent, *sent]:
        lite.receive(paths)
    study.series("dwi")
    lite.receive(study.series("dwi"))
    assert [job.state for job in jobs(lite, study)] == ["scheduled"]


def test_what_still_arrives_is_waited_for_but_not_for_ever(lite: Operated, study: Study) -> None:
    arriving = series(study, "T1c", spacing_mm=(1.0, 1.5, 1.5))
    store_files(lite.engine, lite.spool, arriving[:3], quiet_s=3600, by=sender("MR1", "b" * 36))
    for name in DESCRIPTIONS:
        lite.receive(series(study, name))
    assert jobs(lite, study) == []
    assert "what else of the study is on its way is waited for until" in lite.told(study.uid)
    wait_out(lite)
    (job,) = jobs(lite, study)
    assert inputs(lite, job.id)["T1c"] != uid(arriving)
    store_files(lite.engine, lite.spool, arriving[3:], quiet_s=0.0)
    sweep(lite)
    assert inputs(lite, jobs(lite, study)[-1].id)["T1c"] == uid(arriving)


def test_two_nodes_that_sweep_at_once_decide_once(node: Operated, study: Study) -> None:
    for name in ("T1", "T2"):
        node.receive(series(study, name))
    with transaction(node.engine) as tx:
        tx.execute(update(t.study_wait).values(until=utc_now() - timedelta(seconds=1)))
    both = together(node, lambda assembler: assembler.sweep())
    assert both == [0, 0]
    assert len(jobs(node, study)) == 1
    assert events(node, "series of a study missing") == 2


def test_the_last_two_series_closed_at_once_on_two_nodes_make_one_job(node: Operated, study: Study) -> None:
    for name in ("T1", "T2"):
        node.receive(series(study, name))
    for number, name in enumerate(("T1c", "FLAIR")):
        by = sender("MR1", str(number) * 36)
        store_files(node.engine, node.spool, series(study, name), quiet_s=0.0, by=by)
    assert sum(together(node, lambda assembler: assembler.sweep())) == 2
    (job,) = jobs(node, study)
    assert list(inputs(node, job.id)) == list(DESCRIPTIONS)


def together(node: Operated, act: Callable[[Assembler], int]) -> list[int]:
    """Two nodes on one database, each with connections of its own, at the same moment."""
    start = Barrier(2)

    def one(_: int) -> int:
        engine = open_engine(node.settings.database.url)
        try:
            assembler = Assembler(node.settings, node.catalog, engine, node.enqueuer, node.spool)
            start.wait()
            return act(assembler)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(2) as nodes:
        return list(nodes.map(one, range(2)))


def test_a_rule_that_is_gone_ends_the_wait(lite: Operated, study: Study) -> None:
    lite.receive(series(study, "T1"))
    lite.catalog = replace(lite.catalog, rules=())
    wait_out(lite)
    assert jobs(lite, study) == []
    assert "rule brats, which it could have been used for, is no more" in lite.told(study.uid)


def test_images_stay_while_their_study_waits_and_a_deleted_study_leaves_nothing(alone: Operated, study: Study) -> None:
    alone.catalog = replace(alone.catalog, rules=(replace(BRATS, report_failures=False),))
    for name in ("T1", "T2"):
        alone.receive(series(study, name))
    with transaction(alone.engine) as tx:
        assert [retention.due_images(tx, kind, None, 10) for kind in Kind] == [[], [], []]
    wait_out(alone)
    with transaction(alone.engine) as tx:
        due = retention.due_images(tx, Kind.UNMATCHED, None, 10)
    assert len(due) == 2
    with transaction(alone.engine) as tx:
        for series_id in due:
            assert retention.delete_images(tx, series_id, Kind.UNMATCHED, None, "test")
        later = utc_now() + timedelta(days=1)
        assert all(retention.delete_rows(tx, series_id, later) for series_id in due)
        assert not any(tx.scalar(select(func.count()).select_from(one)) for one in (t.study, t.series_role))


def test_jobs_of_a_study_can_be_deleted_although_each_takes_the_place_of_another(alone: Operated, study: Study) -> None:
    """The first of them names another series: its row goes with that one."""
    for name in ("T2", "FLAIR"):
        alone.receive(series(study, name))
    wait_out(alone)
    for name in ("T1", "T1c"):
        alone.receive(series(study, name))
    failed, job = jobs(alone, study)
    assert failed.series_id != job.series_id
    assert job.supersedes == failed.id
    with transaction(alone.engine) as tx:
        tx.execute(update(t.job).values(state="canceled", report=None))
        tx.execute(delete(t.instance))
        tx.execute(update(t.series).values(images_deleted_at=utc_now()))
        later = utc_now() + timedelta(days=1)
        while due := retention.due_rows(tx, later, 10):
            assert any(retention.delete_rows(tx, series_id, later) for series_id in due)
        assert tx.scalar(select(func.count()).select_from(t.series)) == 0


def test_the_best_series_of_a_study_can_be_chosen_for_a_model_of_one(lite: Operated, study: Study) -> None:
    best = Rule("best", "lung", ("pacs",), (), inputs=(Role("image", (MR,)),), wait_s=60)
    lite.catalog = replace(lite.catalog, rules=(best,))
    for mm in (5.0, 1.0, 3.0):
        paths = study.series("t1", spacing_mm=(mm, 1.5, 1.5))
        store_files(lite.engine, lite.spool, paths, quiet_s=0.0, by=sender("MR1", f"{mm}" * 12))
    sweep(lite)
    (job,) = jobs(lite, study)
    (chosen,) = inputs(lite, job.id).values()
    with transaction(lite.engine) as tx:
        verdict = tx.scalar(select(t.series.c.verdict).where(t.series.c.series_instance_uid == chosen))
    assert verdict is not None
    assert verdict["slice_spacing_mm"] == 1.0
    assert job.priority == 10


def test_an_urgent_order_raises_the_priority(lite: Operated, study: Study) -> None:
    def stat(number: int, ds: Dataset) -> Dataset:
        ds.RequestedProcedurePriority = "STAT"
        return ds

    for name in DESCRIPTIONS:
        lite.receive(series(study, name, **({"change": stat} if name == "T2" else {})))
    assert [job.priority for job in jobs(lite, study)] == [1]
