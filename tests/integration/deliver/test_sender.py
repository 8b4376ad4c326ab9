"""Delivering processes, killed and restarted, to peers that are down, busy or refuse; on both databases."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import evt
from pynetdicom.pdu import P_DATA_TF
from sqlalchemy import Engine

from dicom_node import engine as job_engine
from dicom_node.db import migrate
from dicom_node.db.deliveries import resend
from dicom_node.db.engine import open_engine
from dicom_node.domain.model import OutputKind
from dicom_node.engine import Enqueuer
from tests.integration.deliver.peer import MakeScp, Scp
from tests.integration.deliver.rows import add_results, attempts, deliveries, events
from tests.node import free_port
from tests.peers.orthanc import Orthanc

SETTINGS = """\
[database]
url = "{url}"
[deliver]
retry_first_s = 0.3
retry_longest_s = 1
give_up_after_s = {give_up_after_s}
[engine]
poll_s = 0.1
beat_s = 0.3
dead_after_s = 2
"""
DESTINATION = """\
[destinations.{name}]
host = "127.0.0.1"
port = {port}
ae_title = "PACS"
timeout_s = 3
"""


@dataclass
class Site:
    """One database and spool, and the delivering processes that a test starts on them."""

    home: Path
    engine: Engine
    enqueuer: Enqueuer
    url: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def deliverer(self, ports: Mapping[str, int], *, give_up_after_s: float = 3600) -> subprocess.Popen[bytes]:
        """Start a deliverer in slot 0; its log is deliver.log."""
        file = self.home / "settings.toml"
        text = SETTINGS.format(url=self.url, give_up_after_s=give_up_after_s)
        file.write_text(text + "".join(DESTINATION.format(name=name, port=port) for name, port in ports.items()))
        (self.home / "rules").mkdir(exist_ok=True)
        with (self.home / "deliver.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.integration.deliver.deliverer", str(file), "0"]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def results(
        self, *destinations: str, kinds: tuple[OutputKind, ...] = (OutputKind.SEG, OutputKind.SR), rows: int = 64
    ) -> str:
        """Store a job's results and enqueue their deliveries."""
        with self.engine.begin() as tx:
            where = destinations or ("pacs",)
            return add_results(tx, self.home / "spool", self.enqueuer, destinations=where, kinds=kinds, rows=rows)

    def wait(self, met: Callable[[], object], timeout_s: float = 20.0) -> None:
        """Wait until something is the case."""
        end = time.monotonic() + timeout_s
        while not met():
            assert time.monotonic() < end, (self.home / "deliver.log").read_text()
            time.sleep(0.05)

    def states(self, job_id: str, destination: str = "pacs") -> list[str]:
        """The states of a job's deliveries to one destination."""
        return [row.state for row in deliveries(self.engine, job_id, destination)]


def open_site(url: str, home: Path) -> Iterator[Site]:
    migrate.upgrade(url)
    job_engine.migrate(url)
    engine = open_engine(url)
    made = Site(home, engine, Enqueuer(engine), url)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
    made.enqueuer.close()
    engine.dispose()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from open_site(f"sqlite:///{tmp_path / 'node.db'}", tmp_path)


@pytest.fixture
def each_site(database_url: str, tmp_path: Path) -> Iterator[Site]:
    """One site on SQLite, then one on PostgreSQL."""
    yield from open_site(database_url, tmp_path)


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
    assert held_by(orthanc) == sorted([seg.sop_instance_uid, sr.sop_instance_uid])
    assert attempts(site.engine, sr.id) == [(1, "delivered", 0x0000)]
    assert events(site.engine, seg.id)[-3:] == ["delivery failed, will retry", "delivery started", "delivered"]

    with site.engine.begin() as tx:
        resend(tx, [seg.id, sr.id], site.enqueuer)
    site.wait(lambda: len(attempts(site.engine, sr.id)) == 2 and site.states(job) == ["delivered", "delivered"])
    assert held_by(orthanc) == sorted([seg.sop_instance_uid, sr.sop_instance_uid])


def held_by(orthanc: Orthanc) -> list[str]:
    """The SOP Instance UIDs that Orthanc holds."""
    return sorted(orthanc.get(f"/instances/{one}/tags?simplify")["SOPInstanceUID"] for one in orthanc.instances())


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
            go_on.wait(20)

    with Scp(on_pdu=hold) as peer:
        job = site.results(rows=40_000)  # 20 MB: more than the socket buffers take
        first = site.deliverer({"pacs": peer.port})
        assert under_way.wait(20)
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
        go_on.wait(20)

    with Scp(before_answer=hold) as peer:
        job = site.results(kinds=(OutputKind.SR,))
        first = site.deliverer({"pacs": peer.port})
        assert under_way.wait(20)
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
        assert under_way.wait(20)
        process.terminate()
        assert process.wait(20) == 0
    assert site.states(job) == ["delivered"]
