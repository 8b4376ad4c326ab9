"""The listener over TLS: real peers, certificates that come and go, and those who get no association."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from dicom_node.db import tables as t
from dicom_node.errors import ConfigurationError
from dicom_node.receive import credentials
from dicom_node.receive.scp import Receiver
from dicom_node.receive.secure import SecureSocket
from dicom_node.settings import ReceiveTls
from dicom_node.tls.server import server_context
from tests.integration.receive.conftest import Running, Start
from tests.integration.receive.objects import ct
from tests.integration.receive.scu import Aborted, Rejected, Scu
from tests.node import free_port
from tests.peers.certificates import Authority, Identity
from tests.peers.tools import dcmtk

CLEAR_REASON = "it speaks DICOM without TLS on the port for TLS"


class Hospital:
    """An authority, what it issued for the node and for one scanner, and a node that starts with them."""

    def __init__(self, folder: Path, start: Start) -> None:
        self.ca = Authority(folder)
        self.ours = self.ca.issue("ainode", "ainode.test", "127.0.0.1")
        self.scanner = self.ca.issue("ct1", "ct1.test")
        self.port = free_port()
        self.begin = start

    def start(self, *pairs: Identity, tls: dict[str, Any] | None = None, **receive: Any) -> Running:
        """Start a node that listens with TLS on `port`, and in clear on its own where a test's fixture needs it."""
        given = pairs or (self.ours,)
        section = {
            "port": self.port,
            "certificates": [pair.as_setting() for pair in given],
            "ca": str(self.ca.file),
            **(tls or {}),
        }
        return self.begin(**{"clear_text": True, "tls": section, **receive})

    def settings(self) -> ReceiveTls:
        """The settings of `start`, alone."""
        pair, ca = self.ours.as_setting(), str(self.ca.file)
        return ReceiveTls.model_validate({"certificates": [pair], "ca": ca})

    def client(self, shows: Identity | None = None, *, name: str = "ainode.test", **how: Any) -> ssl.SSLSocket:
        """Connect as a peer that knows our authority."""
        context = ssl.create_default_context(cafile=str(self.ca.file))
        context.maximum_version = how.get("newest", ssl.TLSVersion.MAXIMUM_SUPPORTED)
        context.minimum_version = how.get("oldest", ssl.TLSVersion.TLSv1_2)
        if ciphers := how.get("ciphers"):
            context.set_ciphers(ciphers)
        if shows is not None:
            context.load_cert_chain(shows.certificate, shows.key)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        try:
            return context.wrap_socket(plain, server_hostname=name)
        except OSError:
            plain.close()
            raise

    def scu(self, shows: Identity | None = None, **how: Any) -> Scu:
        """The same, for associations."""
        return Scu(self.port, over=self.client(shows, **how))


@pytest.fixture
def hospital(tmp_path: Path, start: Start) -> Hospital:
    return Hospital(tmp_path / "tls", start)


def refused(node: Running) -> list[str]:
    return [event["reason"] for event in node.soon(lambda: node.events("no TLS with a peer"))]


def test_dcmtk_stores_over_tls_and_the_bytes_are_what_it_sent(hospital: Hospital) -> None:
    ours, scanner = (hospital.ca.issue(name, "127.0.0.1", rsa_key=True) for name in ("node-rsa", "ct-rsa"))
    node = hospital.start(ours)
    file = str(get_testdata_file("MR_small.dcm"))
    tls = ["+tls", str(scanner.key), str(scanner.certificate), "+cf", str(hospital.ca.file)]
    where = ["-aet", "SCANNER", "-aec", "AINODE", "127.0.0.1", str(hospital.port)]

    dcmtk("echoscu", *tls, *where)
    dcmtk("storescu", *tls, *where, file)

    (kept,) = node.stored().values()
    assert dcmread(BytesIO(kept)).PixelData == dcmread(file).PixelData
    dcmtk("echoscu", "+tla", "-ic", *where, succeeds=False)
    dcmtk("echoscu", *where, succeeds=False)
    node.soon(lambda: CLEAR_REASON in refused(node))


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_large_instance_in_small_records_and_both_versions(hospital: Hospital, newest: ssl.TLSVersion) -> None:
    node = hospital.start()
    large = ct(pixels=3_000_000)
    with hospital.scu(hospital.scanner, newest=newest) as scu:
        scu.associate_for(large)
        assert scu.store(large) == 0x0000
        assert [scu.echo() for _ in range(5)] == [0x0000] * 5
        scu.release()
    assert node.stored()[large.sop_instance_uid].endswith(large.data)


