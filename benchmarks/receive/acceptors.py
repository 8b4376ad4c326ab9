"""Who is sent to: each is started once, in a folder of its own on the same disk, and asked for its processor time."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.receive.sender import send, send_plainly
from benchmarks.receive.series import Messages
from dicom_node.db import migrate
from dicom_node.receive.shared import Shared
from tests.node import free_port, wait_for
from tests.peers.missing import need
from tests.peers.orthanc import PLUGINS, Orthanc

SETTINGS = """\
[database]
url = "{url}"
[spool]
path = "spool"
[receive]
address = "127.0.0.1"
port = {port}
processes = {processes}
peers = [{{ ae_title = "SCANNER" }}]
"""
_TICKS = os.sysconf("SC_CLK_TCK")


class Acceptor:
    """Somebody who takes series."""

    called = "AINODE"

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []

    def take(self, messages: Messages, run: int, associations: int) -> float:
        """Be sent a series; the seconds that it took."""
        return send(self.port, messages.of_run(run), messages.syntax, associations, self.called)

    def cpu_s(self) -> float:
        """Processor time of its processes so far."""
        return sum(_cpu_s(process.pid) for process in self.processes)

    def rss_mib(self) -> float:
        """Memory of its processes."""
        return sum(_rss_mib(process.pid) for process in self.processes)

    def stop(self) -> None:
        """End it."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(60)

    def _start(
        self, command: Sequence[str], folder: Path, log: str = "log", keep: Sequence[int] = (), **environment: str
    ) -> None:
        with (folder / log).open("ab") as file:
            env = os.environ | environment
            started = subprocess.Popen(command, stdout=file, stderr=file, env=env, pass_fds=keep)
        self.processes.append(started)

    def _await(self) -> None:
        wait_for(lambda: _listens(self.port), 60)


class Node(Acceptor):
    """Our receivers, as `dicom-node serve` starts them, and nothing else of the node."""

    def __init__(self, folder: Path, database: str = "sqlite:///node.db", processes: int = 2) -> None:
        kind = database.split(":")[0].split("+")[0]
        super().__init__(f"dicom-node, {'SQLite' if kind == 'sqlite' else 'PostgreSQL'}")
        folder.mkdir()
        self.folder = folder
        settings = folder / "settings.toml"
        settings.write_text(SETTINGS.format(url=database, port=self.port, processes=processes))
        migrate.upgrade(database.replace("///node.db", f"///{folder / 'node.db'}"))
        with Shared.make("127.0.0.1", [self.port], processes) as shared:
            given = [f"--shared={one}" for one in shared.descriptors]
            for slot in range(processes):
                command = [sys.executable, "-m", "dicom_node", "receive", "--slot", str(slot), *given]
                self._start([*command, "--settings", str(settings)], folder, f"log{slot}", shared.descriptors)
        for slot in range(processes):
            wait_for(lambda log=folder / f"log{slot}": b"listening on" in log.read_bytes(), 60)  # type: ignore[misc]


@contextmanager
def lone_node(doc: str | None, count: int) -> Iterator[tuple[Node, int]]:
    """Parse how often to do what `doc` says, and where; meanwhile a node runs there."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--folder", type=Path, default=Path("var"))
    given = parser.parse_args()
    given.folder.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=given.folder.resolve(), prefix="receive-") as folder:
        node = Node(Path(folder) / "node")
        try:
            yield node, given.count
        finally:
            node.stop()


class Storescp(Acceptor):
    """dcmtk's storescp: bit-preserving, a process for each association, nothing synced."""

    def __init__(self, folder: Path) -> None:
        super().__init__("storescp (nothing synced)")
        folder.mkdir()
        options = ["--fork", "+B", "+xa", "-pdu", "131072", "-od", str(folder), str(self.port)]
        self._start([need("storescp"), *options], folder, TCP_NODELAY="1")
        self._await()


class OrthancDurable(Acceptor):
    """Orthanc with SyncStorageArea: files are synced, and rows as its index does.

    Its SQLite index is not synced at each commit, and there is no setting for that; a PostgreSQL syncs each.

    Parameters
    ----------
    database : str
        URL of an empty PostgreSQL database for the index; the files stay in `folder`. Without it: SQLite.
    """

    called = Orthanc.ae
    plugin = PLUGINS / "libOrthancPostgreSQLIndex.so"

    def __init__(self, folder: Path, database: str = "") -> None:
        super().__init__(f"Orthanc, {'PostgreSQL' if database else 'SQLite'}")
        more: dict[str, Any] = {"SyncStorageArea": True, "MaximumPduLength": 131072, "DicomThreadsCount": 16}
        more |= {"Plugins": [str(self.plugin)] if database else []}
        if database:
            more["PostgreSQL"] = {"EnableIndex": True, "ConnectionUri": database, "Lock": False}
        self._orthanc = Orthanc(folder, **more)
        self.port = self._orthanc.dicom_port
        self._orthanc.start()
        self.processes = [self._orthanc.process]

    def stop(self) -> None:
        """End it."""
        self._orthanc.discard()


class Sink(Acceptor):
    """The socket sink."""

    def __init__(self, folder: Path) -> None:
        super().__init__("socket sink, files synced")
        folder.mkdir()
        self._start([sys.executable, "-m", "benchmarks.receive.sink", str(self.port), str(folder)], folder)
        self._await()

    def take(self, messages: Messages, run: int, associations: int) -> float:
        """Be sent the same bytes, without the protocol."""
        return send_plainly(self.port, messages.of_run(run), associations)


def _cpu_s(pid: int) -> float:
    """User and system time of a process and of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
