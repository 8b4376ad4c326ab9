"""Peers that come and go, by the hundred, leave nothing behind in a receiver.

`python -m benchmarks.receive.memory` does it ten thousand times.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
from collections import Counter
from pathlib import Path

from dicom_node.receive.association import Association
from dicom_node.receive.scp import Connection
from dicom_node.spool import Incoming
from dicom_node.store.arrival import Arrival
from tests.integration.receive.conftest import Start
from tests.integration.receive.objects import ct
from tests.integration.receive.scu import Scu, request, store_all

WARM_UP, COUNT = 200, 400
OF_A_PEER = (Connection, Association, Arrival, Incoming)
MOST_MIB = 6.0  # the data sets that are sent after the warm-up have 10


def test_hundreds_of_peers_that_come_and_go_leave_nothing_behind(start: Start) -> None:
    node = start()
    come_and_go(node.port, range(WARM_UP))
    node.soon(lambda: not alive())
    before_mib = resident_mib()
    come_and_go(node.port, range(WARM_UP, WARM_UP + COUNT))
    node.soon(lambda: not alive())
    assert resident_mib() - before_mib < MOST_MIB


def come_and_go(port: int, numbers: range) -> None:
    """Store, ask for an echo, connect and leave, or break off inside the request, by turns."""
    whole = request((ct().sop_class_uid, [ct().transfer_syntax_uid]))
    for number in numbers:
        if number % 8 == 0:
            assert store_all(port, [ct(number, series=f"1.2.{number // 80}.4", pixels=200_000)]) == [0x0000]
        elif number % 8 == 4:
            with Scu(port) as scu:
                assert scu.associate().echo() == 0x0000
                scu.release()
        else:
            with socket.create_connection(("127.0.0.1", port), 60) as peer, contextlib.suppress(OSError):
                peer.sendall(whole[: number % len(whole) if number % 2 else 0])
                if number % 3 == 0:  # leave by a reset
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def alive() -> Counter[str]:
    """How many objects there are that belong to a peer or to what it sends."""
    gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in OF_A_PEER)


def resident_mib() -> float:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
