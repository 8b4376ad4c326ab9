"""Sending one object to real peers: what goes over the wire, and what each of their answers means."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SegmentationStorage,
)
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dsutils import decode
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AssociationSocket

from dicom_node.cli import cli
from dicom_node.deliver.association import associated
from dicom_node.deliver.dimse import FileSent, echo, send, send_files
from dicom_node.errors import DeliveryError
from tests.integration.deliver.peer import MakeScp, delivery_of, destination, write_object
from tests.node import wait_for


def data_set_bytes(path: Path) -> bytes:
    """The file after preamble, prefix and file meta information (PS3.10 7.1)."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[140:144], "little")  # value of (0002,0000), the first element
    return raw[144 + length :]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_bytes_go_as_they_are_when_their_transfer_syntax_is_accepted(scp: MakeScp, tmp_path: Path, syntax: UID) -> None:
    path = tmp_path / "seg.dcm"
    ds = write_object(path, SegmentationStorage, syntax=syntax)
    peer = scp()
    assert send(destination(peer.port), path, delivery_of(path, ds)).status == 0x0000
    assert peer.received == [(ds.SOPInstanceUID, syntax, data_set_bytes(path))]


@pytest.mark.parametrize("only", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_object_is_re_encoded_for_a_peer_that_takes_only_another_syntax(
    scp: MakeScp, tmp_path: Path, only: UID
) -> None:
    path = tmp_path / "seg.dcm"
    ds = write_object(path, SegmentationStorage, syntax=RLELossless)
    peer = scp(syntaxes=[only])
    send(destination(peer.port), path, delivery_of(path, ds))
    [(uid, syntax, data)] = peer.received
    arrived = decode(BytesIO(data), only == ImplicitVRLittleEndian, True)
    assert (uid, syntax, arrived.SOPInstanceUID) == (ds.SOPInstanceUID, only, ds.SOPInstanceUID)
    original = dcmread(path)
    original.decompress(generate_instance_uid=False)
    assert arrived.PixelData == original.PixelData


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0111])
def test_success_warnings_and_duplicate_mean_that_the_peer_has_the_object(
    scp: MakeScp, tmp_path: Path, status: int
) -> None:
    path = tmp_path / "sr.dcm"
    ds = write_object(path, Comprehensive3DSRStorage)
    assert send(destination(scp(statuses=[status]).port), path, delivery_of(path, ds)).status == status


@pytest.mark.parametrize(
    ("status", "retry"),
    [(0xA700, True), (0xA7FF, True), (0x0213, True), (0xA900, False), (0xC000, False), (0x0110, False)],
)
def test_refusal_carries_its_status_and_says_whether_a_retry_can_help(
    scp: MakeScp, tmp_path: Path, status: int, retry: bool
) -> None:
    path = tmp_path / "sr.dcm"
    ds = write_object(path, Comprehensive3DSRStorage)
    with pytest.raises(DeliveryError, match=f"0x{status:04X}") as caught:
        send(destination(scp(statuses=[status]).port), path, delivery_of(path, ds))
    assert (caught.value.status, caught.value.retry) == (status, retry)