def test_what_is_not_in_the_profile_is_not_negotiated(hospital: Hospital) -> None:
    node = hospital.start()
    old: dict[str, Any] = {
        "newest": ssl.TLSVersion.TLSv1_1,
        "oldest": ssl.TLSVersion.TLSv1_1,
        "ciphers": "DEFAULT:@SECLEVEL=0",
    }
    weak: dict[str, Any] = {"newest": ssl.TLSVersion.TLSv1_2, "ciphers": "ECDHE-ECDSA-AES256-SHA:AES256-SHA256"}
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises(ssl.SSLError, match=r"(?i)version|alert|eof"):
        hospital.client(hospital.scanner, **old)
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake"):
        hospital.client(hospital.scanner, **weak)
    reasons = node.soon(lambda: len(found := refused(node)) == 2 and found)
    assert set(reasons) == {"it speaks too old a TLS", "it offers none of the cipher suites of BCP 195 (RFC 9325)"}


def test_a_peer_without_a_certificate_or_with_one_of_strangers_or_too_old_is_turned_away(
    hospital: Hospital, tmp_path: Path
) -> None:
    node = hospital.start()
    stranger = Authority(tmp_path / "elsewhere", "Other CA").issue("ct1")
    expired = hospital.ca.issue("old", ends_in=timedelta(days=-1))
    for shows in (None, stranger, expired):
        with pytest.raises((OSError, AssertionError)), hospital.scu(shows) as scu:
            scu.associate()
    reasons = node.soon(lambda: len(found := refused(node)) == 3 and found)
    assert reasons[0] == "it shows no certificate"
    assert "certificate is not taken: " in reasons[1]
    assert "expired" in reasons[2]
    assert not node.rows(t.association)


@pytest.mark.parametrize(
    ("wanted", "shows", "is_let_in"),
    [
        ("ct1.test", "ct1", True),
        ("CN=ct1, O=Hospital", "ct1", True),
        ("ct1.test", "other", False),
        ("ct1.test", None, False),
        ("sha256:", "ct1", True),
        ("sha256:", "other", False),
    ],
)
def test_a_peer_has_to_show_the_certificate_that_belongs_to_its_ae_title(
    hospital: Hospital, wanted: str, shows: str | None, *, is_let_in: bool
) -> None:
    identities = {"ct1": hospital.scanner, "other": hospital.ca.issue("other", "other.test")}
    wanted += hospital.scanner.sha256 if wanted == "sha256:" else ""
    peers = [{"ae_title": "SCANNER", "certificate": wanted}]
    node = hospital.start(tls={"client_certificates": "optional"}, peers=peers)
    with hospital.scu(identities[shows] if shows else None) as scu:
        if is_let_in:
            assert scu.associate().echo() == 0x0000
            return
        with pytest.raises(Rejected) as rejected:
            scu.associate()
    assert rejected.value.args == ((1, 1, 3),)
    (event,) = node.soon(lambda: node.events("association rejected"))
    assert "has to show the certificate" in event["reason"]
    with Scu(node.port) as in_clear, pytest.raises(Rejected):
        in_clear.associate()


def test_a_peer_that_is_known_by_its_certificate_cannot_come_in_clear(hospital: Hospital) -> None:
    node = hospital.start(peers=[{"ae_title": "SCANNER", "certificate": "ct1.test"}])
    with Scu(node.port) as scu, pytest.raises(Rejected, match=r"\(1, 1, 3\)"):
        scu.associate()
    (event,) = node.soon(lambda: node.events("association rejected"))
    assert event["reason"].endswith("it has no TLS")


def test_without_clear_text_nothing_listens_there(hospital: Hospital) -> None:
    clear = free_port()
    section = {"port": hospital.port, "certificates": [hospital.ours.as_setting()], "ca": str(hospital.ca.file)}
    node = hospital.begin(port=clear, listens_on=hospital.port, tls=section)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", clear)) != 0
    with hospital.scu(hospital.scanner) as scu:
        assert scu.associate().echo() == 0x0000
    assert node.settings.receive.ports == (hospital.port,)


