"""What a PACS took is proven, sent again where it is missing, and told honestly where the PACS does not say."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import update

from dicom_node.db import tables as t
from dicom_node.domain.model import OutputKind
from tests.integration.deliver.archive import Archive
from tests.integration.deliver.peer import MakeScp
from tests.integration.deliver.rows import attempts, deliveries, events, proofs
from tests.integration.deliver.site import Site
from tests.peers.orthanc import Orthanc

VERIFY = 'verify = "{}"\nverify_after_s = {}\nverify_timeout_s = {}\nverify_resends = 2'
SR = (OutputKind.SR,)


def states(site: Site, job: str, destination: str = "pacs") -> list[str]:
    return [row.state for row in proofs(site.engine, job, destination)]


def who_has(site: Site, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(site.ask("who-has", job, "--json"))
    return found


def test_orthanc_commits_itself_and_shows_what_it_took_and_what_it_lost_is_sent_again(
    site: Site, orthanc: Orthanc
) -> None:
    orthanc.know("AINODE", site.receive_port)
    more = VERIFY.format("both", 6, 60)
    site.deliverer({"pacs": orthanc.dicom_port}, ae_title=orthanc.ae, more=more)
    site.receiver()
    job = site.results()
    site.wait(lambda: site.states(job) == ["delivered", "delivered"])
    seg, sr = deliveries(site.engine, job)
    orthanc.lose(sr.sop_instance_uid)  # before anybody asks

    site.wait(lambda: states(site, job) == ["proven", "proven"], 120)
    found = proofs(site.engine, job)
    assert [proof.resent for proof in found] == [0, 1]
    assert all(proof.committed_at and proof.seen_at for proof in found)
    assert attempts(site.engine, sr.id) == [(1, "delivered", 0x0000), (2, "delivered", 0x0000)]
    assert "lost by the destination, sent again" in events(site.engine, sr.id)
    assert orthanc.held() == sorted([seg.sop_instance_uid, sr.sop_instance_uid])

    holders = who_has(site, job)
    assert [(one["kind"], one["destination"], one["proof"], one["here"]) for one in holders] == [
        ("seg", "pacs", "proven", True),
        ("sr", "pacs", "proven", True),
    ]
    assert all(one["committed_at"] and one["seen_at"] for one in holders)
    with site.engine.begin() as tx:  # no worker is there to end it
        tx.execute(update(t.job).where(t.job.c.id == job).values(state="completed"))
    story = site.ask("explain", job)
    assert "SR is missing at pacs: the destination does not commit itself to it: 0x0112" in story
    assert "SEG proven by pacs: committed and seen" in story
    assert story.strip().endswith(", committed to and seen there.")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same association", "new association"])
def test_report_of_commitment_counts_on_whichever_association_it_comes(site: Site, elsewhere: bool) -> None:
    with Archive(loses=1, reports_to=site.receive_port if elsewhere else 0) as peer:
        site.deliverer({"pacs": peer.port}, more=VERIFY.format("commitment", 0.2, 30))
        site.receiver()
        job = site.results(kinds=SR)
        site.wait(lambda: states(site, job) == ["proven"])
        [proof] = proofs(site.engine, job)
        assert proof.resent == 1, "the first copy was lost"
        assert len(peer.asked) == len(set(peer.asked)) == 2
        assert peer.held == [deliveries(site.engine, job)[0].sop_instance_uid]


def test_object_lost_after_it_was_accepted_is_found_missing_and_sent_again_and_no_other_is(site: Site) -> None:
    with Archive(loses=1) as peer:
        site.deliverer({"pacs": peer.port}, more=VERIFY.format("query", 0.3, 0.6))
        job = site.results()
        site.wait(lambda: states(site, job) == ["proven", "proven"])
        seg, sr = deliveries(site.engine, job)
        assert peer.stored == [seg.sop_instance_uid, sr.sop_instance_uid, seg.sop_instance_uid]
        assert sorted(peer.held) == sorted([seg.sop_instance_uid, sr.sop_instance_uid])


def test_destination_that_loses_everything_gets_no_endless_copies_and_holds_up_no_other(site: Site) -> None:
    with ExitStack() as stack:
        bad = stack.enter_context(Archive(loses=1000))
        good = stack.enter_context(Archive())
        site.deliverer({"bad": bad.port, "good": good.port}, more=VERIFY.format("query", 0.2, 0.4))
        job = site.results("bad", "good", kinds=SR)
        site.wait(lambda: states(site, job, "bad") == ["failed"])
        [sr] = deliveries(site.engine, job, "bad")
        assert bad.stored == 3 * [sr.sop_instance_uid]  # as asked for: verify_resends = 2
        [proof] = proofs(site.engine, job, "bad")
        assert "a query does not find it" in proof.said
        assert events(site.engine, sr.id)[-1] == "delivery not proven"
        assert states(site, job, "good") == ["proven"]
        assert good.stored == [sr.sop_instance_uid]


def test_destination_that_cannot_be_asked_is_believed_and_the_lack_of_proof_is_told(site: Site, scp: MakeScp) -> None:
    peer = scp()
    site.deliverer({"pacs": peer.port}, more=VERIFY.format("both", 0.2, 0.4))
    job = site.results(kinds=SR)
    site.wait(lambda: states(site, job) == ["no answer"])
    [proof] = proofs(site.engine, job)
    assert "does not take Study Root Query/Retrieve Information Model - FIND" in proof.said
    assert len(peer.stored) == 1
