"""A migrated database and worker processes on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine

from dicom_node import engine as job_engine
from dicom_node.db import migrate
from dicom_node.db.engine import open_engine
from dicom_node.engine import Enqueuer
from dicom_node.settings import Settings, load_settings

SETTINGS = """\
[database]
url = "{url}"
[engine]
poll_s = 0.1
beat_s = 0.3
dead_after_s = {dead_after_s}
"""


@dataclass
class Site:
    """One database with its job engine, and the processes that a test starts on it."""

    home: Path
    settings: Settings
    engine: Engine
    enqueuer: Enqueuer
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def worker(self, slot: int = 0, *, dead_after_s: float | None = None) -> subprocess.Popen[bytes]:
        """Start a worker process; its log is worker.log."""
        file = self.home / "settings.toml"
        if dead_after_s is not None:
            file = self.home / f"settings{dead_after_s}.toml"
            file.write_text(SETTINGS.format(url=self.settings.database.url, dead_after_s=dead_after_s))
        with (self.home / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.integration.engine.worker", str(file), str(slot)]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def wait(self, met: Callable[[], object], timeout_s: float = 200.0) -> None:
        """Wait until something is the case."""
        end = time.monotonic() + timeout_s
        while not met():
            assert time.monotonic() < end, (self.home / "worker.log").read_text()
            time.sleep(0.05)

    def started(self, job_id: str, attempt: int) -> bool:
        """Whether an attempt was begun."""
        return (self.home / f"{job_id}.{attempt}").exists()


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[Site]:
    file = tmp_path / "settings.toml"
    file.write_text(SETTINGS.format(url=database_url, dead_after_s=2))
    settings = load_settings(file, {})
    migrate.upgrade(settings.database.url)
    job_engine.migrate(settings.database.url)
    engine = open_engine(settings.database.url)
    made = Site(tmp_path, settings, engine, Enqueuer(engine))
    yield made
    for process in made.processes:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    made.enqueuer.close()
    engine.dispose()
