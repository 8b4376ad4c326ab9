"""The asynchronous operations window (PS3.7 D.3.3.3): said honestly, and kept by both sides."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from dicom_node.db import tables as t
from dicom_node.receive.admission import MOST_OPERATIONS
from tests.integration.receive.conftest import Start
from tests.integration.receive.objects import ct
from tests.integration.receive.scu import Scu, item, user_information
from tests.integration.receive.test_association import SlowSpool


def asks(invoked: int, performed: int = 1) -> bytes:
    return item(0x53, struct.pack(">HH", invoked, performed))


@pytest.mark.parametrize(("asked", "agreed"), [(0, MOST_OPERATIONS), (1, 1), (5, 5), (60_000, MOST_OPERATIONS)])
def test_as_many_operations_are_agreed_as_the_peer_wants_and_we_take(start: Start, asked: int, agreed: int) -> None:
    node = start()
    with Scu(node.port) as scu:
        scu.associate_for(ct(), more=asks(asked, 0))
        assert struct.unpack(">HH", user_information(scu.accepted)[0x53]) == (agreed, 1)


def test_a_peer_that_does_not_ask_gets_no_window(start: Start) -> None:
    with Scu(start().port) as scu:
        assert 0x53 not in user_information(scu.associate_for(ct()).accepted)


def test_requests_are_taken_up_to_the_window_and_stored_together(start: Start, tmp_path: Path) -> None:
    spool = SlowSpool(tmp_path / "spool")
    node = start(spool=spool)
    slices = [ct(n) for n in range(1, 31)]
    with Scu(node.port) as scu:
        scu.associate_for(slices[0], more=asks(8))
        for one in slices:
            scu.begin_store(one)
            scu.send_data(one, one.data)
        assert spool.asked.wait(60)
        node.soon(lambda: len([name for name in node.files() if name.startswith("incoming/")]) == 8)
        assert not node.rows(t.instance)
        spool.go.set()
        answers = [scu.response() for _ in slices]
        scu.release()
    assert [answer.Status for answer in answers] == [0x0000] * 30
    assert {answer.MessageIDBeingRespondedTo for answer in answers} == {*range(1, 31)}
    assert len(node.stored()) == 30
    row = node.soon(lambda: next((row for row in node.rows(t.association) if row.ended_at), None))
    assert (row.stored, row.refused, row.end_reason) == (30, 0, "released")


def test_a_release_waits_for_the_answers_that_are_owed(start: Start, tmp_path: Path) -> None:
    spool = SlowSpool(tmp_path / "spool")
    node = start(spool=spool)
    slices = [ct(1), ct(2, StudyInstanceUID=None), ct(3)]
    with Scu(node.port) as scu:
        scu.associate_for(slices[0], more=asks(0))
        for one in slices:
            scu.begin_store(one)
            scu.send_data(one, one.data)
        scu.socket.sendall(struct.pack(">BxI4x", 5, 4))
        assert spool.asked.wait(60)
        spool.go.set()
        assert sorted(scu.response().Status for _ in slices) == [0x0000, 0x0000, 0xC000]
        assert scu.pdu()[0] == 0x06
    assert len(node.stored()) == 2
