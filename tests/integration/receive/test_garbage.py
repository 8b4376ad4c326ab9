"""Bytes that no peer in its right mind sends. The long run of this is a matter of its own; here are a few hundred."""

from __future__ import annotations

import contextlib
import random
import socket
import struct

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_node.db import tables as t
from dicom_node.digest import digest_of
from tests.integration.receive.conftest import Running, Start
from tests.integration.receive.garbage import OPENING, mutated, stream
from tests.integration.receive.objects import FILES, ct, sample
from tests.integration.receive.scu import Aborted, Instance, Scu, pdu, request, store_all


def stored_files(node: Running) -> set[str]:
    return {name for name in node.files() if name.startswith("instances/")}


def test_after_hundreds_of_malformed_streams_the_receiver_answers_and_has_kept_its_rows_true(
    start: Start, database_url: str
) -> None:
    node = start(url=database_url, max_associations=200, max_associations_per_peer=200)
    rng = random.Random(20250301)
    for _ in range(300):
        with socket.create_connection(("127.0.0.1", node.port), 10) as peer:
            with contextlib.suppress(OSError):
                peer.sendall(stream(rng))
                peer.settimeout(0.005)  # some answers are read, most are not
                peer.recv(rng.choice((1, 4096)))
            if rng.random() < 0.3:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Scu(node.port) as scu:
        assert scu.associate().echo() == 0x0000
    assert store_all(node.port, [ct(99)]) == [0x0000]
    node.soon(lambda: not [name for name in node.files() if name.startswith("incoming/")])
    # the last of the streams may still be under way to their rows, or a resend's file to its deletion
    node.soon(lambda: {row.path for row in node.rows(t.instance)} == stored_files(node))
    for row in node.rows(t.instance):
        file = node.spool.path(row.path).read_bytes()
        assert digest_of(file[144 + int.from_bytes(file[140:144], "little") :]) == row.digest


def test_damaged_data_sets_are_stored_or_refused_and_each_is_answered(start: Start, database_url: str) -> None:
    node = start(url=database_url)
    rng = random.Random(7)
    for name in FILES.values():
        whole = sample(name)
        with Scu(node.port) as scu:
            scu.associate_for(whole)
            for number in range(25):
                status = scu.store(mutated(whole, rng, "" if number % 2 else f"1.9.{number}"))
                assert status in (0x0000, 0x0111, 0xA900, 0xC000)
            scu.release()
    assert {row.path for row in node.rows(t.instance)} == stored_files(node)


def nested(levels: int) -> bytes:
    """A data set with sequences of undefined length inside one another."""
    sequence = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return (sequence + item) * levels


@pytest.mark.parametrize(
    "data",
    [
        nested(20_000),
        struct.pack("<HH2sH", 0x0008, 0x0005, b"CS", 0) * 200_000,
        struct.pack("<HH2sHI", 0x0008, 0x0005, b"UT", 0, 0xFFFFFFFE),
        struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 300_000,
        b"\0" * 1_000_000,
        b"\xff" * 1_000_000,
    ],
    ids=["nested", "elements without end", "a value of 4 GiB", "items without end", "zeros", "ones"],
)
def test_a_data_set_made_to_hurt_is_refused_at_once(start: Start, data: bytes) -> None:
    node = start()
    with Scu(node.port, timeout_s=60) as scu:
        scu.associate_for(ct())
        assert scu.store(Instance(CTImageStorage, "1.2.3", ExplicitVRLittleEndian, data)) == 0xC000
        assert scu.echo() == 0x0000


def test_association_requests_made_to_hurt_cost_little(start: Start) -> None:
    node = start()
    huge = request(*[(f"1.2.{n}", [f"1.2.{n}.{m}" for m in range(40)]) for n in range(127)])
    endless = pdu(1, OPENING[6:] + struct.pack(">BxH", 0x21, 0) * 100_000)
    for data in (huge, endless, OPENING[:-3], pdu(1, OPENING[6:80])):
        with Scu(node.port, timeout_s=60) as scu:
            scu.socket.sendall(data)
            scu.socket.settimeout(0.5)
            with contextlib.suppress(Aborted, TimeoutError):
                scu.pdu()
        with Scu(node.port, timeout_s=60) as scu:
            assert scu.associate().echo() == 0x0000
