"""A job that fails is reported once to those who waited for it, whoever dies, cancels or comes late in between."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import func, select, update

from dicom_node import operate
from dicom_node.db import jobs, reports
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.db.profiles import write_profile
from dicom_node.db.reconcile import give_back, unfinished
from dicom_node.domain.delivery import DimseDestination, Sent
from dicom_node.domain.job import Succeeded
from dicom_node.domain.model import OutputKind
from dicom_node.domain.profile import EXPLICIT, OFFERS, Profile
from dicom_node.domain.rule import Condition, Operator
from dicom_node.domain.uids import AETitle, result_uid
from dicom_node.errors import ConflictError, DeliveryError
from dicom_node.results import equipment_of
from dicom_node.work.report import write_report
from tests.ct import small_ct
from tests.integration.operated import Operated, made_by, operated

JPEG_2000 = Path(__file__).parents[2] / "data" / "transfer_syntaxes" / "1.2.840.10008.1.2.4.90.dcm"
CT_ONLY = (Condition("Modality", Operator.ONE_OF, ("CT",)),)


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Operated]:
    """On SQLite and on PostgreSQL."""
    with operated(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Operated]:
    """On SQLite alone."""
    with operated(f"sqlite:///{tmp_path / 'node.db'}", tmp_path) as made:
        yield made


def receive_gap(node: Operated, folder: Path) -> tuple[str, list[Path]]:
    """A series without its slice 4; its refused job, and all the files."""
    paths = small_ct(folder, slices=8)
    node.receive(paths[:4] + paths[5:])
    (job,) = node.jobs(state="failed")
    return job["id"], paths


def receive(node: Operated, folder: Path) -> str:
    node.receive(small_ct(folder, slices=8))
    (job,) = node.jobs(state="scheduled")
    job_id: str = job["id"]
    return job_id


def rows(node: Operated, table: Any) -> int:
    with transaction(node.engine) as tx:
        return int(tx.scalar(select(func.count()).select_from(table)) or 0)


def detail(node: Operated, event: str) -> Any:
    with transaction(node.engine) as tx:
        return tx.scalars(select(t.audit_event.c.detail).where(t.audit_event.c.event == event)).all()


def test_a_refused_series_ends_with_one_report_at_the_pacs(node: Operated, tmp_path: Path) -> None:
    job_id, _ = receive_gap(node, tmp_path / "ct")
    assert "will be told when the report is written" in node.told(job_id).splitlines()[-1]
    for _ in range(2):
        node.report(job_id)
    (job,) = node.jobs()
    assert (job["state"], job["attempt"], job["failure"], job["report"]) == ("failed", 0, "not eligible", "made")
    assert [(r["kind"], r["summary"]["not_analysed"]) for r in job["results"]] == [("sr", "not eligible")]
    assert [(d["destination"], d["state"]) for d in job["deliveries"]] == [("pacs", "waiting")]
    assert rows(node, t.job_attempt) == 0, "no model ran"
    sr = dcmread(node.spool.path(job["results"][0]["path"]))
    assert sr.SOPInstanceUID == result_uid(job_id, "sr")
    assert job["error"] in sr.to_json()
    node.send(DeliveryError("no connection", retry=True))
    assert "pacs is not yet told: no deliverer is alive" in node.told(job_id).splitlines()[-1]
    node.send(Sent(0))
    assert "pacs was told at " in node.told(job_id).splitlines()[-1]
    assert f"report of failed job {job_id[:8]} made" in node.told(job_id)


def test_a_job_whose_last_attempt_failed_is_reported_with_its_attempts(node: Operated, tmp_path: Path) -> None:
    job_id = receive(node, tmp_path / "ct")
    node.fail(job_id)
    node.report(job_id)
    (job,) = node.jobs()
    assert (job["state"], job["attempt"], job["failure"], job["report"]) == ("failed", 1, "failed", "made")
    sr = dcmread(node.spool.path(job["results"][0]["path"]))
    assert sr.SeriesDescription.startswith("NOT ANALYSED (failed)")
    assert "The model lung crashed. 1 attempt ended without a result." in sr.to_json()


def test_a_job_whose_worker_died_for_the_last_time_is_reported(node: Operated, tmp_path: Path) -> None:
    job_id = receive(node, tmp_path / "ct")
    with transaction(node.engine) as tx:
        tx.execute(update(t.job).values(max_attempts=1))
    node.claim(job_id)
    with transaction(node.engine) as tx:
        assert jobs.claim_job(tx, job_id, "another", {}, node.enqueuer) is None
    node.report(job_id)
    (job,) = node.jobs()
    assert (job["failure"], job["report"], len(job["deliveries"])) == ("failed", "made", 1)


KILLED = """
import os, signal, sys
from pathlib import Path
from dicom_node.work.worker import Worker
from tests.integration.operated import operated
Worker._record_report = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with operated(sys.argv[1], Path(sys.argv[2])) as node:
    node.report(sys.argv[3])
