"""A report names as its predecessor what somebody was sent, however many jobs lie between."""

from __future__ import annotations

from sqlalchemy import update

from dicom_node import explain
from dicom_node.db import tables as t
from dicom_node.db.results import documents_before
from tests.integration.deliver.rows import deliveries
from tests.integration.deliver.site import Site


def test_predecessors_are_the_reports_that_were_sent_of_the_last_job_with_any(each_site: Site) -> None:
    site = each_site
    first, second, third = (site.results("pacs", "other") for _ in range(3))
    with site.engine.begin() as tx:
        for job, before in ((second, first), (third, second)):
            tx.execute(update(t.job).where(t.job.c.id == job).values(supersedes=before))
        assert documents_before(tx, None) == ()
        assert documents_before(tx, third) == ()  # none of them left this machine
        tx.execute(update(t.delivery).where(t.delivery.c.job_id == first).values(state="delivered"))
        [document] = documents_before(tx, third)
    [_, report] = deliveries(site.engine, first)
    assert (document.kind, document.sop_instance_uid) == ("sr", report.sop_instance_uid)
    with site.engine.begin() as tx:
        tx.execute(update(t.delivery).where(t.delivery.c.job_id == second).values(state="canceled"))
        assert documents_before(tx, third) == (document,)
        one = (t.delivery.c.job_id == third, t.delivery.c.destination == "other")
        tx.execute(update(t.delivery).where(*one).values(state="sending"))
        [newest] = documents_before(tx, third)
    assert newest.sop_instance_uid == deliveries(site.engine, third)[1].sop_instance_uid


def test_what_a_report_replaces_is_told(site: Site) -> None:
    job = site.results()
    with site.engine.begin() as tx:
        told = {"replaces": {"sr": "1.2.3"}}
        tx.execute(update(t.result).where(t.result.c.job_id == job, t.result.c.kind == "sr").values(summary=told))
        [story] = explain.explain(tx, job)
    assert any("takes the place of the report 1.2.3" in line.text for line in story.lines)
