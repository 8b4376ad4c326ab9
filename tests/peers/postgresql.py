"""A PostgreSQL server of the tests' own: one cluster for the session, a fresh database for each test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.node import free_port
from tests.peers.missing import need
from tests.peers.owned import owned

FOLDERS = tuple(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
_number = count()


class PostgreSQL:
    """A cluster in a folder of its own, on the loopback address.

    PostgreSQL refuses to run as root, so for root it runs as the user postgres.

    Parameters
    ----------
    fsync : bool
        Whether it syncs; tests do without: our processes get killed, the machine does not.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        self._fsync = fsync
        self._bin = Path(need("initdb", folders=FOLDERS)).resolve().parent
        self.folder = Path(mkdtemp(prefix="dicom-node-postgresql-"))
        self._user = "postgres" if os.geteuid() == 0 else ""
        if self._user:
            shutil.chown(self.folder, self._user, self._user)
        self._server: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._data = str(self.folder / "data")
        try:
            self._run("initdb", "-D", self._data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync")
            self._start()
        except BaseException:
            self.stop()
            raise

    def database(self, like: str = "template1") -> str:
        """Make a new database, empty or a copy of one of ours that nobody is connected to; its URL."""
        name = f"test{next(_number)}"
        self._run(
            "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "test", "-T", like.rpartition("/")[2], name
        )
        return f"postgresql://test@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """End the server and remove its folder."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def pause(self) -> None:
        """Stop the server; what it holds stays."""
        self._end(signal.SIGINT)

    def resume(self) -> None:
        """Start the server again on the same port; one that was not stopped goes on."""
        if self._server is None:
            self._start()

    def _start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "fsync": "on" if self._fsync else "off",
            "max_connections": "200",
        }
        command = [str(self._bin / "postgres"), "-D", self._data, "-p", str(self.port)]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        log = self.folder / "log"
        with log.open("ab") as file:
            command = owned(*command, user=self._user)
            self._server = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        end = time.monotonic() + 60
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > end:
                self._end(signal.SIGQUIT)
                raise AssertionError(f"PostgreSQL does not answer: {log.read_text()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, check=False, cwd=self.folder).returncode == 0

    def _end(self, how: signal.Signals) -> None:
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(180)
            self._server = None

    def _run(self, program: str, *arguments: str) -> None:
        command = owned(str(self._bin / program), *arguments, user=self._user)
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """The server of the session."""
    server = PostgreSQL()
    yield server
    server.stop()
