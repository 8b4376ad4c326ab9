"""Who gets an association, how it ends, and that one peer's trouble is no other's."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from pynetdicom.sop_class import PatientRootQueryRetrieveInformationModelFind, Verification  # type: ignore[attr-defined]

from dicom_node.db import tables as t
from dicom_node.receive import scp
from dicom_node.spool import Incoming, Spool
from tests.integration.receive.conftest import Start
from tests.integration.receive.objects import ct
from tests.integration.receive.scu import (
    A_ABORT,
    Aborted,
    Rejected,
    Scu,
    accepted,
    command_set,
    p_data,
    pdu,
    pdv,
    request,
    store_all,
)
from tests.peers.tools import dcmtk

ELSEWHERE = {"ae_title": "SCANNER", "address": "10.1.0.0/16"}


def test_echoscu_is_answered_and_leaves_no_trace(start: Start) -> None:
    node = start()
    dcmtk("echoscu", "-aet", "SCANNER", "-aec", "AINODE", "127.0.0.1", str(node.port))
    assert not node.rows(t.association)
    assert not node.rows(t.audit_event)


@pytest.mark.parametrize(
    ("titles", "receive", "numbers", "reason"),
    [
        ({"calling": "NOBODY"}, {}, (1, 1, 3), "NOBODY is not in receive.peers"),
        ({"called": "OTHER"}, {}, (1, 1, 7), "OTHER is not ours"),
        ({}, {"peers": [ELSEWHERE]}, (1, 1, 3), "may not send from 127.0.0.1"),
        ({}, {"called_ae": ["MAIN"]}, (1, 1, 7), "AINODE is not ours"),
    ],
)
def test_a_peer_that_may_not_associate_is_told_why_and_recorded(
    start: Start,
    titles: dict[str, str],
    receive: dict[str, Sequence[object]],
    numbers: tuple[int, int, int],
    reason: str,
) -> None:
    node = start(**receive)
    with Scu(node.port) as scu, pytest.raises(Rejected) as rejected:
        scu.associate(**titles)  # type: ignore[arg-type]
    assert rejected.value.args == (numbers,)
    (event,) = node.soon(lambda: node.events("association rejected"))
    assert reason in event["reason"]
    assert event["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("titles", "receive"),
    [
        ({"calling": "ANYBODY"}, {"accept_any_peer": True, "peers": []}),
        ({"called": "SECOND"}, {"called_ae": ["FIRST", "SECOND"]}),
        ({}, {"peers": [ELSEWHERE, {"ae_title": "SCANNER", "address": "127.0.0.0/8"}]}),
        ({}, {"peers": [{"ae_title": "SCANNER"}]}),
    ],
)
def test_a_peer_that_may_associate_does(
    start: Start, titles: dict[str, str], receive: dict[str, Sequence[object]]
) -> None:
    node = start(**receive)
    with Scu(node.port) as scu:
        assert scu.associate(**titles).echo() == 0x0000  # type: ignore[arg-type]


def test_the_first_transfer_syntax_that_we_know_is_taken_and_what_we_do_not_store_is_not_accepted(start: Start) -> None:
    node = start()
    asked: list[tuple[str, list[str]]] = [
        (CTImageStorage, [JPEG2000Lossless, ExplicitVRLittleEndian]),
        (CTImageStorage, ["1.2.3.4", DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian]),
        (CTImageStorage, ["1.2.3.4"]),
        (PatientRootQueryRetrieveInformationModelFind, [ImplicitVRLittleEndian]),
        ("1.2.3.4.5", [ImplicitVRLittleEndian]),
    ]
    with Scu(node.port) as scu:
        scu.socket.sendall(request(*asked))
        _, body = scu.pdu()
    results = accepted(body)
    assert [(number, result) for number, result, _ in results] == [(1, 0), (3, 0), (5, 4), (7, 3), (9, 3)]
    assert [syntax for _, _, syntax in results[:2]] == [JPEG2000Lossless, DeflatedExplicitVRLittleEndian]


def test_more_associations_than_allowed_are_rejected_for_the_moment(start: Start) -> None:
    node = start(max_associations=3)
    open_ones = [Scu(node.port).associate() for _ in range(3)]
    with Scu(node.port) as scu, pytest.raises(Rejected, match=r"\(2, 3, 2\)"):
        scu.associate()
    open_ones[0].release()
    with Scu(node.port) as scu:
        assert scu.associate().echo() == 0x0000
    for scu in open_ones[1:]:
        scu.socket.close()


def test_a_connection_that_says_nothing_and_one_that_goes_silent_are_ended(start: Start) -> None:
    node = start(artim_timeout_s=1.5, idle_timeout_s=1.5)
    before = time.monotonic()
    with Scu(node.port) as mute, Scu(node.port) as silent, Scu(node.port) as lingering:
        silent.associate_for(ct())
        assert silent.store(ct()) == 0x0000
        lingering.associate()
        lingering.socket.sendall(struct.pack(">BxI4x", 5, 4))
        lingering.pdu()  # the answer to the release, after which it does not close
        with pytest.raises(Aborted):
            mute.pdu()
        assert silent.pdu()[0] == A_ABORT
        with pytest.raises(Aborted):
            lingering.pdu()
    assert time.monotonic() - before > 0.5
    association = node.soon(lambda: next((row for row in node.rows(t.association) if row.ended_at), None))
    assert "1.5 s" in association.end_reason


@pytest.mark.parametrize("ending", ["abort", "close", "reset", "release"])
def test_an_association_that_ends_in_mid_object_leaves_nothing(start: Start, database_url: str, ending: str) -> None:
    node = start(url=database_url)
    one = ct(pixels=900_000)
    scu = Scu(node.port).associate_for(one)
    assert scu.store(ct(2)) == 0x0000
    scu.begin_store(one)
    scu.send_data(one, one.data[:600_000], ends=False)
    assert node.soon(lambda: [name for name in node.files() if name.startswith("incoming/")])
    if ending == "abort":
        scu.socket.sendall(pdu(7, bytes(4)))
    elif ending == "reset":
        scu.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif ending == "release":
        scu.release()
    scu.socket.close()
    row = node.soon(lambda: next((row for row in node.rows(t.association) if row.ended_at), None))
    node.soon(lambda: not [name for name in node.files() if name.startswith("incoming/")])
    assert row.stored == 1
    assert {"abort": "aborted", "close": "clos", "reset": "lost", "release": "released"}[ending] in row.end_reason
    assert list(node.stored()) == [ct(2).sop_instance_uid]
    assert len([name for name in node.files() if name.startswith("instances/")]) == 1


class SlowSpool(Spool):
    """A spool on a disk that takes its time, until `go` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, 0)
        self.go = threading.Event()
        self.asked = threading.Event()

    def keep(self, arrived: Sequence[Incoming]) -> list[str]:
        """Wait, then keep."""
        self.asked.set()
        assert self.go.wait(100)
        return super().keep(arrived)


