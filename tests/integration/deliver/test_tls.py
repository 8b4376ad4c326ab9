"""Destinations over TLS: real peers, both ways, and what is said when there is no TLS with one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_node.deliver.dimse import echo, send
from dicom_node.domain.delivery import DimseDestination, TlsClient
from dicom_node.errors import DeliveryError
from tests.integration.deliver.peer import MakeScp, delivery_of, destination, write_object
from tests.integration.deliver.rows import proofs
from tests.integration.deliver.site import Site
from tests.node import free_port, wait_for
from tests.peers.certificates import Authority, Identity
from tests.peers.missing import need
from tests.peers.orthanc import Orthanc
from tests.peers.owned import owned


class Pacs:
    """dcmtk's storescp over TLS, which wants a certificate of who calls."""

    def __init__(self, folder: Path) -> None:
        self.ca = Authority(folder)
        self.theirs = self.ca.issue("pacs", "127.0.0.1", "pacs.test", rsa_key=True)
        self.ours = self.ca.issue("ainode", rsa_key=True)
        self.port = free_port()
        self.held = folder / "held"
        self.held.mkdir()
        files = [str(self.theirs.key), str(self.theirs.certificate), "+cf", str(self.ca.file)]
        command = [need("storescp"), "+tls", *files, "-od", str(self.held), "-aet", "PACS", str(self.port)]
        with (folder / "storescp.log").open("wb") as log:
            self.process = subprocess.Popen(owned(*command), stdout=log, stderr=log)
        wait_for(lambda: f":{self.port:04X} " in Path("/proc/net/tcp").read_text(), 60, every_s=0.02)

    def called(self, shows: Identity | None = None, **how: Any) -> DimseDestination:
        """It as a destination; `shows` is what we show, by default what it trusts."""
        pair = shows or self.ours
        tls = TlsClient(**{"ca": self.ca.file, "certificate": pair.certificate, "key": pair.key, **how})
        return replace(destination(self.port), tls=tls)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    made = Pacs(tmp_path / "pacs")
    yield made
    made.process.kill()
    made.process.wait()


def test_storescp_gets_an_object_over_tls_byte_for_byte(pacs: Pacs, tmp_path: Path) -> None:
    ds = write_object(tmp_path / "sc.dcm", SecondaryCaptureImageStorage, rows=2000)
    called = pacs.called()
    assert echo(called) > 0
    assert send(called, tmp_path / "sc.dcm", delivery_of(tmp_path / "sc.dcm", ds)).status == 0x0000
    (kept,) = pacs.held.iterdir()
    assert dcmread(kept).PixelData == ds.PixelData
    assert called.where == f"PACS at 127.0.0.1:{pacs.port} (TLS)"


def test_who_cannot_be_proven_gets_nothing_and_the_reason_is_told(pacs: Pacs, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "Other CA")
    stranger = other.issue("ainode")
    nothing = {"certificate": None, "key": None}
    for how, told in (
        ({"ca": other.file}, "its certificate is not taken: self-signed certificate"),
        ({"server_name": "archive.test"}, "Hostname mismatch"),
        ({"minimum": "1.3", **nothing}, "it wants a certificate of ours"),
        (nothing, "it "),
        ({"certificate": stranger.certificate, "key": stranger.key}, "it does not take our certificate"),
        ({"ca": tmp_path / "none.pem"}, "No such file"),
    ):
        with pytest.raises(DeliveryError, match=told) as caught:
            echo(pacs.called(**how))
        assert caught.value.retry, "an administrator can put it right"
        assert "TLS" in str(caught.value)
    assert echo(pacs.called(server_name="pacs.test")) > 0
    assert echo(pacs.called(ca=None, accepts_any=True)) > 0


def test_a_peer_in_clear_is_not_spoken_to_instead(scp: MakeScp, tmp_path: Path) -> None:
    peer = scp()
    plain = replace(destination(peer.port), tls=TlsClient(ca=Authority(tmp_path).file))
    with pytest.raises(DeliveryError, match="no TLS with pacs"):
        echo(plain)
    assert echo(destination(peer.port)) > 0


def test_orthanc_takes_results_and_commits_itself_over_tls_both_ways(site: Site, tmp_path: Path) -> None:
    ca = Authority(tmp_path / "tls")
    ours, theirs = (ca.issue(name, "127.0.0.1", rsa_key=True) for name in ("ainode", "orthanc"))
    orthanc = Orthanc(
        tmp_path / "orthanc",
        DicomTlsEnabled=True,
        DicomTlsCertificate=str(theirs.certificate),
        DicomTlsPrivateKey=str(theirs.key),
        DicomTlsTrustedCertificates=str(ca.file),
    ).start()
    orthanc.know("AINODE", site.receive_port, UseDicomTls=True)
    pair = f'certificate = "{ours.certificate}", key = "{ours.key}"'
    listener = f'[receive.tls]\nport = {site.receive_port}\nca = "{ca.file}"\ncertificates = [{{ {pair} }}]\n'
    more = f'verify = "both"\nverify_after_s = 0.5\ntls = {{ ca = "{ca.file}", {pair} }}'
    try:
        site.deliverer({"pacs": orthanc.dicom_port}, ae_title=orthanc.ae, more=more, sections=listener)
        site.receiver()
        job = site.results()
        site.wait(lambda: [row.state for row in proofs(site.engine, job)] == ["proven", "proven"], 120)
        assert all(proof.committed_at and proof.seen_at for proof in proofs(site.engine, job))
        assert len(orthanc.held()) == 2
        assert "(TLS)" in site.ask("probe", "pacs")
    finally:
        orthanc.discard()
