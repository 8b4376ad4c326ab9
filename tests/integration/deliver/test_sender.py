"""Delivering processes, killed and restarted, to peers that are down, busy or refuse; on both databases."""

from __future__ import annotations

import threading
import time

from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import evt
from pynetdicom.pdu import P_DATA_TF

from dicom_node.db.deliveries import resend
from dicom_node.domain.model import OutputKind
from tests.integration.deliver.peer import MakeScp, Scp
from tests.integration.deliver.rows import attempts, deliveries, events
from tests.integration.deliver.site import Site
from tests.node import free_port
from tests.peers.orthanc import Orthanc


def test_results_arrive_at_orthanc_the_seg_first_once_it_is_up_and_resending_makes_no_twin(
    each_site: Site, orthanc: Orthanc
) -> None:
    site = each_site
    orthanc.stop()
    site.deliverer({"pacs": orthanc.dicom_port})
    job = site.results()
    seg, sr = deliveries(site.engine, job)
    site.wait(lambda: len(attempts(site.engine, seg.id)) > 2)
    assert "no connection to pacs" in deliveries(site.engine, job)[0].last_error
    assert attempts(site.engine, sr.id) == []

    orthanc.start()
    site.wait(lambda: site.states(job) == ["delivered", "delivered"])
    assert orthanc.held() == sorted([seg.sop_instance_uid, sr.sop_instance_uid])
    assert attempts(site.engine, sr.id) == [(1, "delivered", 0x0000)]
    assert events(site.engine, seg.id)[-3:] == ["delivery failed, will retry", "delivery started", "delivered"]

    with site.engine.begin() as tx:
        resend(tx, [seg.id, sr.id], site.enqueuer)
    site.wait(lambda: len(attempts(site.engine, sr.id)) == 2 and site.states(job) == ["delivered", "delivered"])
    assert orthanc.held() == sorted([seg.sop_instance_uid, sr.sop_instance_uid])


def test_dead_destination_holds_up_no_other(site: Site, scp: MakeScp) -> None:
    peer = scp()
    site.deliverer({"dead": free_port(), "pacs": peer.port})
    jobs = [site.results("dead", "pacs") for _ in range(3)]
    site.wait(lambda: all(site.states(job) == ["delivered", "delivered"] for job in jobs))
    assert all(site.states(job, "dead") in (["waiting", "waiting"], ["sending", "waiting"]) for job in jobs)


def test_busy_peer_is_tried_until_it_takes_the_object(site: Site, scp: MakeScp) -> None:
    peer = scp(statuses=[0xA700, 0xA700, 0x0000])
    site.deliverer({"pacs": peer.port})
    job = site.results(kinds=(OutputKind.SR,))
    site.wait(lambda: site.states(job) == ["delivered"])
    [sr] = deliveries(site.engine, job)
    assert attempts(site.engine, sr.id) == [(1, "retry", 0xA700), (2, "retry", 0xA700), (3, "delivered", 0x0000)]
    assert peer.stored == [sr.sop_instance_uid]


def test_refused_seg_fails_with_the_reason_and_the_sr_goes_all_the_same(site: Site, scp: MakeScp) -> None:
    site.deliverer({"pacs": scp(classes=[Comprehensive3DSRStorage]).port})
    job = site.results()
    site.wait(lambda: site.states(job) == ["failed", "delivered"])
    seg, _ = deliveries(site.engine, job)
    assert "does not take Segmentation Storage" in seg.last_error
    assert len(attempts(site.engine, seg.id)) == 1


def test_delivery_is_given_up_in_the_end_and_can_be_sent_anew(site: Site, scp: MakeScp) -> None:
    port = free_port()
    site.deliverer({"pacs": port}, give_up_after_s=1.5)
    job = site.results(kinds=(OutputKind.SR,))
    site.wait(lambda: site.states(job) == ["failed"])
    [sr] = deliveries(site.engine, job)
    assert sr.last_error.startswith("gave up after")
    assert "no connection to pacs" in sr.last_error

    peer = scp(port=port)
    with site.engine.begin() as tx:
        resend(tx, [sr.id], site.enqueuer)
    site.wait(lambda: site.states(job) == ["delivered"])
    assert peer.stored == [sr.sop_instance_uid]


def test_deliverer_killed_in_the_middle_of_an_object_is_replaced_and_the_peer_ends_with_one(each_site: Site) -> None:
    site = each_site
    under_way, go_on = threading.Event(), threading.Event()

    def hold(event: evt.Event) -> None:
        if isinstance(event.pdu, P_DATA_TF) and not go_on.is_set():
            under_way.set()
            go_on.wait(60)

    with Scp(on_pdu=hold) as peer:
        job = site.results(rows=40_000)  # 20 MB: more than the socket buffers take
        first = site.deliverer({"pacs": peer.port})
        assert under_way.wait(60)
        first.kill()
        first.wait()
        go_on.set()
        assert site.states(job) == ["sending", "waiting"]

        site.deliverer({"pacs": peer.port})
        site.wait(lambda: site.states(job) == ["delivered", "delivered"])
        seg, sr = deliveries(site.engine, job)
        assert peer.stored == [seg.sop_instance_uid, sr.sop_instance_uid]
        assert attempts(site.engine, seg.id) == [(1, "lost", None), (2, "delivered", 0x0000)]


def test_deliverer_killed_before_it_hears_the_answer_sends_the_same_object_again(site: Site) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def hold(event: evt.Event) -> None:
        under_way.set()
        go_on.wait(60)

    with Scp(before_answer=hold) as peer:
        job = site.results(kinds=(OutputKind.SR,))
        first = site.deliverer({"pacs": peer.port})
        assert under_way.wait(60)
        first.kill()
        first.wait()
        go_on.set()
        site.deliverer({"pacs": peer.port})
        site.wait(lambda: site.states(job) == ["delivered"])
        [sr] = deliveries(site.engine, job)
        first_time, second_time = peer.received
        assert first_time == second_time  # UID, syntax and bytes: a PACS takes the second for what it is
        assert first_time[0] == sr.sop_instance_uid


def test_deliverer_told_to_stop_finishes_what_it_sends(site: Site) -> None:
    under_way = threading.Event()

    def slow(event: evt.Event) -> None:
        under_way.set()
        time.sleep(1)

    with Scp(before_answer=slow) as peer:
        process = site.deliverer({"pacs": peer.port})
        job = site.results(kinds=(OutputKind.SR,))
        assert under_way.wait(60)
        process.terminate()
        assert process.wait(180) == 0
    assert site.states(job) == ["delivered"]