"""


def test_a_worker_killed_before_it_recorded_the_report_leaves_no_twin(
    node: Operated, database_url: str, tmp_path: Path
) -> None:
    job_id, _ = receive_gap(node, tmp_path / "ct")
    arguments = [sys.executable, "-c", KILLED, database_url, str(tmp_path), job_id]
    assert subprocess.run(arguments, check=False, timeout=180).returncode == -signal.SIGKILL
    (file,) = (node.spool.root / "results" / job_id).iterdir()
    first = file.read_bytes()
    assert rows(node, t.result) == rows(node, t.delivery) == 0
    with transaction(node.engine) as tx:
        slow = reports.claim_report(tx, job_id)
    assert slow is not None
    assert slow.tried == 2
    node.report(job_id)
    made = write_report(slow, node.catalog.models, equipment_of(node.settings.node), node.spool)
    with transaction(node.engine) as tx:
        assert not reports.finish_reported(tx, slow, made, node.enqueuer), "another worker was faster"
    assert file.read_bytes() == first
    assert rows(node, t.result) == rows(node, t.delivery) == 1
    assert node.jobs()[0]["results"][0]["size"] == len(first)


def test_late_instances_take_back_what_was_not_delivered_and_leave_what_was(node: Operated, tmp_path: Path) -> None:
    job_id, paths = receive_gap(node, tmp_path / "ct")
    node.report(job_id)
    node.receive(paths[4:5])
    new, old = node.jobs()
    assert (old["report"], [d["state"] for d in old["deliveries"]]) == ("made", ["canceled"])
    assert (new["state"], new["supersedes"]) == ("scheduled", job_id)
    node.complete(new["id"])
    assert "NOT ANALYSED" not in node.told(new["id"]).splitlines()[-1]

    again, paths = receive_second_gap(node, tmp_path / "more")
    node.report(again)
    node.send(Sent(0), Sent(0), Sent(0))
    node.receive(paths[4:5])
    assert [d["state"] for d in node.jobs(job=again)[0]["deliveries"]] == ["delivered"]


def receive_second_gap(node: Operated, folder: Path) -> tuple[str, list[Path]]:
    paths = small_ct(folder, slices=8)
    node.receive(paths[:4] + paths[5:])
    job = next(job for job in node.jobs(state="failed") if not job["results"])
    return job["id"], paths


def test_a_canceled_job_tells_nobody(node: Operated, tmp_path: Path) -> None:
    refused, _ = receive_gap(node, tmp_path / "gap")
    open_job = receive(node, tmp_path / "ct")
    for job_id in (refused, open_job):
        with transaction(node.engine) as tx:
            operate.cancel(tx, job_id)
        node.report(job_id)
    assert {job["report"] for job in node.jobs()} == {"canceled", None}
    assert rows(node, t.result) == rows(node, t.delivery) == 0
    assert "Its report was canceled" in node.told(refused).splitlines()[-1]
    with transaction(node.engine) as tx, pytest.raises(ConflictError):
        operate.cancel(tx, refused)


def test_a_retry_takes_the_report_back_and_makes_new_objects(node: Operated, tmp_path: Path) -> None:
    job_id = receive(node, tmp_path / "ct")
    node.fail(job_id)
    node.report(job_id)
    new = node.retry(job_id)
    assert [d["state"] for d in node.jobs(job=job_id)[0]["deliveries"]] == ["canceled"]
    node.fail(new)
    node.report(new)
    newest, old = node.jobs()
    assert (newest["run_no"], newest["report"], newest["supersedes"]) == (2, "made", job_id)
    assert newest["results"][0]["sop_instance_uid"] != old["results"][0]["sop_instance_uid"]


def test_a_rule_that_wants_no_report_gets_none(lite: Operated, tmp_path: Path) -> None:
    silent = tuple(replace(rule, report_failures=False) for rule in lite.catalog.rules)
    lite.catalog = replace(lite.catalog, rules=silent)
    refused, _ = receive_gap(lite, tmp_path / "gap")
    lite.report(refused)
    assert (lite.jobs()[0]["report"], rows(lite, t.result)) == (None, 0)
    assert "Its rule wants no report of it." in lite.told(refused).splitlines()[-1]


def test_images_of_two_patients_are_reported_under_neither(lite: Operated, tmp_path: Path) -> None:
    def other(number: int, ds: Dataset) -> Dataset:
        ds.PatientID = "SYN-002" if number == 3 else ds.PatientID
        return ds

    lite.receive(small_ct(tmp_path / "ct", slices=8, change=other))
    (job,) = lite.jobs()
    lite.report(job["id"])
    assert (lite.jobs()[0]["report"], rows(lite, t.result)) == ("failed", 0)
    assert detail(lite, "failure not reported") == [
        {"reason": "The images name 2 patients; a report can be filed under none of them."}
    ]
    assert "Nobody was told" in lite.told(job["id"]).splitlines()[-1]


def test_a_file_that_cannot_be_read_is_passed_over_and_none_at_all_is_tried_again(
    lite: Operated, tmp_path: Path
) -> None:
    job_id, _ = receive_gap(lite, tmp_path / "ct")
    files = sorted((lite.spool.root / "instances").rglob("*.dcm"))
    for file in files:
        file.rename(file.with_suffix(".away"))
    lite.report(job_id)
    assert lite.jobs()[0]["report"] == "due"
    files[0].with_suffix(".away").rename(files[0])
    lite.report(job_id)
    assert lite.jobs()[0]["report"] == "made"


def test_an_image_whose_pixels_are_cut_off_is_reported_all_the_same(lite: Operated, tmp_path: Path) -> None:
    lite.catalog = replace(lite.catalog, rules=(replace(lite.catalog.rules[0], conditions=CT_ONLY),))
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(JPEG_2000.read_bytes()[:-1000])
    lite.receive([cut])
    (job,) = lite.jobs(state="failed")
    lite.report(job["id"])
    assert lite.jobs()[0]["report"] == "made"


def test_a_report_that_never_works_is_given_up_with_its_reason(lite: Operated, tmp_path: Path) -> None:
    job_id, _ = receive_gap(lite, tmp_path / "ct")
    for file in (lite.spool.root / "instances").rglob("*.dcm"):
        file.unlink()
    for _ in range(reports.MOST_TRIES + 1):
        lite.report(job_id)
    assert lite.jobs()[0]["report"] == "failed"
    (given_up,) = detail(lite, "failure not reported")
    assert "spool has no file" in given_up["reason"]


def test_a_report_that_kills_its_workers_is_given_up(lite: Operated, tmp_path: Path) -> None:
    job_id, _ = receive_gap(lite, tmp_path / "ct")
    with transaction(lite.engine) as tx:
        claims = [reports.claim_report(tx, job_id) for _ in range(reports.MOST_TRIES + 1)]
    assert [claim.tried for claim in claims if claim] == [*range(1, reports.MOST_TRIES + 1)]
    assert lite.jobs()[0]["report"] == "failed"


def test_a_report_that_the_engine_lost_is_given_back(node: Operated, tmp_path: Path) -> None:
    receive_gap(node, tmp_path / "ct")
    with transaction(node.engine) as tx:
        (lost,) = [one for one in unfinished(tx) if one.kind == "report"]
        assert give_back(tx, lost, node.enqueuer)
    node.report(lost.id)
    with transaction(node.engine) as tx:
        assert not give_back(tx, lost, node.enqueuer)
        assert [one for one in unfinished(tx) if one.kind == "report"] == []


def test_a_job_that_was_completed_is_never_reported(lite: Operated, tmp_path: Path) -> None:
    job_id = receive(lite, tmp_path / "ct")
    job = lite.claim(job_id)
    with transaction(lite.engine) as tx:
        assert jobs.finish_completed(tx, job, Succeeded(made_by(job_id)), lite.enqueuer)
    lite.report(job_id)
    assert lite.jobs()[0]["report"] is None
    assert rows(lite, t.result) == 2


NOWHERE = DimseDestination(
    name="pacs", host="127.0.0.1", port=104, ae_title=AETitle("PACS"), calling_ae=AETitle("AINODE")
)


def test_who_takes_no_structured_report_is_told_on_paper_or_by_a_picture(lite: Operated, tmp_path: Path) -> None:
    lite.catalog = replace(lite.catalog, destinations={"pacs": NOWHERE})
    forms: list[list[str]] = []
    for refused in ({OutputKind.SR}, {OutputKind.SR, OutputKind.PDF}):
        accepted = {o.sop_class_uid: () if refused & {*o.kinds} else (EXPLICIT,) for o in OFFERS}
        with transaction(lite.engine) as tx:
            write_profile(tx, "pacs", Profile(NOWHERE.where, datetime(2026, 11, 27, tzinfo=UTC), accepted, (), "", ""))
        job_id, _ = receive_gap(lite, tmp_path / str(len(forms)))
        lite.report(job_id)
        (job,) = [job for job in lite.jobs() if job["id"] == job_id]
        forms.append([delivery["kind"] for delivery in job["deliveries"]])
        lite.send(Sent(0))
        assert "pacs was told at " in lite.told(job_id).splitlines()[-1]
        with transaction(lite.engine) as tx:
            tx.execute(update(t.job).values(state="canceled"))
    assert forms == [["pdf"], ["sc"]]


def test_who_was_never_asked_and_refuses_the_structured_report_is_told_on_paper(lite: Operated, tmp_path: Path) -> None:
    lite.catalog = replace(lite.catalog, destinations={"pacs": NOWHERE})
    job_id, _ = receive_gap(lite, tmp_path / "ct")
    lite.report(job_id)
    lite.send(DeliveryError("no SR here", retry=False, is_refused=True), Sent(0))
    (job,) = lite.jobs()
    assert {d["kind"]: d["state"] for d in job["deliveries"]} == {"sr": "failed", "pdf": "delivered"}
    assert "pacs was told at " in lite.told(job_id).splitlines()[-1]
