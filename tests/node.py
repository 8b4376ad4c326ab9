"""A whole node for tests: real settings, real processes, asked through its own command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Any, TypeVar

from sqlalchemy import Engine, func, select

from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine, reading
from dicom_node.domain.job import ReportState
from dicom_node.settings import load_settings

T = TypeVar("T")

SETTINGS = """\
[node]
ae_title = "AINODE"

[database]
url = "{database_url}"

[spool]
path = "spool"
reserve_mib = {reserve_mib}

[receive]
address = "127.0.0.1"
port = {port}
processes = 2
peers = [{{ ae_title = "SCANNER", address = "127.0.0.1" }}]

[assemble]
quiet_s = {quiet_s}
patience_s = {patience_s}
sweep_s = 0.2

[work]
max_attempts = 12
retry_first_s = 0.5

[deliver]
retry_first_s = 0.5
retry_longest_s = 2

[engine]
poll_s = 0.1
beat_s = 0.5
dead_after_s = 5

[destinations.pacs]
host = "127.0.0.1"
port = {pacs_port}
ae_title = "{pacs_ae}"
timeout_s = 60
"""

RULE = """\
model = "lung_ct"
destinations = ["pacs"]

[when]
Modality = "CT"
slices = { at_least = 10 }
"""


class RunningNode:
    """`dicom-node serve` in a folder of its own.

    Parameters
    ----------
    home : pathlib.Path
        Folder for settings, rules, spool, log and, by default, the database.
    pacs_port, pacs_ae : int, str
        Where results go.
    database_url : str
        As in the settings.
    """

    def __init__(
        self,
        home: Path,
        pacs_port: int,
        pacs_ae: str,
        *,
        database_url: str = "sqlite:///node.db",
        quiet_s: float = 2.0,
        patience_s: float | None = None,
        reserve_mib: int = 16,
    ) -> None:
        self.home = home
        self.port = free_port()
        self.log = home / "node.log"
        self.settings = home / "settings.toml"
        (home / "rules").mkdir(parents=True)
        self.settings.write_text(
            SETTINGS.format(
                database_url=database_url,
                port=self.port,
                quiet_s=quiet_s,
                patience_s=patience_s or 4 * quiet_s,
                reserve_mib=reserve_mib,
                pacs_port=pacs_port,
                pacs_ae=pacs_ae,
            )
        )
        (home / "rules" / "chest_ct.toml").write_text(RULE)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RunningNode:
        """Start it and wait until every role is up."""
        seen = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command("serve"), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        process = self._process

        def up() -> bool:
            assert process.poll() is None, self.log.read_text()
            return b"ready: " in self.log.read_bytes()[seen:]

        try:
            wait_for(up, 240, lambda: "the node is not ready:\n" + self.log.read_text())
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self._process is not None
        return self._process.pid

    def kill_supervisor(self) -> None:
        """kill -9, and nothing else: its children have to notice by themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in order; by force when it takes too long."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(180)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise

    def command(self, *words: str) -> list[str]:
        """The command line of a dicom-node command on this node."""
        return [sys.executable, "-m", "dicom_node", *words, "--settings", str(self.settings)]

    def ask(self, *words: str) -> str:
        """Run a command that must succeed; its output."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def jobs(self, series_uid: str) -> list[dict[str, Any]]:
        """The jobs of one series, newest first."""
        answer: list[dict[str, Any]] = json.loads(self.ask("jobs", "--series", series_uid, "--json") or "[]")
        return answer

    def finished(self, series_uid: str, timeout_s: float = 240) -> dict[str, Any]:
        """Wait until the newest job of a series, its report and its deliveries are over; that job.

        Asked of the database: a command costs seconds of a core, which the model is in need of.
        """
        engine = open_engine(load_settings(self.settings).database.url, pool_size=1)
        try:
            wait_for(lambda: ended(engine, series_uid), timeout_s, lambda: self.log.read_text()[-6000:])
        finally:
            engine.dispose()
        return self.jobs(series_uid)[0]


def ended(engine: Engine, series_uid: str) -> str:
    """The state of the newest job of a series whose results are where they belong; empty while there is more to do."""
    newest = (
        select(t.job.c.id, t.job.c.state, t.job.c.report)
        .join(t.series)
        .where(t.series.c.series_instance_uid == series_uid)
        .order_by(t.job.c.created_at.desc())
    )
    with reading(engine) as tx:
        job = tx.execute(newest).first()
        if job is None or job.state in ("scheduled", "in progress") or job.report == ReportState.DUE:
            return ""
        waiting = select(func.count()).where(
            t.delivery.c.job_id == job.id, t.delivery.c.state.in_(("waiting", "sending"))
        )
        return "" if tx.scalar(waiting) else str(job.state)


def wait_for(
    look: Callable[[], T | None], timeout_s: float, why: Callable[[], str] = lambda: "", every_s: float = 0.1
) -> T:
    """Call `look` until it returns something true."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(every_s)
    raise AssertionError(f"waited {timeout_s:g} s in vain. {why()}")


def free_port() -> int:
    """A TCP port that nothing listens on, of those that no connection going out is given: nobody takes it before us."""
    while True:
        port = SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
