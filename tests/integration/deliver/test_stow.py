"""STOW-RS and QIDO-RS: to Orthanc, and to servers that answer as the standard allows, refuse us or ask who we are."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian, RLELossless, SegmentationStorage

from dicom_node.deliver import stow
from dicom_node.domain.delivery import Delivery, StowDestination
from dicom_node.domain.proof import Proof, Verify
from dicom_node.errors import DeliveryError
from tests.integration.deliver.peer import delivery_of, write_object
from tests.integration.deliver.rows import deliveries, proofs
from tests.integration.deliver.site import Site
from tests.node import free_port
from tests.peers.missing import need
from tests.peers.orthanc import Orthanc


def test_results_go_to_orthanc_and_a_folder_and_are_found_there(site: Site, orthanc: Orthanc) -> None:
    share = site.home / "share"
    verify = 'verify = "query"\nverify_after_s = 0.3\nverify_timeout_s = 0.5\n'
    sections = f'[destinations.web]\nkind = "stow"\nurl = "{orthanc.url}/dicom-web"\n{verify}'
    sections += f'[destinations.share]\nkind = "folder"\npath = "share"\n{verify}'
    site.deliverer({}, sections=sections)
    job = site.results("web", "share")
    site.wait(lambda: [p.state for p in proofs(site.engine, job, "web")] == ["proven", "proven"])
    uids = [row.sop_instance_uid for row in deliveries(site.engine, job, "web")]
    assert orthanc.held() == sorted(uids)

    assert set(site.states(job, "share")) == {"waiting"}, "a share that is not mounted is waited for"
    share.mkdir()
    site.wait(lambda: [p.state for p in proofs(site.engine, job, "share")] == ["proven", "proven"])
    files = [path for path in share.rglob("*") if path.is_file()]
    assert sorted(path.stem for path in files) == sorted(uids)
    assert {path.read_bytes() for path in files} == {path.read_bytes() for path in (site.home / "spool").rglob("*.dcm")}


class Server:
    """An HTTP server that answers every request with what a test says, and remembers them."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], tuple[int, Any]], tls: ssl.SSLContext | None) -> None:
        self.seen: list[tuple[str, str, Message, bytes]] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                seen.append((self.command, self.path, self.headers, body))
                status, said = answer(self)
                data = said if isinstance(said, bytes) else b"" if said is None else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _answer

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://localhost:{self._server.server_address[1]}/dicom-web"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def server(status: int = 200, said: Any = None, *, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    made = Server(lambda request: (status, said), tls)
    try:
        yield made
    finally:
        made.close()


def to(url: str, **more: Any) -> StowDestination:
    return StowDestination(name="web", url=url, timeout_s=3, **more)


@pytest.fixture
def sr(tmp_path: Path) -> tuple[Path, Delivery]:
    path = tmp_path / "sr.dcm"
    return path, delivery_of(path, write_object(path, Comprehensive3DSRStorage))


def item(uid: str, tag: str = "", reason: int | str = 0) -> dict[str, Any]:
    found: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    return found | ({tag: {"vr": "US", "Value": [reason]}} if tag else {})


def sequence(tag: str, *items: dict[str, Any]) -> dict[str, Any]:
    return {tag: {"vr": "SQ", "Value": list(items)}}


@pytest.mark.parametrize(
    ("status", "said", "sent"),
    [
        (200, lambda uid: None, 0x0000),
        (200, lambda uid: sequence("00081199", item(uid)), 0x0000),
        (200, lambda uid: b"<NativeDicomModel/>", 0x0000),
        (202, lambda uid: sequence("00081199", item(uid, "00081196", 0xB007)), 0xB007),
        (202, lambda uid: sequence("00081199", item(uid, "00081196", "coerced")), 0xB000),
        (202, lambda uid: None, 0xB000),
        (200, lambda uid: {"00081199": {"vr": "SQ", "Value": {"00081155": uid}}}, 0x0000),
        (409, lambda uid: sequence("00081198", item(uid, "00081197", 0x0111)), 0x0111),
    ],
)
def test_stored_is_what_the_server_says_of_the_instance(
    sr: tuple[Path, Delivery], status: int, said: Callable[[str], Any], sent: int
) -> None:
    path, delivery = sr
    with server(status, said(delivery.sop_instance_uid)) as web:
        assert stow.send(to(web.url), path, delivery).status == sent
        [(method, where, headers, body)] = web.seen
    assert (method, where) == ("POST", "/dicom-web/studies")
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0] == path.read_bytes()


