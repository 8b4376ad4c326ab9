"""Delivering processes on one database and spool."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from dicom_node import engine as job_engine
from dicom_node.db import migrate
from dicom_node.db.deliveries import ALL_BINARY, NO_CHOICE
from dicom_node.db.engine import open_engine
from dicom_node.domain.encoding import Encoding
from dicom_node.domain.model import OutputKind
from dicom_node.engine import Enqueuer
from tests.integration.deliver.rows import add_results, deliveries
from tests.node import free_port

SETTINGS = """\
[database]
url = "{url}"
[deliver]
retry_first_s = 0.3
retry_longest_s = {longest_s}
give_up_after_s = {give_up_after_s}
verify_sweep_s = 0.2
[receive]
address = "127.0.0.1"
port = {receive_port}
processes = 1
[engine]
poll_s = 0.1
beat_s = 0.3
dead_after_s = 2
"""
DESTINATION = """\
[destinations.{name}]
host = "127.0.0.1"
port = {port}
ae_title = "{ae_title}"
timeout_s = 30
{more}
"""
MADE = (OutputKind.SEG, OutputKind.SR)


@dataclass
class Site:
    """One database and spool, and the delivering processes that a test starts on them."""

    home: Path
    engine: Engine
    enqueuer: Enqueuer
    url: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    receive_port: int = field(default_factory=free_port)

    @property
    def settings(self) -> Path:
        """The settings file, written by `deliverer`."""
        return self.home / "settings.toml"

    def deliverer(self, ports: Mapping[str, int], **how: Any) -> subprocess.Popen[bytes]:
        """Write the settings, as `write_settings` does, and start a deliverer in slot 0; its log is deliver.log."""
        self.write_settings(ports, **how)
        return self._start("tests.integration.deliver.deliverer", str(self.settings), "0")

    def write_settings(
        self,
        ports: Mapping[str, int],
        *,
        give_up_after_s: float = 3600,
        longest_s: float = 1.0,
        ae_title: str = "PACS",
        more: str = "",
        sections: str = "",
    ) -> None:
        """Write the settings file. `more` is put into the section of each port, `sections` are other destinations'."""
        patience = {"give_up_after_s": give_up_after_s, "longest_s": longest_s}
        text = SETTINGS.format(url=self.url, receive_port=self.receive_port, **patience)
        for name, port in ports.items():
            text += DESTINATION.format(name=name, port=port, ae_title=ae_title, more=more)
        self.settings.write_text(text + sections)
        (self.home / "rules").mkdir(exist_ok=True)

    def receiver(self) -> subprocess.Popen[bytes]:
        """Start a receiver with the settings of the deliverer, and wait until it listens."""
        process = self._start("dicom_node", "receive", "--settings", str(self.settings))
        self.wait(lambda: _listens(self.receive_port))
        return process

    def _start(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.home / "deliver.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", module, *words], stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def results(
        self,
        *destinations: str,
        kinds: Sequence[OutputKind] = MADE,
        rows: int = 64,
        wanted: Mapping[str, Collection[OutputKind]] = NO_CHOICE,
        encodings: Mapping[str, Encoding] = ALL_BINARY,
        not_as: Mapping[str, str] | None = None,
    ) -> str:
        """Store a job's results and enqueue their deliveries."""
        where, spool = destinations or ("pacs",), self.home / "spool"
        how: dict[str, Any] = {"wanted": wanted, "encodings": encodings, "not_as": not_as}
        with self.engine.begin() as tx:
            return add_results(tx, spool, self.enqueuer, destinations=where, kinds=kinds, rows=rows, **how)

    def ask(self, *words: str) -> str:
        """Run a command on these settings that must succeed; its output."""
        command = [sys.executable, "-m", "dicom_node", *words, "--settings", str(self.settings)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def wait(self, met: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Wait until something is the case."""
        end = time.monotonic() + timeout_s
        while not met():
            assert time.monotonic() < end, (self.home / "deliver.log").read_text()
            time.sleep(0.05)

    def states(self, job_id: str, destination: str = "pacs") -> list[str]:
        """The states of a job's deliveries to one destination."""
        return [row.state for row in deliveries(self.engine, job_id, destination)]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
