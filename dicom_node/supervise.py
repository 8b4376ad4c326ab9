"""`dicom-node serve`: every role as a process of its own, started again when it dies, stopped when we stop."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Event

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.db.engine import open_engine
from dicom_node.db.nodes import alive_pids, this_host
from dicom_node.domain.job import retry_delay_s
from dicom_node.errors import ConfigurationError, ConflictError
from dicom_node.loop import run_every
from dicom_node.receive.shared import Shared
from dicom_node.settings import Settings
from dicom_node.tls import check_tls
from dicom_node.tls.cautions import cautions

ROLES = ("receive", "watch", "assemble", "work", "deliver", "fetch", "maintain", "web")

LOOK_S = 0.5
RESTART_FIRST_S = 0.5
RESTART_LONGEST_S = 30.0
STEADY_S = 60.0  # a process that lived this long starts again without waiting
STOP_GRACE_S = 40.0

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Child:
    """One role process: what it is, and when it may be started (again)."""

    role: str
    slot: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    start_after: float = field(default=0.0)

    @property
    def name(self) -> str:
        """As in the logs: ``work/0``."""
        return f"{self.role}/{self.slot}"


class Supervisor:
    """Runs all roles of one machine.

    Parameters
    ----------
    settings : Settings
        ``receive.processes`` receivers and ``work.workers`` workers, one assembler, one deliverer, one maintainer, a
        watcher where there are folders to watch, a fetcher where ``retrieve.enabled`` and the web pages where
        ``web.enabled`` says so.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children = [Child("receive", slot) for slot in range(settings.receive.processes)]
        self._children += [Child("watch", 0)] if settings.receive.folders else []
        self._children += [Child("assemble", 0)]
        self._children += [Child("work", slot) for slot in range(settings.work.workers)]
        self._children += [Child("deliver", 0), Child("maintain", 0)]
        self._children += [Child("fetch", 0)] if settings.retrieve.enabled else []
        self._children += [Child("web", 0)] if settings.web.enabled else []
        self._shared: Shared | None = None  # by the receivers
        self._ready = False

    def run(self, stop: Event) -> None:
        """Start everything, keep it running until `stop`, then stop it in order.

        Raises
        ------
        ConflictError
            When another supervisor already serves this spool or this port.
        ConfigurationError
            When another program has the port, or the system refuses it.
        """
        with _only_one(self._settings):
            check_port(self._settings)
            check_tls(self._settings)
            for caution in cautions(self._settings):
                _log.warning("caution: %s", caution)
            receive = self._settings.receive
            self._shared = Shared.make(receive.address, receive.ports, receive.processes)
            engine = open_engine(self._settings.database.url, pool_size=1)
            try:
                run_every(lambda: self._look(engine), LOOK_S, stop)
            finally:
                self._shared.close()  # first: when the receivers are gone, nobody listens
                self._stop()
                engine.dispose()

    def _look(self, engine: Engine) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._bury(child, now)
            if child.process is None and now >= child.start_after:
                self._start(child, now)
        if not self._ready and self._all_up(engine):
            self._ready = True
            receive, web = self._settings.receive, self._settings.web
            _log.info(
                "ready: %s listens on %s:%s%s; %d processes",
                self._settings.node.ae_title,
                receive.address,
                "+".join(map(str, receive.ports)),
                f", web pages on {web.address}:{web.port}" if web.enabled else "",
                len(self._children),
            )

    def _start(self, child: Child, now: float) -> None:
        command = [sys.executable, "-m", "dicom_node", child.role, "--settings", str(self._settings.file)]
        command += ["--slot", str(child.slot), "--supervisor-pid", str(os.getpid())]
        shared = self._shared.descriptors if self._shared is not None and child.role == "receive" else []
        command += [f"--shared={one}" for one in shared]
        child.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=shared)
        child.started = now
        _log.info("%s started, process %d", child.name, child.process.pid)

    def _bury(self, child: Child, now: float) -> None:
        assert child.process is not None
        if self._shared is not None and child.role == "receive":
            self._shared.leave(child.slot)
        child.deaths = 1 if now - child.started > STEADY_S else child.deaths + 1
        delay_s = retry_delay_s(child.deaths, first_s=RESTART_FIRST_S, longest_s=RESTART_LONGEST_S)
        _log.error(
            "%s (process %d) ended with %s; started again in %.1f s",
            child.name,
            child.process.pid,
            ending(child.process.returncode),
            delay_s,
        )
        child.process = None
        child.start_after = now + delay_s

    def _all_up(self, engine: Engine) -> bool:
        running = {child.process.pid: child for child in self._children if child.process is not None}
        if len(running) < len(self._children) or not _answers(self._settings):
            return False
        try:
            with engine.begin() as tx:
                beating = alive_pids(tx, this_host())
        except SQLAlchemyError:
            return False
        return all(pid in beating for pid, child in running.items() if child.role in ("work", "deliver"))

    def _stop(self) -> None:
        running = [child for child in self._children if child.process is not None]
        _log.info("stopping: what is being received, sent or worked on has up to %.0f s", STOP_GRACE_S)
        for child in running:
            _signal(child, signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE_S
        for child in running:
            assert child.process is not None
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.warning("%s did not stop in %.0f s and is killed; nothing is lost", child.name, STOP_GRACE_S)
                _signal(child, signal.SIGKILL)
                child.process.wait()
        _log.info("stopped")


def tie_to(supervisor_pid: int) -> None:
    """Have the kernel send this process SIGTERM when its supervisor dies, however it dies (Linux; elsewhere nothing).

    Raises
    ------
    SystemExit
        When the supervisor is gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != supervisor_pid:
        raise SystemExit("the supervisor is gone")


def check_port(settings: Settings) -> None:
    """Say before anything starts that the port cannot be had.

    A receiver that somebody started by hand shares it (SO_REUSEPORT), so what answers EADDRINUSE here is another
    program.

    Raises
    ------
    ConfigurationError
        Naming file, key and reason.
    """
    for port in settings.receive.ports:
        _check_port(settings, port)


def _check_port(settings: Settings, port: int) -> None:
    receive = settings.receive
    address = receive.address
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind((address, port))
    except OSError as error:
        reason = {
            errno.EADDRINUSE: f"port {port} is in use by another program; stop it or choose another port",
            errno.EACCES: f"port {port} needs privileges (below 1024); choose one above, 11112 is usual",
            errno.EADDRNOTAVAIL: f"this machine has no address {address}; 0.0.0.0 listens on all",
        }.get(error.errno or 0, str(error))
        key = "receive.tls.port" if receive.tls is not None and port == receive.tls.port else "receive.port"
        key = "receive.address" if error.errno == errno.EADDRNOTAVAIL else key
        raise ConfigurationError(f"{settings.file}: {key}: {reason}") from None


def ending(returncode: int) -> str:
    """How a process ended, in words: an exit status, or the name of the signal that killed it."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Hold the spool and the port against a second supervisor. Both locks fall with the process, even by kill -9."""
    locks = settings.spool.path / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"serve@{this_host()}.lock").open("a+") as file:  # machines may share one spool
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip()
            raise ConflictError(f"another dicom-node (process {pid}) already serves {settings.spool.path}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        with ExitStack() as held:
            for port in settings.receive.ports:
                held.enter_context(_port_lock(port))
            yield


@contextmanager
def _port_lock(port: int) -> Iterator[None]:
    """Receivers of one node share their port on purpose; two nodes must not, or each would get half of every series."""
    if sys.platform != "linux":
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        try:
            holder.bind(f"\0dicom-node/{port}")  # abstract name: no file, and as wide as the port is (unix(7))
        except OSError:
            raise ConflictError(f"another dicom-node on this machine already listens on port {port}") from None
        yield


def _answers(settings: Settings) -> bool:
    receive, web = settings.receive, settings.web
    listening = [(receive.address, port) for port in receive.ports] + [(web.address, web.port)] * web.enabled
    try:
        for address, port in listening:
            reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
            socket.create_connection((reached, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _signal(child: Child, number: signal.Signals) -> None:
    assert child.process is not None
    if child.process.poll() is None:
        child.process.send_signal(number)
