"""A PostgreSQL server of the tests' own: one cluster for the session, a fresh database for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.node import free_port
from tests.peers.missing import need

_FOLDERS = tuple(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
_number = count()


class PostgreSQL:
    """A cluster in a folder of its own, on the loopback address.

    PostgreSQL refuses to run as root, so for root it runs as the user postgres.
    """

    def __init__(self) -> None:
        self._bin = Path(need("initdb", folders=_FOLDERS)).resolve().parent
        self._folder = Path(mkdtemp(prefix="dicom-node-postgresql-"))
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as:
            shutil.chown(self._folder, "postgres", "postgres")
        self.port = free_port()
        self._data = str(self._folder / "data")
        try:
            self._run("initdb", "-D", self._data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync")
            self._start()
        except BaseException:
            shutil.rmtree(self._folder)
            raise

    def database(self) -> str:
        """Make a new, empty database; its URL."""
        name = f"test{next(_number)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "test", name)
        return f"postgresql://test@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """End the server and remove its folder."""
        try:
            self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")
        finally:
            shutil.rmtree(self._folder)

    def pause(self) -> None:
        """Stop the server; what it holds stays."""
        self._run("pg_ctl", "-D", self._data, "-m", "fast", "-w", "stop")

    def resume(self) -> None:
        """Start the server again on the same port."""
        self._start()

    def _start(self) -> None:
        # Without fsync: our processes get killed, the machine does not.
        where = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        options = f"{where} -c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs. Its output goes to a file: a server holds on to a pipe that it inherits."""
        output = self._folder / f"{program}.out"
        with output.open("wb") as file:
            done = subprocess.run(
                [*self._as, str(self._bin / program), *arguments],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                check=False,
            )
        assert done.returncode == 0, f"{program}: {output.read_text()}"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """The server of the session."""
    server = PostgreSQL()
    yield server
    server.stop()
