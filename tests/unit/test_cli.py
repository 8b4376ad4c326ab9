"""The command line as a person meets it: help, exit status, errors in one line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from dicom_node.cli import cli
from dicom_node.db import migrate
from dicom_node.domain.audit import Event
from tests.node import free_port

COMMANDS = sorted(cli.commands)
HEAVY = ("torch", "monai", "highdicom", "pynetdicom", "dbos", "sqlalchemy", "pydantic")


def dicom_node(*words: str | Path, **environment: str) -> Result:
    """Call a command in this process."""
    clean = {name: None for name in os.environ if name.startswith("DICOM_NODE")}
    return CliRunner().invoke(cli, [str(word) for word in words], env={**clean, **environment})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that `init` filled."""
    assert dicom_node("init", tmp_path / "home").exit_code == 0
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path) -> Path:
    """Settings with a database that has our tables; the job engine's are not needed to look."""
    migrate.upgrade(f"sqlite:///{home / 'node.db'}")
    return home / "settings.toml"


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, dicom_node.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    command = cli.commands[name]
    leaves = [(name, sub) for sub in command.commands] if isinstance(command, click.Group) else [(name,)]
    for words in leaves:
        shown = dicom_node(*words, "--help")
        assert shown.exit_code == 0
        assert f"Example:\n    dicom-node {' '.join(words)}" in shown.stdout


def test_init_writes_what_check_accepts_and_overwrites_nothing(home: Path) -> None:
    first = (home / "settings.toml").read_text()
    checked = dicom_node("check", "--settings", home / "settings.toml", DICOM_NODE__RECEIVE__PORT=str(free_port()))
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert "nobody may send to us yet" in checked.stdout
    assert not (home / "node.db").exists(), "check changes nothing"
    again = dicom_node("init", home)
    assert again.exit_code == 1
    assert "is there already" in again.stderr
    assert (home / "settings.toml").read_text() == first


def test_check_tells_every_problem_with_file_and_key(home: Path) -> None:
    rule = home / "rules" / "chest_ct.toml"
    rule.write_text(rule.read_text().replace("enabled = false", "").replace("chest_ct", "chest_cd"))
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        checked = dicom_node("check", "-s", home / "settings.toml", DICOM_NODE__RECEIVE__PORT=port)
    assert checked.exit_code == 2
    lines = checked.stderr.splitlines()
    assert [line for line in lines if f"{rule}: model:" in line and "chest_ct" in line]
    assert [line for line in lines if f"{rule}: destinations:" in line]
    assert [line for line in lines if f"settings.toml: receive.port: port {port} is in use" in line]
    assert len(lines) == 3


@pytest.mark.parametrize(
    "words", [("serve",), ("work",), ("jobs",), ("explain", "A1"), ("retry", "1"), ("db", "upgrade")]
)
def test_a_long_ae_title_stops_every_command_with_file_key_and_rule(home: Path, words: tuple[str, ...]) -> None:
    file = home / "settings.toml"
    file.write_text(file.read_text().replace('"AINODE"', '"ABCDEFGHIJKLMNOPQRSTUVWXYZ1234"', 1))
    stopped = dicom_node(*words, "--settings", file)
    assert stopped.exit_code == 2
    (line,) = stopped.stderr.splitlines()
    assert line.startswith(f"dicom-node: {file}: node.ae_title: an AE title has at most 16 characters (PS3.5 6.2)")


def test_settings_come_from_the_environment_variable_when_not_named(settings: Path) -> None:
    assert dicom_node("jobs", "--json", DICOM_NODE_SETTINGS=str(settings)).stdout == "[]\n"
    missing = dicom_node("jobs", DICOM_NODE_SETTINGS=str(settings.parent / "none.toml"))
    assert missing.exit_code == 2
    assert "no such settings file" in missing.stderr


def test_commands_on_a_database_of_another_version_say_what_to_do(home: Path) -> None:
    answer = dicom_node("jobs", "-s", home / "settings.toml")
    assert answer.exit_code == 2
    assert "run `dicom-node db upgrade`" in answer.stderr


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["jobs", "--state", "lost"], 2, "is not one of"),
        (["jobs", "--since", "yesterday"], 2, "24h"),
        (["jobs", "--since", "9999999999d"], 2, "24h"),  # before the first of all days
        (["jobs", "--since", "\N{SUPERSCRIPT TWO}d"], 2, "24h"),
        (["jobs", "--since", "24h", "--state", "failed"], 0, "no such jobs"),
        (["jobs", "--accession", "A1"], 0, "`dicom-node explain A1` says what came of it"),
        (["explain", "A1"], 1, "nothing is known of 'A1'"),
        (["retry", "0000"], 1, "there is no job 0000"),
        (["cancel", "0000"], 1, "there is no job 0000"),
        (["resend", "0000"], 1, "there is no job 0000"),
        (["echo", "elsewhere"], 1, "no [destinations.elsewhere]"),
        (["echo", "127.0.0.1:99999"], 2, "HOST:PORT"),
        (["echo", "127.0.0.1:1"], 1, "127.0.0.1:1"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_status(
    settings: Path, words: list[str], status: int, says: str
) -> None:
    answer = dicom_node(*words, "--settings", settings)
    assert (answer.exit_code, answer.stdout) == (status, "")
    assert says in answer.stderr
    assert "Traceback" not in answer.stderr


def test_debug_shows_the_traceback(settings: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "dicom_node", "explain", "A1", "--debug", "-s", str(settings)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert "Traceback" in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("dicom-node: nothing is known of 'A1'")


def test_run_refuses_an_unknown_model_and_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    unknown = dicom_node("run", tmp_path / "empty", "-o", tmp_path / "out", "--model", "heart")
    assert (unknown.exit_code, "there is: chest_ct, lung_ct" in unknown.stderr) == (2, True)
    empty = dicom_node("run", tmp_path / "empty", "-o", tmp_path / "out", "--model", "lung_ct")
    assert (empty.exit_code, "holds no DICOM instance" in empty.stderr) == (1, True)


def test_jobs_prints_json_that_can_be_read(settings: Path) -> None:
    assert json.loads(dicom_node("jobs", "--json", "-s", settings).stdout) == []


def test_every_command_and_every_audit_event_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    names = [f"{name} {sub}" for name in COMMANDS for sub in getattr(cli.commands[name], "commands", [])]
    names += [name for name in COMMANDS if not isinstance(cli.commands[name], click.Group)]
    assert [name for name in names if f"| `dicom-node {name}` |" not in page] == []
    assert [event for event in Event if f"| {event.value} |" not in page] == []
