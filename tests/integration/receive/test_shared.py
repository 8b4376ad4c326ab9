"""Several receivers on one port: connections are shared out fairly, and what waits outlives whoever dies."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]  # made at import

from dicom_node.db import migrate
from dicom_node.receive.shared import Shared
from tests.integration.receive.scu import Scu
from tests.node import free_port, wait_for

SETTINGS = """\
[database]
url = "sqlite:///node.db"
[receive]
address = "127.0.0.1"
port = {port}
processes = 2
peers = [{{ ae_title = "SCANNER" }}]
"""
CONTEXT = (str(CTImageStorage), [str(ExplicitVRLittleEndian)])
START_S = 180.0


@dataclass
class Pair:
    """Two receivers, as the supervisor starts them."""

    port: int
    shared: Shared
    processes: list[subprocess.Popen[bytes]]

    def open(self, count: int) -> list[Scu]:
        """Open connections, one right after the other, and ask for associations when all are there."""
        peers = [Scu(self.port, timeout_s=60) for _ in range(count)]
        return [peer.associate(CONTEXT) for peer in peers]

    def is_free(self) -> bool:
        return self.shared.connections == [0, 0]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    port = free_port()
    (tmp_path / "settings.toml").write_text(SETTINGS.format(port=port))
    migrate.upgrade(f"sqlite:///{tmp_path / 'node.db'}")
    with Shared.make("127.0.0.1", [port], 2) as shared:
        given = ["--settings", str(tmp_path / "settings.toml"), *(f"--shared={one}" for one in shared.descriptors)]
        command = [sys.executable, "-m", "dicom_node", "receive", *given]
        started = [
            subprocess.Popen([*command, "--slot", str(slot)], pass_fds=shared.descriptors, stderr=subprocess.DEVNULL)
            for slot in range(2)
        ]
        both = Pair(port, shared, started)
        try:
            wait_for(both.is_free, START_S)
            yield both
        finally:
            for process in started:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                process.wait(START_S)


def test_eight_associations_at_once_are_shared_out_fairly(pair: Pair) -> None:
    apart = []
    for _ in range(8):
        peers = pair.open(8)
        one, other = pair.shared.connections
        assert one is not None
        assert other is not None
        assert one + other == 8
        apart.append(abs(one - other))
        for peer in peers:
            peer.release()
        wait_for(pair.is_free, 60)
    assert sum(apart) <= 8, f"by chance they are 17 apart, all in all, and seldom fewer than 9: {apart}"


def test_what_waits_for_a_receiver_that_dies_is_answered_by_the_other(pair: Pair) -> None:
    one, other = pair.processes
    for process in (one, other):
        process.send_signal(signal.SIGSTOP)
    peers = [Scu(pair.port, timeout_s=60) for _ in range(8)]
    one.kill()
    one.wait(60)
    pair.shared.leave(0)  # as the supervisor does
    other.send_signal(signal.SIGCONT)
    for peer in peers:
        peer.associate(CONTEXT).release()
