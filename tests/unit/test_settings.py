"""Settings: one file and the environment, checked once; every problem names where it is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from dicom_node.catalog import destination
from dicom_node.domain.delivery import DimseDestination, StowDestination
from dicom_node.errors import ConfigurationError
from dicom_node.settings import Settings, load_settings
from tests.stored import sender

EXAMPLE = files("dicom_node.cli") / "example"
NAMED = r"destinations|assemble\.sources|notify\.channels|notify\.rules"  # sections of which there may be many
DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


def write(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text)
    return file


def problems(file: Path, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, environment or {})
    return caught.value.problems


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key that a settings file may have, dotted."""
    found = []
    for name, field in model.model_fields.items():
        inner = list(_sections(field.annotation))
        found += [key for one in inner for key in keys(one, f"{prefix}{name}.")] if inner else [f"{prefix}{name}"]
    return [key for key in dict.fromkeys(found) if key != "file"]


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field may hold: one, or one for each kind."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def test_an_empty_file_gives_a_node_beside_the_file(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, ""), {})
    assert settings.database.url == f"sqlite:///{tmp_path / 'node.db'}"
    assert (settings.spool.path, settings.rules) == (tmp_path / "spool", tmp_path / "rules")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[node]\nae_title = "ABCDEFGHIJKLMNOPQRSTUVWXYZ1234"', "node.ae_title: an AE title has at most 16 characters"),
        ("[receive]\nport = 70000", "receive.port: "),
        ("[receive]\nprot = 11112", "receive.prot: there is no such key"),
        ('[database]\nurl = "mysql://a/b"', "database.url: use sqlite:///PATH or postgresql://"),
        ('[database]\nurl = "no url"', "database.url: "),
        ('[[receive.peers]]\nae_title = "CT1"\naddress = "10.0.0.300"', "receive.peers.0.address: "),
        ("[assemble.sources.ct]\nquiet_s = 5", "assemble.sources.ct: say whom it is for"),
        ('[destinations.pacs]\nhost = "pacs"', "destinations.pacs.ae_title: this key is needed"),
        ('[destinations.pacs]\nkind = "ftp"', "destinations.pacs: kind: use dimse, stow or folder"),
        ('[destinations.web]\nkind = "stow"\nurl = "pacs/dicom-web"', "destinations.web.url: use the URL of the"),
        ('[destinations.web]\nkind = "stow"\nurl = "http://p"\nverify = "both"', "destinations.web.verify: storage"),
        (
            '[destinations.web]\nkind = "stow"\nurl = "http://p"\nusername = "a"\ntoken = "b"',
            "destinations.web: give one of username, token and token_file",
        ),
        ("[receive]\nclear_text = false", "receive: clear_text = false without [receive.tls]: nothing would listen"),
        ('[receive.tls]\ncertificates = [{ certificate = "a" }]', "receive.tls: give ca, "),
        ('[receive.tls]\ncertificates = []\nca = "b"', "receive.tls.certificates: "),
        ('[[receive.peers]]\nae_title = "CT1"\ncertificate = "ct1"', "receive: peers name certificates, but no"),
        ('[[receive.peers]]\nae_title = "CT1"\nuser = "a"\npasscode = "b"', "receive: passcodes would cross the"),
        ('[[receive.peers]]\nae_title = "CT1"\npasscode = "b"', "receive.peers.0: passcode needs the user"),
        (
            '[receive]\nclear_text = true\nport = 2762\n[receive.tls]\nca = ""\ncertificates = [{ certificate = "a" }]',
            "receive: tls.port: two listeners cannot have one port",
        ),
        (
            '[destinations.pacs]\nhost = "p"\nae_title = "P"\n[destinations.pacs.tls]\nkey = "k"',
            "destinations.pacs.tls: key needs the certificate",
        ),
        ("[engine]\nbeat_s = 40", "engine.dead_after_s: "),
        ("[engine\n", "not valid TOML"),
    ],
)
def test_a_wrong_value_names_file_key_and_rule(tmp_path: Path, text: str, expected: str) -> None:
    file = write(tmp_path, text)
    (problem,) = problems(file)
    assert problem.startswith(f"{file}: {expected}")


