"""Peers that mean harm, or are broken as if they did: each limit, on a real socket."""

from __future__ import annotations

import socket
import struct
import zlib

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_node.db import tables as t
from tests.integration.receive.conftest import Start, held, listens
from tests.integration.receive.objects import ct
from tests.integration.receive.scu import Aborted, Instance, Rejected, Scu, p_data, pdv, store_all

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom minds what the sender says here


def test_one_address_may_not_have_all_associations(start: Start) -> None:
    node = start(max_associations=10, max_associations_per_peer=2)
    open_ones = [Scu(node.port).associate() for _ in range(2)]
    with Scu(node.port) as scu, pytest.raises(Rejected, match=r"\(2, 3, 2\)"):
        scu.associate()
    assert "receive.max_associations_per_peer" in node.soon(lambda: node.events("association rejected"))[0]["reason"]
    open_ones[0].release()
    with Scu(node.port) as scu:
        assert scu.associate().echo() == 0x0000
    open_ones[1].socket.close()


def test_who_has_left_keeps_no_place_while_what_it_sent_waits_for_the_database(start: Start, database_url: str) -> None:
    node = start(url=database_url, max_associations_per_peer=1)
    with held(database_url):
        for batch in (0, 10):
            with Scu(node.port) as scu:
                both = [ct(batch), ct(batch + 1)]
                scu.associate_for(*both)
                for one in both:  # the second waits behind the first, and nobody reads on meanwhile
                    scu.begin_store(one)
                    scu.send_data(one, one.data)
        with Scu(node.port) as scu, pytest.raises(Rejected, match=r"\(2, 3, 2\)"):
            scu.associate()  # as many again as there are places are let go, no more
    node.soon(lambda: len(node.stored()) >= 2)  # what was complete is stored, whoever has left
    with Scu(node.port) as scu:
        assert scu.associate().echo() == 0x0000


def test_connections_that_say_nothing_do_not_pile_up_and_end_by_themselves(start: Start) -> None:
    node = start(max_associations_per_peer=1, artim_timeout_s=600)
    silent = [socket.create_connection(("127.0.0.1", node.port), 60) for _ in range(60)]
    assert silent[-1].recv(1) == b""  # at once, for there are too many already
    silent[0].setblocking(False)
    with pytest.raises(BlockingIOError):  # while the first still have their time
        silent[0].recv(1)
    for one in silent:
        one.close()
    hasty = start(artim_timeout_s=1.5)
    with socket.create_connection(("127.0.0.1", hasty.port), 60) as mute:
        assert mute.recv(1) == b""  # after the ARTIM time
    with Scu(hasty.port) as scu:
        assert scu.associate().echo() == 0x0000


def test_no_tag_becomes_a_path(start: Start) -> None:
    node = start()
    evil = ct(PatientID="../../../../tmp/x", PatientName="/etc/passwd", SeriesDescription="..\\..\\x", Modality="../CT")
    assert store_all(node.port, [evil]) == [0x0000]
    [stored] = [name for name in node.files() if name.startswith("instances/")]
    assert [part.strip("0123456789abcdef-") for part in stored.split("/")] == ["instances", "", ".dcm"]
    (row,) = node.rows(t.study)
    assert row.patient_id == "../../../../tmp/x"


@pytest.mark.parametrize(
    "uid",
    ["../../../etc/passwd", "1.2.3/../../x", "1.2.3'; DROP TABLE instance;--", "1." * 40 + "1", "1..2", "<b>1</b>"],
)
def test_a_uid_that_is_none_is_refused_whatever_it_tries(start: Start, uid: str) -> None:
    node = start()
    whole = ct()
    evil = Instance(whole.sop_class_uid, uid, whole.transfer_syntax_uid, whole.data)
    with Scu(node.port) as scu:
        scu.associate_for(whole)
        assert scu.store(evil) == 0xC000
        assert scu.store(ct(StudyInstanceUID=None)) == 0xC000
        assert scu.store(whole) == 0x0000
    assert len(node.rows(t.instance)) == 1


def test_what_is_stored_begins_with_nothing_that_a_machine_could_run(start: Start) -> None:
    node = start()
    program = b"MZ\x90\x00" + b"\x7fELF" + b"#!/bin/sh\n"
    assert store_all(node.port, [ct(PatientComments=program.decode("latin1"))]) == [0x0000]
    (file,) = node.stored().values()
    assert file[:132] == bytes(128) + b"DICM"


@pytest.mark.parametrize("charset", ["ISO_IR 999", "\\\\", "GB18030", "ISO 2022 IR 87\\ISO 2022 IR 13", "utf8; rm -rf"])
def test_a_character_set_that_nobody_knows_keeps_no_instance_out(start: Start, charset: str) -> None:
    node = start()
    whole = ct(PatientName=b"M\xfcller^\x1b$B;3ED\xff".decode("latin1"), SpecificCharacterSet="ISO_IR 100")
    data = whole.data.replace(b"ISO_IR 100", charset.encode().ljust(10)[:10])
    one = Instance(whole.sop_class_uid, whole.sop_instance_uid, whole.transfer_syntax_uid, data)
    assert store_all(node.port, [one]) == [0x0000]
    assert len(node.rows(t.series)) == 1


def test_a_deflate_bomb_behind_the_header_is_refused(start: Start) -> None:
    node = start()
    plain = ct().data
    head = plain[: plain.index(b"\xe0\x7f\x10\x00")]
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = 1 << 28
    parts = [bomb.compress(head + b"\xe0\x7f\x10\x00OB\0\0" + struct.pack("<I", size))]
    parts += [bomb.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    deflated = b"".join([*parts, bomb.flush()])
    whole = ct()
    evil = Instance(whole.sop_class_uid, whole.sop_instance_uid, str(DeflatedExplicitVRLittleEndian), deflated)
    assert store_all(node.port, [evil]) == [0xC000]
    assert "inflate" in node.soon(lambda: node.events("instance refused"))[0]["reason"]
    assert not node.rows(t.instance)


def test_fragments_without_end_cost_no_more_than_what_is_on_disk(start: Start) -> None:
    node = start()
    with Scu(node.port) as scu:
        scu.associate_for(ct())
        scu.begin_store(ct())
        context = scu.context_of(ct())
        for _ in range(200):  # empty ones: they say nothing, and never that they are the last
            scu.socket.sendall(p_data(*[pdv(context, 0, b"")] * 500))
        scu.socket.sendall(p_data(pdv(context, 0, b"x"), pdv(context, 3, b"")))  # and then a command in the middle
        with pytest.raises(Aborted):
            scu.response()
    node.soon(lambda: not [name for name in node.files() if name.startswith("incoming/")])
    assert listens(node.port)
