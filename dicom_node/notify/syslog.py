"""Audit messages over syslog (RFC 5424): in UDP datagrams (RFC 5426), or octet-counted over TCP or TLS (RFC 5425).

What the server took cannot be known: syslog has no answers. A message counts as sent once the system took its bytes,
so one that was on its way when the server died is lost, and none is sent before those before it were.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

from sqlalchemy import Engine

from dicom_node.db.audit import read_chained
from dicom_node.db.chain import head
from dicom_node.db.engine import reading, transaction
from dicom_node.db.sweeps import advance, held, note_end, start_at
from dicom_node.notify.dicom_audit import SUCCESS, Reporter, audit_message
from dicom_node.settings import Audit

SWEEP = "syslog"
AT_ONCE = 100
LEASE_S = 120.0
TIMEOUT_S = 10.0
_SECURITY, _NOTICE, _WARNING = 10, 5, 4  # facility and severities (RFC 5424 6.2.1)

Send = Callable[[bytes], None]
_log = logging.getLogger(__name__)


class AuditSyslog:
    """Sends audit events to a syslog server, those of the future when it is first switched on."""

    def __init__(self, engine: Engine, settings: Audit, reporter: Reporter, holder: str) -> None:
        self._engine = engine
        self._settings = settings
        self._reporter = reporter
        self._holder = holder
        with transaction(engine) as tx:
            start_at(tx, SWEEP, head(tx).no)

    def step(self) -> int:
        """Send what was chained since the last step; how many events that were. One that cannot be sent waits."""
        done = 0
        with held(self._engine, SWEEP, self._holder, LEASE_S) as position:
            if position is None:
                return 0
            try:
                with _connected(self._settings) as send:
                    while sent := self._send_some(send, position):
                        position, done = sent, done + 1
            except OSError as error:
                _log.warning("the audit trail waits for %s: %s", self._settings.syslog, error)
            with transaction(self._engine) as tx:
                note_end(tx, SWEEP)
        return done

    def _send_some(self, send: Send, position: int) -> int | None:
        with reading(self._engine) as tx:
            rows = read_chained(tx, position, AT_ONCE)
        for row in rows:
            if (message := audit_message(row, self._reporter)) is not None:
                send(syslog_line(*message, host=self._reporter.host, at=datetime.now(UTC)))
        if not rows:
            return None
        last: int = rows[-1].chain_no
        with transaction(self._engine) as tx:
            return last if advance(tx, SWEEP, self._holder, last) else None


def syslog_line(message: bytes, outcome: str, *, host: str, at: datetime) -> bytes:
    """Put a message into RFC 5424: security facility, MSGID as PS3.15 A.6 wants it, UTF-8 with its mark."""
    severity = _NOTICE if outcome == SUCCESS else _WARNING
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    name = "".join(c for c in host if 32 < ord(c) < 127)[:255] or "-"
    head = f"<{_SECURITY * 8 + severity}>1 {stamp} {name} dicom-node {os.getpid()} DICOM+RFC3881 - "
    return head.encode("ascii") + b"\xef\xbb\xbf" + message


@contextmanager
def _connected(settings: Audit) -> Iterator[Send]:
    server = urlsplit(settings.syslog)
    assert server.hostname is not None
    assert server.port is not None
    address = server.hostname, server.port
    if server.scheme == "udp":
        family = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0][0]
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            datagrams.connect(address)
            yield datagrams.sendall  # a datagram goes whole or not at all
        return
    with socket.create_connection(address, timeout=TIMEOUT_S) as plain:
        if server.scheme == "tcp":
            yield lambda line: plain.sendall(_counted(line))
            return
        with _tls(settings).wrap_socket(plain, server_hostname=server.hostname) as secure:
            yield lambda line: secure.sendall(_counted(line))
            with suppress(OSError):  # a close in order (RFC 5425 4.4): one without may cost the server our last lines
                secure.unwrap()


def _tls(settings: Audit) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.syslog_ca)
    if settings.syslog_certificate is not None:
        context.load_cert_chain(settings.syslog_certificate)
    return context


def _counted(line: bytes) -> bytes:
    return b"%d " % len(line) + line
