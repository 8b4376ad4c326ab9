"""A report names as its predecessor what somebody was sent, however many jobs lie between."""

from __future__ import annotations

from sqlalchemy import update

from dicom_node import explain
from dicom_node.db import tables as t
from dicom_node.db.results import documents_before, found_before
from dicom_node.domain.finding import Tracked
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


def test_what_was_detected_is_read_from_all_jobs_before_as_it_was_seen_last(each_site: Site) -> None:
    site = each_site
    first, second = site.results(), site.results()
    jobs = {first: ("2.25.1", "2.25.2"), second: ("2.25.2",)}
    with site.engine.begin() as tx:
        tx.execute(update(t.job).where(t.job.c.id == second).values(supersedes=first))
        for number, (job, uids) in enumerate(jobs.items()):
            extent = [[number, 0, 0.5], [number + 9, 9, 9]]
            segments = [{"output": "nodule/3", "tracking_uid": uid, "extent_mm": extent} for uid in uids]
            told = {"segments": [{"label": "Left lung"}, *segments]}
            tx.execute(update(t.result).where(t.result.c.job_id == job).values(summary=told))
        assert found_before(tx, None) == ()
        assert found_before(tx, second) == (
            Tracked("nodule", "2.25.2", ((1, 0, 0.5), (10, 9, 9))),
            Tracked("nodule", "2.25.1", ((0, 0, 0.5), (9, 9, 9))),
        )