def test_a_slow_disk_holds_up_no_echo_and_no_new_association(start: Start, tmp_path: Path) -> None:
    spool = SlowSpool(tmp_path / "spool")
    node = start(spool=spool)
    with Scu(node.port) as storing, Scu(node.port) as other:
        storing.associate_for(ct())
        storing.begin_store(ct())
        storing.send_data(ct(), ct().data)
        assert spool.asked.wait(60)
        other.associate()
        assert [other.echo() for _ in range(20)] == [0x0000] * 20
        other.release()
        assert not node.rows(t.instance)
        spool.go.set()
        assert storing.response().Status == 0x0000


@pytest.mark.parametrize("ending", ["close", "abort", "release"])
def test_an_instance_whose_sender_left_before_the_answer_is_stored_and_counted(
    start: Start, tmp_path: Path, ending: str
) -> None:
    spool = SlowSpool(tmp_path / "spool")
    node = start(spool=spool)
    scu = Scu(node.port).associate_for(ct())
    scu.begin_store(ct())
    scu.send_data(ct(), ct().data)
    assert spool.asked.wait(60)
    if ending == "abort":
        scu.socket.sendall(pdu(7, bytes(4)))
    elif ending == "release":
        scu.socket.sendall(struct.pack(">BxI4x", 5, 4))
    else:
        scu.socket.close()
    time.sleep(0.2)
    spool.go.set()
    row = node.soon(lambda: next((row for row in node.rows(t.association) if row.ended_at), None))
    assert (row.stored, row.refused) == (1, 0)
    assert len(node.stored()) == 1
    scu.socket.close()
    with Scu(node.port) as after:
        assert after.associate().echo() == 0x0000


