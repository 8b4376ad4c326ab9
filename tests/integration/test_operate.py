"""What a person may do to a job, what forbids it, and the trace it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from sqlalchemy import select

from dicom_node import operate
from dicom_node.db import jobs
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.domain.delivery import Sent
from dicom_node.domain.job import Succeeded
from dicom_node.errors import ConfigurationError, ConflictError, DeliveryError, NotFoundError
from tests.ct import small_ct
from tests.integration.operated import Operated, made_by, operated


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Operated]:
    with operated(database_url, tmp_path) as made:
        made.receive(small_ct(tmp_path / "ct", slices=8))
        yield made


def cancel(node: Operated, job: str) -> tuple[str, bool, int]:
    with transaction(node.engine) as tx:
        return operate.cancel(tx, job, actor="operator ann")


def resend(node: Operated, job: str, destination: str = "") -> int:
    with transaction(node.engine) as tx:
        return len(operate.resend(tx, job, node.enqueuer, destination=destination, actor="operator ann"))


def enqueued(node: Operated) -> set[str]:
    schema = "dbos." if node.engine.dialect.name == "postgresql" else ""
    with transaction(node.engine) as tx:
        return set(tx.exec_driver_sql(f"SELECT workflow_uuid FROM {schema}workflow_status").scalars())


def actors(node: Operated, event: str) -> list[str]:
    with transaction(node.engine) as tx:
        return list(tx.scalars(select(t.audit_event.c.actor).where(t.audit_event.c.event == event)))


def test_retry_makes_a_new_run_that_leaves_the_old_one_as_it_is(node: Operated) -> None:
    (job,) = node.jobs()
    node.complete(job["id"])
    new = node.retry(job["id"][:8])
    newest, old = node.jobs()
    assert (newest["id"], newest["run_no"], newest["state"], newest["supersedes"]) == (new, 2, "scheduled", job["id"])
    assert (old["id"], old["state"], len(old["results"])) == (job["id"], "completed", 2)
    assert f"job/{new}/1" in enqueued(node)
    assert actors(node, "operator asked for a retry") == ["operator ann"]
    node.complete(new)
    uids = [r["sop_instance_uid"] for j in node.jobs() for r in j["results"]]
    assert len(set(uids)) == 4, "the new run's results have UIDs of their own"
    assert node.retry(new) != new


def test_retry_takes_the_model_as_it_is_now(node: Operated) -> None:
    (job,) = node.jobs()
    cancel(node, job["id"])
    card = replace(node.catalog.models["lung"], version="2")
    node.catalog = replace(node.catalog, models={"lung": card})
    node.retry(job["id"])
    assert (node.jobs()[0]["model_version"], node.jobs()[0]["run_no"]) == ("2", 1)


def test_retry_is_refused_while_the_job_may_still_end_by_itself(node: Operated) -> None:
    (job,) = node.jobs()
    with pytest.raises(ConflictError, match="is scheduled"):
        node.retry(job["id"])
    cancel(node, job["id"])
    node.retry(job["id"])
    with pytest.raises(ConflictError, match="already"):
        node.retry(job["id"])
    node.catalog = replace(node.catalog, models={})
    with pytest.raises(ConfigurationError, match="no longer has"):
        node.retry(job["id"])


def test_retry_is_refused_where_it_cannot_help(node: Operated, tmp_path: Path) -> None:
    def gap(number: int, ds: Dataset) -> Dataset | None:
        return None if number == 4 else ds

    node.receive(small_ct(tmp_path / "gap", slices=8, change=gap))
    (refused,) = node.jobs(state="failed")
    with pytest.raises(ConflictError, match=r"cannot run: .*gap"):
        node.retry(refused["id"])

    (job,) = node.jobs(state="scheduled")
    node.complete(job["id"])
    late = dcmread(tmp_path / "ct" / "007.dcm")
    late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    late.ImagePositionPatient[2] += 2.5
    late.save_as(tmp_path / "late.dcm")
    node.receive([tmp_path / "late.dcm"])
    with pytest.raises(ConflictError, match="saw revision 1 of its series, which is at revision 2"):
        node.retry(job["id"])


def test_cancel_takes_a_running_job_from_its_worker(node: Operated) -> None:
    (job,) = node.jobs()
    running = node.claim(job["id"])
    assert cancel(node, job["id"]) == (job["id"], True, 0)
    with transaction(node.engine) as tx:
        assert not jobs.attempt_is_current(tx, running)
        assert not jobs.finish_completed(tx, running, Succeeded(made_by(job["id"])), node.enqueuer)
    (canceled,) = node.jobs()
    assert (canceled["state"], canceled["results"]) == ("canceled", [])
    assert actors(node, "job canceled") == actors(node, "operator asked for a cancel") == ["operator ann"]
    with pytest.raises(ConflictError, match="nothing to cancel"):
        cancel(node, job["id"])


def test_cancel_and_resend_of_what_waits_to_be_sent(node: Operated) -> None:
    (job,) = node.jobs()
    node.complete(job["id"])
    assert cancel(node, job["id"]) == (job["id"], False, 2)
    assert {d["state"] for d in node.jobs()[0]["deliveries"]} == {"canceled"}
    assert resend(node, job["id"]) == 2
    node.send(Sent(0), Sent(0))
    assert [(d["kind"], d["state"]) for d in node.jobs()[0]["deliveries"]] == [
        ("seg", "delivered"),
        ("sr", "delivered"),
    ]
    assert resend(node, job["id"], "pacs") == 2


def test_resend_takes_up_a_delivery_that_failed(node: Operated) -> None:
    (job,) = node.jobs()
    with pytest.raises(NotFoundError, match="has no deliveries"):
        resend(node, job["id"])
    node.complete(job["id"])
    node.send(DeliveryError("refused", retry=False, status=0xC000))
    assert resend(node, job["id"]) == 2
    node.send(Sent(0), Sent(0))
    assert {d["state"] for d in node.jobs()[0]["deliveries"]} == {"delivered"}
    with pytest.raises(NotFoundError, match="for elsewhere"):
        resend(node, job["id"], "elsewhere")


@pytest.mark.parametrize("text", ["", "%", "ffffffff-0000"])
def test_an_unknown_job_is_an_error(node: Operated, text: str) -> None:
    for act in (Operated.retry, cancel, resend):
        with pytest.raises(NotFoundError):
            act(node, text)
