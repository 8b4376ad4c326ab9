"""What is allowed and less safe than it looks is told; what is as safe as it can be is not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_node.settings import Settings
from dicom_node.tls.cautions import cautions
from tests.peers.certificates import Authority


def settings(folder: Path, *, ends_in: timedelta = timedelta(days=90), **receive: Any) -> Settings:
    ca = Authority(folder)
    pair = ca.issue("ainode", ends_in=ends_in).as_setting()
    tls = {"ca": str(ca.file), "certificates": [pair]}
    return Settings.model_validate({"file": folder / "settings.toml", "receive": {"tls": tls, **receive}})


def test_a_listener_over_tls_that_knows_its_peers_needs_no_caution(tmp_path: Path) -> None:
    assert list(cautions(settings(tmp_path))) == []
    assert list(cautions(settings(tmp_path, accept_any_peer=True))) == []


def test_clear_text_beside_tls_and_anybody_in_clear_are_told(tmp_path: Path) -> None:
    anybody, beside = cautions(settings(tmp_path, accept_any_peer=True, clear_text=True))
    assert "whoever reaches 0.0.0.0 may send" in anybody
    assert "port 11112 speaks DICOM without TLS" in beside
    assert list(cautions(settings(tmp_path, clear_text=True, address="127.0.0.1"))) == []


def test_destinations_that_are_not_looked_at_are_told(tmp_path: Path) -> None:
    section = {"host": "p", "ae_title": "P", "tls": {"accept_any_certificate": True}}
    one = Settings.model_validate({"file": tmp_path / "s.toml", "destinations": {"pacs": section}})
    (told,) = cautions(one)
    assert told.startswith("destinations.pacs.tls.accept_any_certificate: ")


def test_a_certificate_that_ends_and_files_that_broke_are_told(tmp_path: Path) -> None:
    (soon,) = cautions(settings(tmp_path, ends_in=timedelta(days=9)))
    assert "O=Hospital ends on" in soon
    (over,) = cautions(settings(tmp_path, ends_in=timedelta(days=-1)))
    assert "has ended on" in over
    running = settings(tmp_path)
    assert running.receive.tls is not None
    running.receive.tls.certificates[0].certificate.write_text("half a fi")
    (broken,) = cautions(running)
    assert "holds no certificate in PEM; receivers that run go on" in broken


def test_a_list_that_is_out_of_date_and_a_passcode_in_clear_are_told(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    pair = ca.issue("ainode", ends_in=timedelta(days=90)).as_setting()
    tls = {"ca": str(ca.file), "certificates": [pair], "crl": str(ca.revoke(ended=True))}
    section: dict[str, Any] = {"host": "p", "ae_title": "P", "user": "us", "passcode": "secret"}
    receive = {"tls": tls}
    file = tmp_path / "s.toml"
    (late,) = cautions(Settings.model_validate({"file": file, "receive": receive}))
    assert late.startswith("receive.tls.crl: the list of CN=Test CA is out of date")
    with pytest.raises(ValueError, match="would cross the network in clear"):
        Settings.model_validate({"file": file, "destinations": {"pacs": section}})
    section = {**section, "passcode_in_clear": True}
    (told,) = cautions(Settings.model_validate({"file": file, "destinations": {"pacs": section}}))
    assert told.startswith("destinations.pacs.passcode_in_clear: ")