def test_requests_sent_without_waiting_for_answers_are_answered_in_order(start: Start) -> None:
    node = start()
    slices = [ct(n) for n in range(1, 41)]
    with Scu(node.port) as scu:
        scu.associate_for(slices[0])
        for one in slices:
            scu.begin_store(one)
            scu.send_data(one, one.data)
        answers = [scu.response() for _ in slices]
        scu.release()
    assert [answer.Status for answer in answers] == [0x0000] * 40
    assert [answer.MessageIDBeingRespondedTo for answer in answers] == list(range(1, 41))
    assert [answer.AffectedSOPInstanceUID for answer in answers] == [one.sop_instance_uid for one in slices]
    assert len(node.stored()) == 40


def test_other_services_are_refused_and_the_association_goes_on(start: Start) -> None:
    node = start()
    with Scu(node.port) as scu:
        scu.associate_for(ct())
        command = scu.store_command(ct())
        command.CommandField = 0x0020  # C-FIND
        command.CommandDataSetType = 0x0101
        scu.send_command(command, scu.context_of(ct()))
        assert scu.response().Status == 0x0211
        command.CommandField = 0x0FFF  # C-CANCEL has no response
        command.MessageIDBeingRespondedTo = 1
        scu.send_command(command, scu.context_of(ct()))
        assert scu.echo() == 0x0000
        assert scu.store(ct()) == 0x0000


@pytest.mark.parametrize("longest", [0, 64, 128, 1_000_000])
def test_answers_fit_the_peer_s_longest_pdu(start: Start, longest: int) -> None:
    node = start()
    with Scu(node.port) as scu:
        scu.associate_for(ct(), max_pdu=longest)
        scu.begin_store(ct())
        scu.send_data(ct(), ct().data)
        sizes = []
        last = False
        while not last:
            kind, body = scu.pdu()
            assert kind == 4
            sizes.append(len(body))
            last = bool(body[5] & 2)
        assert not longest or max(sizes) <= longest
        assert scu.store(ct()) == 0x0000