def test_peer_that_refuses_the_class_is_not_tried_again(scp: MakeScp, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    ds = write_object(path, SegmentationStorage)
    with pytest.raises(DeliveryError, match="does not take Segmentation Storage: SOP class not supported") as caught:
        send(destination(scp(classes=[Comprehensive3DSRStorage]).port), path, delivery_of(path, ds))
    assert not caught.value.retry


def test_peer_that_does_not_know_us_is_tried_again_and_the_administrator_told(scp: MakeScp, tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    ds = write_object(path, Comprehensive3DSRStorage)
    with pytest.raises(DeliveryError, match="register the calling AE title AINODE") as caught:
        send(destination(scp(knows="OTHER").port), path, delivery_of(path, ds))
    assert caught.value.retry


def test_peer_that_rejects_before_our_thread_looks_is_not_taken_for_one_that_hangs_up(
    scp: MakeScp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sr.dcm"
    ds = write_object(path, Comprehensive3DSRStorage)
    make = AssociationSocket.__init__

    def make_late(line: AssociationSocket, *args: Any, **kwargs: Any) -> None:
        class Late(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                is_set = super().wait(timeout)
                wait_for(lambda: not line._is_connected, 60)
                return is_set

        make(line, *args, **kwargs)
        line._ready = Late()

    monkeypatch.setattr(AssociationSocket, "__init__", make_late)
    with pytest.raises(DeliveryError, match="register the calling AE title AINODE"):
        send(destination(scp(knows="OTHER").port), path, delivery_of(path, ds))


def test_answer_is_not_taken_by_the_thread_that_listens_for_requests(
    scp: MakeScp, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Association):
        """On a busy machine its thread is put to sleep between having gone on and saying that it has."""

        @property
        def _is_paused(self) -> bool:
            return bool(self.__dict__["paused"])

        @_is_paused.setter
        def _is_paused(self, value: bool) -> None:
            if not value and threading.current_thread() is self:
                time.sleep(0.2)
            self.__dict__["paused"] = value

    class Late(DIMSEServiceProvider):
        """And the one that has asked does not look for the answer at once."""

        def get_msg(self, block: bool = False) -> Any:
            if block:
                time.sleep(0.5)
            return super().get_msg(block)

    monkeypatch.setattr("pynetdicom.ae.Association", Slow)
    monkeypatch.setattr("pynetdicom.association.DIMSEServiceProvider", Late)
    peer = destination(scp().port)
    with associated(peer, [build_context(Verification)]) as conversation:
        for _ in range(5):
            assert conversation.ask(conversation.assoc.send_c_echo, "C-ECHO", 5).Status == 0x0000


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the peer leaks its socket
def test_peer_that_aborts_in_the_middle_of_an_object_is_tried_again(scp: MakeScp, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    ds = write_object(path, SegmentationStorage, rows=8192)

    def abort(event: evt.Event) -> None:
        if isinstance(event.pdu, P_DATA_TF):
            event.assoc.abort(block=False)

    peer = scp(on_pdu=abort)
    with pytest.raises(
        DeliveryError, match=r"(aborted the association|closed the connection) during C-STORE"
    ) as caught:
        send(destination(peer.port), path, delivery_of(path, ds))
    assert caught.value.retry
    assert peer.stored == []


def test_peer_that_closes_the_connection_in_the_middle_of_an_object_is_tried_again(
    scp: MakeScp, tmp_path: Path
) -> None:
    path = tmp_path / "seg.dcm"
    ds = write_object(path, SegmentationStorage, rows=8192)

    def hang_up(event: evt.Event) -> None:
        if isinstance(event.pdu, P_DATA_TF):
            wire: Any = event.assoc.dul.socket
            wire.socket.shutdown(socket.SHUT_RDWR)

    with pytest.raises(DeliveryError, match="closed the connection during C-STORE") as caught:
        send(destination(scp(on_pdu=hang_up).port), path, delivery_of(path, ds))
    assert caught.value.retry


def test_peer_that_never_answers_costs_one_timeout(scp: MakeScp, tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    ds = write_object(path, Comprehensive3DSRStorage)
    over = threading.Event()
    peer = scp(before_answer=lambda event: over.wait(100))
    started = time.monotonic()
    try:
        with pytest.raises(DeliveryError, match="did not complete C-STORE within 1 s") as caught:
            send(destination(peer.port, timeout_s=1), path, delivery_of(path, ds))
    finally:
        over.set()
    assert caught.value.retry
    assert time.monotonic() - started < 60


def test_peer_that_stops_reading_does_not_hold_the_sender(scp: MakeScp, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    ds = write_object(path, SegmentationStorage, rows=40_000)  # 20 MB: more than the socket buffers take
    over = threading.Event()

    def stall(event: evt.Event) -> None:
        if isinstance(event.pdu, P_DATA_TF):
            over.wait(100)

    peer = scp(on_pdu=stall)
    started = time.monotonic()
    try:
        with pytest.raises(DeliveryError, match="C-STORE") as caught:
            send(destination(peer.port, timeout_s=1), path, delivery_of(path, ds))
        assert caught.value.retry
        assert time.monotonic() - started < 60
    finally:
        over.set()


def test_peer_that_accepts_connections_but_says_nothing_is_given_up_after_the_timeout() -> None:
    silence = pytest.raises(DeliveryError, match="did not answer the association request in 1 s")
    with socket.create_server(("127.0.0.1", 0)) as mute, silence as caught:
        echo(destination(mute.getsockname()[1], timeout_s=1))
    assert caught.value.retry


def test_absent_peer_and_unknown_host_are_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DeliveryError, match=r"no connection to pacs .*refused or unreachable") as caught:
        echo(destination(port))
    assert caught.value.retry
    with pytest.raises(DeliveryError, match="cannot be found") as caught:
        echo(replace(destination(port), host="no-such-host.invalid"))
    assert caught.value.retry


def test_damaged_file_is_never_sent(scp: MakeScp, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    ds = write_object(path, SegmentationStorage)
    delivery = delivery_of(path, ds)
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)
    peer = scp()
    with pytest.raises(DeliveryError, match="damaged on disk") as caught:
        send(destination(peer.port), path, delivery)
    assert not caught.value.retry
    assert peer.stored == []


def test_echo_gives_the_round_trip(scp: MakeScp) -> None:
    assert 0 < echo(destination(scp().port)) < 5


def test_send_files_reports_each_file_and_sends_what_the_peer_takes(scp: MakeScp, tmp_path: Path) -> None:
    seg, rle, sr, text = (tmp_path / name for name in ("seg.dcm", "rle.dcm", "sr.dcm", "notes.txt"))
    segs = [write_object(seg, SegmentationStorage), write_object(rle, SegmentationStorage, syntax=RLELossless)]
    write_object(sr, Comprehensive3DSRStorage)
    text.write_text("no DICOM")
    peer = scp(classes=[SegmentationStorage])
    seen: list[FileSent] = []
    sent = send_files([text, seg, sr, rle], "127.0.0.1", peer.port, "PACS", "ME", seen.append)
    assert sent == seen
    by_path = {one.path: one for one in sent}
    assert (by_path[seg].status, by_path[rle].status) == (0, 0)
    assert "not a DICOM file" in by_path[text].problem
    assert "does not take Comprehensive 3D SR Storage" in by_path[sr].problem
    assert peer.stored == [ds.SOPInstanceUID for ds in segs]
    assert {syntax for _, syntax, _ in peer.received} == {ExplicitVRLittleEndian, RLELossless}


@pytest.mark.parametrize("ever_after", [False, True])
def test_send_files_goes_on_after_a_refused_file_and_a_lost_association_while_the_peer_takes_any(
    scp: MakeScp, tmp_path: Path, ever_after: bool
) -> None:
    paths = [tmp_path / f"{n}.dcm" for n in range(4)]
    for path in paths:
        write_object(path, Comprehensive3DSRStorage)
    calls = iter(range(10))
    peer = scp(
        statuses=[0xC000, 0x0000],
        before_answer=lambda event: event.assoc.abort() if (n := next(calls)) == 2 or (n > 2 and ever_after) else None,
    )
    refused, stored, third, fourth = send_files(paths, "127.0.0.1", peer.port, "PACS", "ME")
    assert (refused.status, stored.status) == (0xC000, 0x0000)
    if ever_after:
        assert (third.status, fourth.status) == (None, None)
        assert "aborted" in third.problem
        assert fourth.problem.startswith("not sent")
    else:
        assert (third.status, fourth.status) == (0x0000, 0x0000)
    assert [sent.path for sent in (refused, stored, third, fourth)] == paths


Lose = Callable[[evt.Event, Path], object]


def close(event: evt.Event, path: Path) -> None:
    """Close the connection in place of an answer."""
    event.assoc.abort()


def change(event: evt.Event, path: Path) -> None:
    """Another program writes the file anew, and the answer is lost."""
    path.write_bytes(path.read_bytes() + bytes(2))
    event.assoc.abort()


@pytest.mark.parametrize(
    ("lose", "held", "taken"),
    [
        pytest.param(close, (), True, id="what we had sent is what it holds"),
        pytest.param(close, (0,), False, id="it held the first before, perhaps the second, too"),
        pytest.param(change, (), False, id="other bytes than we had sent"),
    ],
)
def test_a_duplicate_is_taken_where_the_answer_to_the_same_bytes_was_lost(
    scp: MakeScp, tmp_path: Path, lose: Lose, held: tuple[int, ...], taken: bool
) -> None:
    paths = [tmp_path / f"{n}.dcm" for n in range(3)]
    uids = [write_object(path, Comprehensive3DSRStorage).SOPInstanceUID for path in paths]
    peer = scp(handlers=[(evt.EVT_C_STORE, Keeper({uids[n]: b"before" for n in held}, paths[1], lose).store)])

    first, second, third = send_files(paths, "127.0.0.1", peer.port, "PACS", "ME")

    assert (second.status, third.status, third.problem) == (0x0111, 0x0000, "")
    assert (second.problem == "", second.is_duplicate) == (taken, not taken)
    assert first.is_duplicate == bool(held)
    if held:
        assert second.problem.endswith("sent twice, for the first answer was lost, and may be what the peer holds")


class Keeper:
    """A peer that keeps the first of each SOP Instance UID; it loses its second answer."""

    def __init__(self, held: dict[str, bytes], path: Path, lose: Lose = lambda event, path: None) -> None:
        self.held = held
        self._path, self._lose = path, lose
        self._answers = 0

    def store(self, event: evt.Event) -> int:
        request: Any = event.request
        uid = str(request.AffectedSOPInstanceUID)
        is_new = uid not in self.held
        self.held.setdefault(uid, request.DataSet.getvalue())
        self._answers += 1
        if self._answers == 2:
            self._lose(event, self._path)
        return 0x0000 if is_new else 0x0111


def test_a_duplicate_is_not_taken_where_another_file_of_that_uid_was_sent(scp: MakeScp, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.dcm" for n in range(2)]
    ds = write_object(paths[0], Comprehensive3DSRStorage)
    ds.PatientID = "T2"
    ds.save_as(paths[1], enforce_file_format=True)
    peer = scp(handlers=[(evt.EVT_C_STORE, Keeper({}, paths[1], close).store)])
    first, second = send_files(paths, "127.0.0.1", peer.port, "PACS", "ME")
    assert (first.status, first.problem) == (0x0000, "")
    assert (second.status, second.is_duplicate) == (0x0111, True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the peer leaks its socket
def test_a_duplicate_is_not_taken_where_the_first_copy_did_not_go_out_whole(scp: MakeScp, tmp_path: Path) -> None:
    small, large = tmp_path / "0.dcm", tmp_path / "1.dcm"
    write_object(small, SegmentationStorage)
    uid = write_object(large, SegmentationStorage, rows=65535).SOPInstanceUID
    sizes: list[int] = []

    def hang_up(event: evt.Event) -> None:  # more is on its way than the buffers of the kernel hold
        if isinstance(event.pdu, P_DATA_TF):
            sizes.append(len(event.pdu))
            if sum(sizes) - sizes[-1] < 1_000_000 <= sum(sizes):
                wire: Any = event.assoc.dul.socket
                wire.socket.shutdown(socket.SHUT_RDWR)

    keeper = Keeper({uid: b"before"}, large)
    peer = scp(on_pdu=hang_up, handlers=[(evt.EVT_C_STORE, keeper.store)])
    first, second = send_files([small, large], "127.0.0.1", peer.port, "PACS", "ME")
    assert (first.status, first.problem) == (0x0000, "")
    assert (second.status, second.is_duplicate) == (0x0111, True)
    assert keeper.held[uid] == b"before"


def test_send_says_apart_what_the_peer_did_not_take_because_it_holds_the_uid(scp: MakeScp, tmp_path: Path) -> None:
    for n in range(3):
        write_object(tmp_path / f"{n}.dcm", Comprehensive3DSRStorage)
    peer = scp(statuses=[0x0000, 0x0111, 0xB000])
    words = ["send", str(tmp_path), "--to", f"127.0.0.1:{peer.port}", "--called", "PACS"]
    sent = CliRunner().invoke(cli, words)
    assert sent.exit_code == 1
    assert "2 of 3 files stored by PACS; 1 not taken, for it holds their SOP Instance UIDs already" in sent.output
    assert "1.dcm: not taken: the peer holds this SOP Instance UID already" in sent.output
    assert CliRunner().invoke(cli, words).exit_code == 0, "a warning (0xB000) means: stored all the same"


def test_a_destination_may_hear_who_we_are(scp: MakeScp) -> None:
    heard: list[tuple[int, bytes, bytes]] = []

    def judge(event: Any) -> tuple[bool, None]:
        heard.append((event.user_id_type, event.primary_field, event.secondary_field))
        return event.secondary_field != b"wrong", None

    peer = scp(handlers=[(evt.EVT_USER_ID, judge)])
    there = destination(peer.port)
    echo(there)
    echo(replace(there, user="ainode"))
    echo(replace(there, user="ainode", passcode="geheim"))
    with pytest.raises(DeliveryError, match=r"are user and passcode of ainode right\?"):
        echo(replace(there, user="ainode", passcode="wrong"))
    assert heard == [(1, b"ainode", b""), (2, b"ainode", b"geheim"), (2, b"ainode", b"wrong")]
    assert "geheim" not in repr(replace(there, passcode="geheim"))