def test_tls_on_the_clear_port_is_told_as_such(hospital: Hospital) -> None:
    node = hospital.start()
    hospital.port = node.port
    with pytest.raises(OSError, match=r"(?i)eof|reset|version"):
        hospital.client()
    assert refused(node) == ["it speaks TLS on the port without it"]


def test_peers_that_stop_in_the_handshake_hold_up_nobody_and_are_let_go(hospital: Hospital) -> None:
    node = hospital.start(artim_timeout_s=1.0, max_associations=4)
    silent = [socket.create_connection(("127.0.0.1", hospital.port), timeout=60) for _ in range(20)]
    for number, one in enumerate(silent):
        one.sendall(b"\x16\x03\x01\x02\x00"[: 1 + number % 5])  # the head of a record that never comes
    with hospital.scu(hospital.scanner) as scu:
        scu.associate_for(ct())
        assert scu.store(ct()) == 0x0000
    for one in silent:
        assert one.recv(1000) == b""
        one.close()
    assert refused(node) == ["its handshake took more than 1 s"]


def test_a_health_check_that_connects_and_leaves_is_no_event(hospital: Hospital) -> None:
    node = hospital.start()
    for _ in range(3):
        socket.create_connection(("127.0.0.1", hospital.port)).close()
    with hospital.scu(hospital.scanner) as scu:
        assert scu.associate().echo() == 0x0000
    assert not node.events("no TLS with a peer")


def test_what_the_network_does_not_take_waits_and_comes_whole(hospital: Hospital) -> None:
    tls = hospital.settings()
    near, far = socket.socketpair()
    near.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    secure = SecureSocket(near, server_context(tls))
    context = ssl.create_default_context(cafile=str(hospital.ca.file))
    context.load_cert_chain(hospital.scanner.certificate, hospital.scanner.key)
    said = bytes(range(256)) * 1024
    heard, go = bytearray(), threading.Event()

    def listen() -> None:
        with context.wrap_socket(far, server_hostname="ainode.test") as client:
            assert go.wait(60)
            while len(heard) < len(said):
                heard.extend(client.recv(5000))

    listener = threading.Thread(target=listen)
    listener.start()
    left = said
    while left or secure.is_writing:
        with suppress(BlockingIOError):
            if not secure.is_open:
                secure.recv(4096)
            elif left:
                left = left[secure.send(left[:30_000]) :]
            else:
                secure.flush()
        if secure.is_open and secure.is_writing:
            go.set()  # nothing was read so far, so that it had to wait
    listener.join(60)
    secure.close()
    assert go.is_set()
    assert bytes(heard) == said


def test_the_name_and_the_kind_of_key_choose_the_certificate(hospital: Hospital) -> None:
    old_rsa = hospital.ca.issue("ainode-rsa", "ainode.test", rsa_key=True)
    other = hospital.ca.issue("second", "second.test")
    hospital.start(hospital.ours, old_rsa, other)

    def common_name(**how: Any) -> str:
        with hospital.client(hospital.scanner, **how) as connection:
            shown: Any = connection.getpeercert()
        return str(next(value for part in shown["subject"] for key, value in part if key == "commonName"))

    assert common_name() == "ainode"
    assert common_name(name="second.test") == "second"
    newest = ssl.TLSVersion.TLSv1_2
    assert common_name(newest=newest, ciphers="ECDHE-RSA-AES128-GCM-SHA256") == "ainode-rsa"


