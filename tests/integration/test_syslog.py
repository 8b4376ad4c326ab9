"""Audit messages reach a syslog server, in order, over each transport, and wait while it is away."""

from __future__ import annotations

import re
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dicom_node.db import chain
from dicom_node.db.audit import record
from dicom_node.db.engine import transaction
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.delivery import Sent
from dicom_node.notify.dicom_audit import Reporter
from dicom_node.notify.syslog import AuditSyslog
from dicom_node.settings import Audit
from tests.ct import small_ct
from tests.integration.operated import Operated, operated
from tests.node import wait_for

REPORTER = Reporter("node", "Hospital", "AINODE", "ai.hospital.example")
LINE = re.compile(rb"^<8[45]>1 \S+Z ai\.hospital\.example dicom-node \d+ DICOM\+RFC3881 - \xef\xbb\xbf(.+)$", re.DOTALL)


class Server:
    """A syslog server on loopback that keeps what it gets."""

    def __init__(self, *, udp: bool = False, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.lines: list[bytes] = []
        lines = self.lines

        class Datagram(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                lines.append(self.request[0])

        class Counted(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while count := _count(self.rfile):
                    lines.append(self.rfile.read(count))

        server: socketserver.BaseServer
        if udp:
            server = socketserver.UDPServer(("127.0.0.1", port), Datagram)
        else:
            socketserver.ThreadingTCPServer.allow_reuse_address = True
            server = socketserver.ThreadingTCPServer(("127.0.0.1", port), Counted)
            if tls is not None:
                server.socket = tls.wrap_socket(server.socket, server_side=True)
        self._server = server
        self.port: int = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def messages(self, count: int) -> list[ElementTree.Element]:
        wait_for(lambda: len(self.lines) >= count, 60, lambda: f"{self.lines}")
        found = [LINE.match(line) for line in self.lines]
        return [ElementTree.fromstring(one[1]) for one in found if one]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _count(file: object) -> int:
    digits = b""
    while (c := file.read(1)).isdigit():  # type: ignore[attr-defined]
        digits += c
    return int(digits or b"0")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Operated]:
    with operated(f"sqlite:///{tmp_path / 'node.db'}", tmp_path) as made:
        yield made


def forward(node: Operated, settings: Audit) -> AuditSyslog:
    return AuditSyslog(node.engine, settings, REPORTER, "test")


def happen(node: Operated, folder: Path) -> None:
    """A study comes and goes, and a stranger is turned away."""
    node.receive(small_ct(folder, slices=8))
    (job,) = node.jobs(state="scheduled")
    node.complete(job["id"])
    node.send(Sent(0x0000))
    with transaction(node.engine) as tx:
        stranger = {"from": "STRANGER", "address": "10.0.0.9", "reason": "unknown"}
        record(tx, AuditEvent(Event.ASSOCIATION_REJECTED, detail=stranger))
        while chain.extend(tx):
            pass


def test_messages_arrive_over_udp_in_the_words_of_the_standard(node: Operated, tmp_path: Path) -> None:
    server = Server(udp=True)
    sender = forward(node, Audit(syslog=f"udp://127.0.0.1:{server.port}"))
    happen(node, tmp_path / "ct")
    sender.step()
    sender.step()

    received, delivered, rejected = server.messages(3)

    server.close()
    assert [m.find("EventIdentification/EventID").get("csd-code") for m in (received, delivered, rejected)] == [  # type: ignore[union-attr]
        "110104",
        "110104",
        "110113",
    ]
    who = [(p.get("UserID"), p[0].get("csd-code")) for p in received.findall("ActiveParticipant")]
    assert who == [("CT1", "110153"), ("AINODE", "110152")]
    what = {
        o[0].get("originalText"): o.get("ParticipantObjectID") for o in received.iter("ParticipantObjectIdentification")
    }
    assert set(what) == {"Study Instance UID", "Patient Number"}
    assert what["Patient Number"] == "SYN-001"
    assert received.find(".//SOPClass").get("NumberOfInstances") == "8"  # type: ignore[union-attr]
    assert delivered.find(".//SOPClass").get("NumberOfInstances") == "1"  # type: ignore[union-attr]
    assert rejected.find("ActiveParticipant").get("NetworkAccessPointID") == "10.0.0.9"  # type: ignore[union-attr]
    assert rejected.find("EventIdentification").get("EventOutcomeIndicator") == "4"  # type: ignore[union-attr]


def test_who_signs_in_looks_and_is_refused_is_told_with_the_study_that_was_seen(node: Operated, tmp_path: Path) -> None:
    server = Server(udp=True)
    sender = forward(node, Audit(syslog=f"udp://127.0.0.1:{server.port}"))
    sender.step()
    here = {"address": "10.0.0.7"}
    told = (
        AuditEvent(Event.LOGIN_FAILED, actor="nobody", detail=here),
        AuditEvent(Event.LOGIN, actor="user vera", detail=here),
        AuditEvent(Event.VIEWED, actor="user vera", detail={"page": "study", "study": "1.2.3"}),
        AuditEvent(Event.SENT_OUT, actor="user vera", detail={"what": "dicomweb", "uid": "1.2.3.4"}),
        AuditEvent(Event.ACCESS_REFUSED, actor="user vera", detail={"needs": "operate"}),
        AuditEvent(Event.ACCOUNT_CHANGED, actor="user ann", detail={"account": "vera", "role": "viewer"}),
        AuditEvent(Event.LOGOUT, actor="user vera"),
    )
    with transaction(node.engine) as tx:
        record(tx, *told)
        while chain.extend(tx):
            pass
    sender.step()

    messages = server.messages(len(told))

    server.close()
    kinds = []
    for message in messages:
        event = message.find("EventIdentification")
        assert event is not None
        code, kind = event.find("EventID"), event.find("EventTypeCode")
        assert code is not None
        kinds.append((code.get("csd-code"), None if kind is None else kind.get("csd-code")))
    login, alert = ("110114", "110122"), "110113"
    looks = [("110103", None)] * 2
    assert kinds == [login, login, *looks, (alert, "110132"), (alert, "110137"), ("110114", "110123")]
    outcomes = [m.find("EventIdentification").get("EventOutcomeIndicator") for m in messages]  # type: ignore[union-attr]
    assert outcomes == ["4", "0", "0", "0", "4", "0", "0"]
    who = messages[1].find("ActiveParticipant")
    assert who is not None
    assert (who.get("UserID"), who.get("NetworkAccessPointID")) == ("user vera", "10.0.0.7")
    seen = messages[2].find("ParticipantObjectIdentification")
    assert seen is not None
    assert seen.get("ParticipantObjectID") == "1.2.3"


def test_tcp_waits_for_a_server_that_is_away_and_loses_and_repeats_nothing(node: Operated, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Audit(syslog=f"tcp://127.0.0.1:{port}")
    sender = forward(node, settings)
    happen(node, tmp_path / "ct")
    sender.step()
    server = Server(port=port)
    forward(node, settings).step()
    sender.step()
    assert len(server.messages(3)) == 3
    server.close()


def test_tls_proves_the_server(node: Operated, tmp_path: Path) -> None:
    certificate = tmp_path / "server.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-keyout", certificate, "-out", tmp_path / "ca.pem"], check=True, capture_output=True)
    certificate.write_bytes(certificate.read_bytes() + (tmp_path / "ca.pem").read_bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server = Server(tls=context)
    url = f"tls://localhost:{server.port}"
    forward(node, Audit(syslog=url)).step()
    happen(node, tmp_path / "ct")
    forward(node, Audit(syslog=url)).step()
    assert server.lines == []  # nobody whom we know signed its certificate
    forward(node, Audit(syslog=url, syslog_ca=tmp_path / "ca.pem")).step()
    assert len(server.messages(3)) == 3
    server.close()
