"""Peers ask us to commit ourselves, and announce what is available; only what is really on disk is promised."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    InstanceAvailabilityNotification,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)
from sqlalchemy import update

from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction, utc_now
from dicom_node.deliver.committer import Committer
from dicom_node.engine import Enqueuer, migrate
from dicom_node.settings import Deliver
from tests.ct import small_ct
from tests.integration.receive.conftest import Running, Start
from tests.node import free_port, wait_for
from tests.peers.certificates import Authority
from tests.peers.orthanc import Orthanc

PUSH, WELL_KNOWN = StorageCommitmentPushModel, StorageCommitmentPushModelInstance


class Modality:
    """A peer that sends, asks for commitment, and listens for reports."""

    def __init__(self, *, status: int = 0x0000, tls: ssl.SSLContext | None = None) -> None:
        self.status = status
        self.seen_on: list[bool] = []  # of each report: whether it came on an association of ours
        self.reports: list[tuple[int | None, Dataset]] = []
        self.port = free_port()
        self._ae = AE("SCANNER")
        self._ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        self._ae.add_requested_context(PUSH)
        self._ae.add_requested_context(Verification)
        self._ae.add_requested_context(InstanceAvailabilityNotification)
        self._ae.add_supported_context(PUSH, scu_role=True, scp_role=True)
        handlers: list[evt.EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, self._take)]
        self.server = self._ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=handlers, ssl_context=tls
        )

    def _take(self, event: evt.Event) -> tuple[int, None]:
        self.seen_on.append(event.assoc.is_requestor)
        if self.status == 0x0000:
            self.reports.append((event.event_type, event.event_information))
        return self.status, None

    def send(self, node: Running, paths: Sequence[Path]) -> None:
        assoc = self._ae.associate("127.0.0.1", node.port, ae_title="AINODE")
        for path in paths:
            assert assoc.send_c_store(dcmread(path)).Status == 0x0000
        assoc.release()

    def ask(
        self, node: Running, transaction_uid: str, objects: Sequence[tuple[str, str]], *, stays: bool = False
    ) -> int:
        """Ask, and leave; or stay until the report has come."""
        ds = Dataset()
        ds.TransactionUID = transaction_uid
        ds.ReferencedSOPSequence = [referenced(*one) for one in objects]
        handlers: list[evt.EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, self._take)]
        assoc = self._ae.associate("127.0.0.1", node.port, ae_title="AINODE", evt_handlers=handlers)
        seen = len(self.seen_on)
        status, _ = assoc.send_n_action(ds, 1, PUSH, WELL_KNOWN)
        if stays:
            wait_for(lambda: len(self.seen_on) > seen, 120)
            assert assoc.send_c_echo().Status == 0x0000  # and the association goes on
        assoc.release()
        return int(status.Status)

    def announce(self, node: Running, paths: Sequence[Path]) -> int:
        first = dcmread(paths[0])
        ds, series = Dataset(), Dataset()
        ds.StudyInstanceUID = first.StudyInstanceUID
        ds.ReferencedPerformedProcedureStepSequence = []
        series.SeriesInstanceUID = first.SeriesInstanceUID
        series.ReferencedSOPSequence = [referenced(CTImageStorage, uid) for uid in map(uid_of, paths)]
        for item in series.ReferencedSOPSequence:
            item.InstanceAvailability, item.RetrieveAETitle = "ONLINE", "PACS"
        ds.ReferencedSeriesSequence = [series]
        assoc = self._ae.associate("127.0.0.1", node.port, ae_title="AINODE")
        status, _ = assoc.send_n_create(ds, InstanceAvailabilityNotification, None)
        assoc.release()
        return int(status.Status)


def referenced(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item


def uid_of(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


@pytest.fixture
def modality() -> Iterator[Modality]:
    one = Modality()
    yield one
    if one.server is not None:
        one.server.shutdown()


def peer(port: int, ae_title: str = "SCANNER", **more: Any) -> dict[str, Any]:
    return {"ae_title": ae_title, "commitment": True, "host": "127.0.0.1", "port": port, **more}


def committer(node: Running) -> Committer:
    peers = {one.ae_title: one for one in node.settings.receive.peers if one.commitment}
    return Committer(node.engine, node.spool, peers, Deliver(retry_first_s=1e-6))


def test_only_what_is_on_disk_byte_for_byte_is_committed_to(start: Start, modality: Modality, tmp_path: Path) -> None:
    node = start(peers=[peer(modality.port)])
    paths = small_ct(tmp_path / "ct", slices=5, rows=16, columns=16)
    modality.send(node, paths)
    whole, damaged, lost, conflict, good = map(uid_of, paths)
    files = {row.sop_instance_uid: node.spool.path(row.path) for row in node.rows(t.instance)}
    content = bytearray(files[damaged].read_bytes())
    content[-1] ^= 1
    files[damaged].write_bytes(content)
    files[lost].unlink()
    never = generate_uid()
    asked = [(CTImageStorage, uid) for uid in (whole, damaged, lost, never, good)] + [(MRImageStorage, conflict)]
    assert modality.ask(node, "1.2.3", asked) == 0x0000
    assert modality.ask(node, "1.2.4", [(CTImageStorage, whole), (CTImageStorage, good)]) == 0x0000
    node.soon(lambda: all(row.due_at <= utc_now() for row in node.rows(t.commitment)))  # it has left
    assert committer(node).look() == 2
    (some, partial), (every, full) = modality.reports
    assert (some, every) == (2, 1)
    assert [item.ReferencedSOPInstanceUID for item in partial.ReferencedSOPSequence] == [whole, good]
    failed = {item.ReferencedSOPInstanceUID: item.FailureReason for item in partial.FailedSOPSequence}
    assert failed == {damaged: 0x0110, lost: 0x0110, never: 0x0112, conflict: 0x0119}
    assert "FailedSOPSequence" not in full
    assert {row.state for row in node.rows(t.commitment)} == {"reported"}
    assert [one["failed"] for one in node.events("storage commitment reported")] == [4, 0]
    assert committer(node).look() == 0


def test_a_report_is_tried_again_by_whoever_lives_until_it_is_taken(
    start: Start, modality: Modality, tmp_path: Path
) -> None:
    node = start(peers=[peer(modality.port)])
    paths = small_ct(tmp_path / "ct", slices=1, rows=16, columns=16)
    modality.send(node, paths)
    modality.status = 0x0110
    assert modality.ask(node, "1.2.3", [(CTImageStorage, uid_of(paths[0]))]) == 0x0000
    node.soon(lambda: committer(node).look())
    (row,) = node.rows(t.commitment)
    assert (row.state, row.attempt, row.last_error) == ("due", 1, "SCANNER answered the report with 0x0110")
    with transaction(node.engine) as tx:  # and the process that had taken it up died: its lease ends
        tx.execute(update(t.commitment).values(due_at=utc_now()))
    modality.status = 0x0000
    assert committer(node).look() == 1
    assert [event for event, _ in modality.reports] == [1]


def test_a_peer_that_stays_is_told_where_it_asked(
    start: Start, modality: Modality, tmp_path: Path, database_url: str
) -> None:
    node = start(url=database_url, peers=[{"ae_title": "SCANNER", "commitment": True, "report_on": "same"}])
    paths = small_ct(tmp_path / "ct", slices=2, rows=16, columns=16)
    modality.send(node, paths)
    never = generate_uid()
    asked = [(str(CTImageStorage), uid) for uid in [*map(uid_of, paths), never]]
    assert modality.ask(node, "1.2.3", asked, stays=True) == 0x0000
    assert modality.ask(node, "1.2.4", asked[:2], stays=True) == 0x0000
    (event, partial), (every, full) = modality.reports
    assert (event, every, modality.seen_on) == (2, 1, [True, True])
    assert partial.TransactionUID == "1.2.3"
    assert [item.ReferencedSOPInstanceUID for item in full.ReferencedSOPSequence] == [uid for _, uid in asked[:2]]
    assert [(one.ReferencedSOPInstanceUID, one.FailureReason) for one in partial.FailedSOPSequence] == [(never, 0x0112)]
    node.soon(lambda: {row.state for row in node.rows(t.commitment)} == {"reported"})
    assert [one["failed"] for one in node.events("storage commitment reported")] == [1, 0]
    assert committer(node).look() == 0


def test_a_peer_that_leaves_or_does_not_take_it_there_is_told_on_an_association_of_ours(
    start: Start, modality: Modality, tmp_path: Path
) -> None:
    node = start(peers=[peer(modality.port)])
    paths = small_ct(tmp_path / "ct", slices=1, rows=16, columns=16)
    modality.send(node, paths)
    asked = [(str(CTImageStorage), uid_of(paths[0]))]
    assert modality.ask(node, "1.2.3", asked) == 0x0000
    assert node.soon(lambda: committer(node).look()) == 1
    modality.status = 0x0110
    assert modality.ask(node, "1.2.4", asked, stays=True) == 0x0000
    modality.status = 0x0000
    assert node.soon(lambda: committer(node).look()) == 1
    assert modality.seen_on == [False, True, False]
    assert [(row.state, row.attempt) for row in node.rows(t.commitment)] == [("reported", 1), ("reported", 2)]


def test_a_peer_that_wants_a_new_association_is_not_told_where_it_asked(start: Start, tmp_path: Path) -> None:
    ca = Authority(tmp_path / "tls")
    theirs = ca.issue("scanner", "127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(theirs.certificate, theirs.key)
    listening = Modality(tls=tls)  # the report goes over TLS to it
    node = start(peers=[peer(listening.port, report_on="new", tls={"ca": str(ca.file)})])
    assert listening.ask(node, "1.2.3", [(str(CTImageStorage), generate_uid())]) == 0x0000
    assert committer(node).look() == 1
    assert listening.server is not None
    listening.server.shutdown()
    assert [event for event, _ in listening.reports] == [2]
    assert listening.seen_on == [False]


def test_nobody_is_promised_anything_who_is_not_named_for_it(start: Start, modality: Modality) -> None:
    node = start()
    with pytest.raises(ValueError, match="context"):
        modality.ask(node, "1.2.3", [(CTImageStorage, "1.2")])
    assert not node.rows(t.commitment)


def test_garbage_is_refused(start: Start, modality: Modality) -> None:
    node = start(peers=[peer(modality.port)])
    assert modality.ask(node, "1.2.3", []) == 0x0115
    assert not node.rows(t.commitment)


def test_orthanc_asks_and_gets_its_report(start: Start, tmp_path: Path, orthanc_module: Orthanc) -> None:
    node = start(peers=[peer(orthanc_module.dicom_port, orthanc_module.ae)])
    orthanc_module.know("AINODE", node.port)
    paths = small_ct(tmp_path / "ct", slices=3, rows=16, columns=16)
    url, uids = f"{orthanc_module.url}/modalities/AINODE", [uid_of(path) for path in paths]
    for path in paths:
        with urlopen(Request(f"{orthanc_module.url}/instances", data=path.read_bytes())):
            pass
    ids = orthanc_module.instances(str(dcmread(paths[0]).StudyInstanceUID))
    with urlopen(Request(f"{url}/store", data=json.dumps(ids).encode())):
        pass
    never = generate_uid()
    body = {"DicomInstances": [[str(CTImageStorage), uid] for uid in [*uids, never]]}
    with urlopen(Request(f"{url}/storage-commitment", data=json.dumps(body).encode())) as answer:
        asked = json.load(answer)["ID"]
    wait_for(lambda: committer(node).look(), 120)
    report = orthanc_module.get(f"/storage-commitment/{asked}")
    assert report["Status"] == "Failure"
    assert sorted(one["SOPInstanceUID"] for one in report["Success"]) == sorted(uids)
    assert [(one["SOPInstanceUID"], one["FailureReason"]) for one in report["Failures"]] == [(never, 0x0112)]


@pytest.mark.parametrize("first", [True, False])
def test_a_series_is_complete_when_every_announced_instance_is_here(
    start: Start, modality: Modality, tmp_path: Path, first: bool
) -> None:
    node = start(peers=[peer(modality.port)], settings={"assemble": {"quiet_s": 3600}})
    migrate(node.url)
    enqueuer = Enqueuer(node.engine)
    assembler = Assembler(node.settings, Catalog((), {}, {}), node.engine, enqueuer, node.spool)
    paths = small_ct(tmp_path / "ct", slices=6, rows=16, columns=16)
    if first:
        assert modality.announce(node, paths) == 0x0000
    modality.send(node, paths[:4])
    if not first:
        assert modality.announce(node, paths) == 0x0000
    assert assembler.sweep() == 0
    (row,) = node.rows(t.series)
    assert (row.told_count, row.told) == (6, "SCANNER announced 6")
    modality.send(node, paths[4:])
    assert assembler.sweep() == 1
    (row,) = node.rows(t.series)
    assert row.close_reason == "all 6 instances are here: SCANNER announced 6"
    enqueuer.close()