def test_files_for_tls_lie_beside_the_settings(tmp_path: Path) -> None:
    text = (
        '[receive.tls]\nca = "tls/ca.pem"\ncertificates = [{ certificate = "tls/a.pem", key = "/etc/a.key" }]\n'
        '[destinations.pacs]\nhost = "p"\nae_title = "P"\n[destinations.pacs.tls]\nca = "tls/pacs.pem"'
    )
    settings = load_settings(write(tmp_path, text), {})
    tls = settings.receive.tls
    assert tls is not None
    assert (tls.ca, tls.certificates[0].certificate) == (tmp_path / "tls/ca.pem", tmp_path / "tls/a.pem")
    assert tls.certificates[0].key == Path("/etc/a.key")
    assert settings.receive.ports == (2762,)
    made = destination("pacs", settings.destinations["pacs"], settings)
    assert isinstance(made, DimseDestination)
    assert made.tls is not None
    assert made.tls.ca == tmp_path / "tls/pacs.pem"
    assert made.where == "P at p:104 (TLS)"


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    assert len(problems(write(tmp_path, '[receive]\nport = 0\nprocesses = 0\n[node]\nae_title = ""'))) == 3


def test_the_environment_goes_before_the_file_and_is_named_when_it_is_wrong(tmp_path: Path) -> None:
    file = write(tmp_path, "[receive]\nport = 104")
    environment = {"DICOM_NODE__RECEIVE__PORT": "4242", "DICOM_NODE__NODE__AE_TITLE": "OTHER", "PATH": "/bin"}
    settings = load_settings(file, environment)
    assert (settings.receive.port, settings.node.ae_title) == (4242, "OTHER")
    (problem,) = problems(file, {"DICOM_NODE__RECEIVE__PORT": "many"})
    assert problem.startswith("DICOM_NODE__RECEIVE__PORT: receive.port: ")


def test_senders_have_times_of_their_own_and_the_most_patient_counts(tmp_path: Path) -> None:
    text = """
    [assemble]
    quiet_s = 20
    patience_s = 50
    [assemble.sources.scanners]
    calling_ae = ["CT?", "MR1"]
    called_ae = ["AINODE"]
    quiet_s = 60
    [assemble.sources.gateway]
    accounts = ["gw"]
    patience_s = 5
    """
    sources = load_settings(write(tmp_path, text), {}).assemble.waiting()
    ct, other, gateway = sender("CT1"), sender("PACS"), replace(sender("STOW"), account="gw")
    found = {one.calling_ae: sources.of([one]) for one in (ct, other, gateway)}
    told = {name: (source.name, source.quiet_s, source.patience_s) for name, source in found.items()}
    assert told == {"CT1": ("scanners", 60, 240), "PACS": ("", 20, 50), "STOW": ("gateway", 20, 20)}
    assert sources.of([other, ct]).name == "scanners"
    assert sources.of([replace(ct, called_ae="RESEARCH")]).name == ""


def test_no_secret_is_shown(tmp_path: Path) -> None:
    text = '[destinations.web]\nkind = "stow"\nurl = "https://p/dicom-web/studies"\nusername = "a"\npassword = "hush"'
    settings = load_settings(write(tmp_path, text), {})
    made = destination("web", settings.destinations["web"], settings)
    assert isinstance(made, StowDestination)
    assert (made.url, made.password) == ("https://p/dicom-web", "hush")
    assert "hush" not in repr(settings) + repr(made)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "settings.toml")
    assert "dicom-node init" in problem


def test_the_example_changes_nothing_but_says_everything(tmp_path: Path) -> None:
    text = EXAMPLE.joinpath("settings.toml").read_text()
    assert load_settings(write(tmp_path, text), {}) == load_settings(write(tmp_path, ""), {})
    commented = re.sub(r"^# (?=[a-z_]+ = |\[)", "", text, flags=re.MULTILINE)
    document = tomllib.loads(commented)
    Settings.model_validate({**document, "file": tmp_path / "settings.toml"})
    told = {re.sub(rf"^({NAMED})\.\w+\.", r"\1.", key) for key in _dotted(document)}
    assert set(keys(Settings)) - told == set()


def test_every_key_is_documented() -> None:
    text = DOCS.read_text()
    named = [re.sub(rf"^({NAMED})\.", r"\1.NAME.", key) for key in keys(Settings)]
    assert [key for key in named if f"`{key}`" not in text] == []


def _dotted(value: Any, prefix: str = "") -> list[str]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0]
    if not isinstance(value, dict):
        return [prefix.rstrip(".")]
    return [key for name, inner in value.items() for key in _dotted(inner, f"{prefix}{name}.")]