NO_COMMAND = pdv(1, 2, b"data")
BROKEN: dict[str, tuple[bytes, int]] = {
    "a PDU type that does not exist": (pdu(0x99, b"1234"), 1),
    "a second association request": (request((Verification, [ImplicitVRLittleEndian])), 2),
    "an answer to nothing": (pdu(0x02, bytes(64)), 2),
    "a response to no release": (pdu(0x06, bytes(4)), 2),
    "a PDU of 4 GiB": (b"\x04\x00\xff\xff\xff\xff", 6),
    "a value longer than its PDU": (pdu(4, struct.pack(">IBB", 1000, 1, 3) + b"x"), 6),
    "a value of no length": (pdu(4, struct.pack(">IBB", 0, 1, 3)), 6),
    "half a value header": (pdu(4, b"\0\0\0"), 6),
    "a context that was not accepted": (p_data(pdv(77, 3, b"x" * 20)), 6),
    "a data set without command": (p_data(NO_COMMAND), 2),
    "a command set that is none": (p_data(pdv(1, 3, b"\xff" * 40)), 6),
    "an empty command set": (p_data(pdv(1, 3, b"")), 6),
    "a command set without end": (p_data(pdv(1, 1, bytes(60_000))) * 4, 6),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_peer_that_breaks_the_protocol_is_aborted_and_no_other(start: Start, broken: str) -> None:
    node = start()
    sent, reason = BROKEN[broken]
    with Scu(node.port) as other, Scu(node.port) as scu:
        other.associate_for(ct(pixels=100_000))
        other.begin_store(ct(pixels=100_000))  # is in the middle of its data set meanwhile
        other.send_data(ct(), ct(pixels=100_000).data[:50_000], ends=False)
        scu.associate()
        scu.socket.sendall(sent)
        assert scu.pdu() == (A_ABORT, bytes([0, 0, 2, reason]))
        other.send_data(ct(), ct(pixels=100_000).data[50_000:])
        assert other.response().Status == 0x0000


def test_a_command_in_the_middle_of_a_data_set_aborts(start: Start) -> None:
    node = start()
    with Scu(node.port) as scu:
        scu.associate_for(ct())
        scu.begin_store(ct())
        scu.send_data(ct(), ct().data[:100], ends=False)
        command = command_set(scu.store_command(ct(2)))
        scu.socket.sendall(p_data(pdv(scu.context_of(ct()), 3, command)))
        assert scu.pdu()[0] == A_ABORT
    node.soon(lambda: not [name for name in node.files() if name.startswith("incoming/")])


def test_stopping_lets_a_transfer_finish_and_takes_no_new_one(start: Start) -> None:
    node = start()
    one = ct(pixels=400_000)
    with Scu(node.port) as scu:
        scu.associate_for(one)
        scu.begin_store(one)
        scu.send_data(one, one.data[:300_000], ends=False)
        stopping = threading.Thread(target=node.stop)
        stopping.start()
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            Scu(node.port)
        scu.send_data(one, one.data[300_000:])
        assert scu.response().Status == 0x0000
        scu.release()
        stopping.join(60)
        assert not stopping.is_alive()
    assert len(node.stored()) == 1


def test_an_association_whose_commit_outlasts_the_stopping_is_recorded(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scp, "DRAIN_S", 0.2)
    spool = SlowSpool(tmp_path / "spool")
    node = start(spool=spool)
    with Scu(node.port) as scu:
        scu.associate_for(ct())
        scu.begin_store(ct())
        scu.send_data(ct(), ct().data)
        assert spool.asked.wait(60)
        stopping = threading.Thread(target=node.stop)
        stopping.start()
        assert scu.pdu()[0] == A_ABORT
        spool.go.set()
        stopping.join(60)
    assert len(node.stored()) == 1
    (association,) = node.rows(t.association)
    assert (association.stored, association.end_reason) == (1, "aborted: the receiver was stopped")


def test_without_descriptors_no_connection_is_taken_and_no_processor_used(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start()
    accept = socket.socket._accept  # type: ignore[attr-defined]

    def exhausted(listener: socket.socket) -> tuple[int, object]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket.socket, "_accept", exhausted)
    with Scu(node.port) as scu:
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.1
        monkeypatch.setattr(socket.socket, "_accept", accept)
        assert scu.associate().echo() == 0x0000


def test_several_receivers_share_one_port(start: Start) -> None:
    first = start()
    second = start(port=first.port)
    slices = [ct(n) for n in range(1, 25)]
    for one in slices:
        assert store_all(first.port, [one]) == [0x0000]
    assert len(first.stored()) == 24
    assert {row.calling_ae for row in second.rows(t.association)} == {"SCANNER"}


def test_an_idle_receiver_uses_no_processor(start: Start) -> None:
    node = start()
    with Scu(node.port) as scu, Scu(node.port):
        scu.associate_for(ct())
        scu.begin_store(ct())
        scu.send_data(ct(), ct().data[:100], ends=False)  # in mid-object, and nothing comes
        time.sleep(0.2)
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.05


def test_an_ae_title_with_characters_of_no_database_costs_nobody_else_anything(start: Start, database_url: str) -> None:
    node = start(url=database_url, accept_any_peer=True)
    for calling in ("A\0B", "\x7f\x1b", "Ä"):
        with Scu(node.port) as scu:
            try:
                scu.associate_for(ct(), calling=calling)
                scu.store(ct())
            except (Rejected, Aborted):
                continue
    assert store_all(node.port, [ct(2)]) == [0x0000]
    row = node.soon(
        lambda: next((r for r in node.rows(t.association) if r.ended_at and r.calling_ae == "SCANNER"), None)
    )
    assert row.stored == 1
    assert UID(ct(2).sop_instance_uid) in node.stored()