def test_new_files_count_without_a_restart_and_broken_ones_change_nothing(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(credentials, "LOOK_S", 0.0)
    node = hospital.start()

    def serial() -> str:
        with hospital.client(hospital.scanner) as connection:
            shown: Any = connection.getpeercert()
        return str(shown["serialNumber"])

    first = serial()
    with hospital.scu(hospital.scanner) as open_before:
        open_before.associate()
        hospital.ours.certificate.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
        assert serial() == first
        assert "goes on with the certificates from before" in caplog.text
        hospital.ca.issue("ainode", "ainode.test", "127.0.0.1")
        assert serial() not in ("", first)
        assert open_before.echo() == 0x0000
        open_before.release()
    hospital.ours.key.unlink()
    with hospital.scu(hospital.scanner) as scu:
        assert scu.associate().echo() == 0x0000
    assert not node.events("no TLS with a peer")


def test_a_revoked_certificate_is_refused_from_the_next_list_on(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "LOOK_S", 0.0)
    other = hospital.ca.issue("ct2", "ct2.test", "127.0.0.1", rsa_key=True)
    lists = hospital.ca.revoke(other)
    node = hospital.start(hospital.ca.issue("rsa", "ainode.test", "127.0.0.1", rsa_key=True), tls={"crl": str(lists)})

    def is_let_in(shows: Identity) -> bool:
        try:
            with hospital.scu(shows) as scu:
                return scu.associate().echo() == 0x0000
        except (OSError, Aborted):
            return False

    assert is_let_in(hospital.scanner)
    assert not is_let_in(other)
    assert refused(node) == ["its certificate is not taken: certificate revoked"]
    tls = ["+tls", str(other.key), str(other.certificate), "+cf", str(hospital.ca.file)]
    where = ["-aet", "SCANNER", "-aec", "AINODE", "127.0.0.1", str(hospital.port)]
    dcmtk("echoscu", *tls, *where, succeeds=False)
    hospital.ca.revoke(hospital.scanner)
    assert not is_let_in(hospital.scanner)
    assert is_let_in(other)
    dcmtk("echoscu", *tls, *where)
    hospital.ca.revoke(ended=True)
    assert not is_let_in(other)
    node.soon(lambda: "its certificate is not taken: CRL has expired" in refused(node))


def _everybody_reads_the_key(hospital: Hospital) -> dict[str, Any]:
    hospital.ours.key.chmod(0o644)
    return {}


def _key_of_another(hospital: Hospital) -> dict[str, Any]:
    return {"certificates": [{**hospital.ours.as_setting(), "key": str(hospital.scanner.key)}]}


def _no_such_file(hospital: Hospital) -> dict[str, Any]:
    return {"certificates": [{"certificate": "/nowhere.pem"}]}


def _no_list_in_crl(hospital: Hospital) -> dict[str, Any]:
    return {"crl": str(hospital.ca.file)}


def _no_certificates_in_ca(hospital: Hospital) -> dict[str, Any]:
    return {"ca": str(hospital.ours.key)}


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (_everybody_reads_the_key, "can be read by everybody"),
        (_key_of_another, "the key belongs to another certificate"),
        (_no_such_file, "/nowhere.pem cannot be read: No such file"),
        (_no_list_in_crl, "that were revoked, cannot be used: it holds no revocation list in PEM"),
        (_no_certificates_in_ca, "may vouch for peers, cannot be used"),
    ],
)
def test_files_that_cannot_be_used_refuse_to_start(
    hospital: Hospital, broken: Callable[[Hospital], dict[str, Any]], told: str, tmp_path: Path
) -> None:
    node = hospital.start()
    section = {"certificates": [hospital.ours.as_setting()], "ca": str(hospital.ca.file), **broken(hospital)}
    receive = type(node.settings.receive).model_validate({"tls": section})
    with pytest.raises(ConfigurationError, match=told):
        Receiver(node.settings.model_copy(update={"receive": receive}), node.spool, node.engine)


@pytest.mark.parametrize(
    ("says", "is_let_in"),
    [
        (["-usr", "ct1", "-pwd", "open sesame", "-rsp"], True),
        (["-usr", "ct1", "-pwd", "sesame"], False),
        (["-usr", "ct1"], False),
        (["-usr", "ct2", "-pwd", "open sesame"], False),
        ([], False),
    ],
)
def test_a_peer_may_have_to_identify_its_user(hospital: Hospital, says: list[str], *, is_let_in: bool) -> None:
    ours, theirs = (hospital.ca.issue(name, "127.0.0.1", rsa_key=True) for name in ("node-rsa", "ct-rsa"))
    node = hospital.start(ours, peers=[{"ae_title": "SCANNER", "user": "ct1", "passcode": "open sesame"}])
    tls = ["+tls", str(theirs.key), str(theirs.certificate), "+cf", str(hospital.ca.file)]
    where = ["-aet", "SCANNER", "-aec", "AINODE", "127.0.0.1"]
    file = str(get_testdata_file("MR_small.dcm"))
    dcmtk("storescu", *tls, *says, *where, str(hospital.port), file, succeeds=is_let_in)
    dcmtk("storescu", *says, *where, str(node.port), file, succeeds=False)  # in clear nothing helps
    assert len(node.stored()) == is_let_in
    in_clear = "calling AE title SCANNER has to identify its user, and over TLS"
    node.soon(lambda: in_clear in [event["reason"] for event in node.events("association rejected")])
    assert "open sesame" not in repr(node.settings)