@pytest.mark.parametrize(
    ("status", "said", "retry", "reason"),
    [
        (409, lambda uid: sequence("00081198", item(uid, "00081197", 0xA700)), True, "0xA700 (out of resources)"),
        (
            202,
            lambda uid: sequence("00081198", item(uid, "00081197", 0xA900)),
            False,
            "0xA900 (data set does not match",
        ),
        (409, lambda uid: sequence("0008119A", {"00081197": {"vr": "US", "Value": [0xC000]}}), False, "0xC000"),
        (409, lambda uid: sequence("00081198", item(uid, "00081197", "no room")), False, "0x0110"),
        (409, lambda uid: None, False, "409 Conflict"),
        (400, lambda uid: b"no boundary", False, "400 Bad Request: no boundary"),
        (401, lambda uid: None, True, "401 Unauthorized; are user name, password or token right?"),
        (413, lambda uid: None, False, "allows no request of this size"),
        (503, lambda uid: b"<html>", True, "503 Service Unavailable"),
        (307, lambda uid: None, False, "redirects"),
    ],
)
def test_refused_is_told_with_its_reason_and_whether_another_try_can_help(
    sr: tuple[Path, Delivery], status: int, said: Callable[[str], Any], retry: bool, reason: str
) -> None:
    path, delivery = sr
    with server(status, said(delivery.sop_instance_uid)) as web, pytest.raises(DeliveryError) as caught:
        stow.send(to(web.url), path, delivery)
    assert caught.value.retry is retry
    assert reason in str(caught.value)


def test_object_goes_uncompressed_where_its_transfer_syntax_is_not_supported(tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    delivery = delivery_of(path, write_object(path, SegmentationStorage, syntax=RLELossless))
    unknown = sequence("00081198", item(delivery.sop_instance_uid, "00081197", 0xC122))
    answers = [(409, unknown), (200, None)]
    web = Server(lambda request: answers.pop(0), None)
    try:
        assert stow.send(to(web.url), path, delivery).status == 0x0000
    finally:
        web.close()
    first, second = [body.partition(b"\r\n\r\n")[2] for _, _, _, body in web.seen]
    assert first.startswith(path.read_bytes())
    plain = dcmread(BytesIO(second))
    assert plain.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert plain.SOPInstanceUID == delivery.sop_instance_uid
    assert np.array_equal(plain.pixel_array, dcmread(path).pixel_array)


def test_server_that_is_away_is_tried_again(sr: tuple[Path, Delivery]) -> None:
    path, delivery = sr
    with pytest.raises(DeliveryError, match=r"no connection to web \(.*Connection refused") as caught:
        stow.send(to(f"http://127.0.0.1:{free_port()}"), path, delivery)
    assert caught.value.retry


def test_server_is_told_who_we_are(sr: tuple[Path, Delivery], tmp_path: Path) -> None:
    path, delivery = sr
    token_file = tmp_path / "token"
    basic = "Basic " + base64.b64encode(b"ainode:hush").decode()
    with server() as web:
        stow.send(to(web.url, username="ainode", password="hush"), path, delivery)
        stow.send(to(web.url, token="abc"), path, delivery)
        for token in ("first", "renewed"):
            token_file.write_text(f"{token}\n")
            stow.send(to(web.url, token_file=token_file), path, delivery)
        stow.send(to(web.url), path, delivery)
        said = [headers.get("Authorization") for _, _, headers, _ in web.seen]
    assert said == [basic, "Bearer abc", "Bearer first", "Bearer renewed", None]


def test_certificates_are_checked_both_ways(sr: tuple[Path, Delivery], tmp_path: Path) -> None:
    path, delivery = sr
    ours, theirs = certificate(tmp_path, "ainode"), certificate(tmp_path, "localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*theirs)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(ours[0])
    with server(tls=tls) as web:
        with pytest.raises(DeliveryError, match=r"no secure connection to web: .*certificate") as caught:
            stow.send(to(web.url), path, delivery)
        assert caught.value.retry
        with pytest.raises(DeliveryError, match="web"):
            stow.send(to(web.url, ca=theirs[0]), path, delivery)
        assert web.seen == []
        known = to(web.url, ca=theirs[0], certificate=ours[0], key=ours[1])
        assert stow.send(known, path, delivery).status == 0x0000


@pytest.mark.parametrize(("status", "said", "found"), [(204, None, False), (404, None, False), (200, [], False)])
def test_search_without_a_match_finds_nothing(status: int, said: Any, found: bool) -> None:
    with server(status, said) as web:
        assert bool(stow.find(to(web.url), [proof("1.3")])) is found


def test_search_that_is_refused_or_answered_with_a_page_proves_nothing() -> None:
    for status, said in ((500, None), (200, b"<html>log in</html>")):
        with server(status, said) as web, pytest.raises(DeliveryError) as caught:
            stow.find(to(web.url), [proof("1.3")])
        assert caught.value.retry


def proof(uid: str) -> Proof:
    return Proof("d", 1, "1.2", uid, "1.4", "1.5", "p", "0", Verify.QUERY, since=datetime.now(UTC))


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = [need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-subj", f"/CN={name}", "-days", "2"]
    command += ["-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key
