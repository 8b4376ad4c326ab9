"""`dicom-node serve`: all roles run, come back when they die, and end with their supervisor however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node import RunningNode, free_port, wait_for


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    made = RunningNode(tmp_path / "home", free_port(), "PACS")
    yield made
    made.stop()


def roles(node: RunningNode) -> dict[int, str]:
    """Role processes of the node, by process id: found as the system lists them, whoever their parent is."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if str(node.settings) in words and "--supervisor-pid" in words:
            slot = words[words.index("--slot") + 1]
            found[int(entry.name)] = f"{words[words.index('dicom_node') + 1]}/{slot}"
    return found


def answers(node: RunningNode) -> bool:
    return subprocess.run(echo(node), capture_output=True, check=False).returncode == 0


def echo(node: RunningNode) -> list[str]:
    peer = f"127.0.0.1:{node.port}"
    return [*node.command("echo", peer), "--called", "AINODE", "--calling", "SCANNER", "--timeout", "3"]


def until(met: Callable[[], bool], node: RunningNode, timeout_s: float = 120) -> None:
    wait_for(met, timeout_s, lambda: f"{roles(node)}\n{node.log.read_text()}")


ALL = ["assemble/0", "deliver/0", "maintain/0", "receive/0", "receive/1", "work/0"]


def test_every_role_comes_back_when_it_dies_and_all_stop_when_told(node: RunningNode) -> None:
    node.start()
    before = roles(node)
    assert sorted(before.values()) == ALL
    assert answers(node)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: sorted(roles(node).values()) == ALL and not before.keys() & roles(node).keys(), node)
    until(lambda: answers(node), node)
    assert "ended with SIGKILL; started again in 0.5 s" in node.log.read_text()

    node.stop()
    assert node.log.read_text().splitlines()[-1].endswith(" stopped")
    assert roles(node) == {}
    assert "Traceback" not in node.log.read_text()


def test_roles_end_with_a_supervisor_that_was_killed_and_it_can_start_again_at_once(node: RunningNode) -> None:
    node.start()
    orphans = roles(node)
    node.kill_supervisor()
    node.start()
    until(lambda: sorted(roles(node).values()) == ALL and not orphans.keys() & roles(node).keys(), node)
    assert answers(node)

    seen = len(node.log.read_text())
    os.killpg(node.pid, signal.SIGINT)  # Ctrl-C in a terminal reaches every process of the node
    until(lambda: node.log.read_text().endswith(" stopped\n"), node)
    until(lambda: roles(node) == {}, node)
    ended = node.log.read_text()[seen:]
    for role in ("receive", "assemble", "work", "deliver", "maintain"):
        assert f"{role} stopped" in ended or f"{role}/0 did not stop" in ended


def test_two_nodes_never_share_a_spool_or_a_port(node: RunningNode, tmp_path: Path) -> None:
    node.start()
    same_spool = subprocess.run(node.command("serve"), capture_output=True, text=True, check=False, timeout=180)
    assert same_spool.returncode == 1
    assert f"another dicom-node (process {node.pid}) already serves" in same_spool.stderr

    other = RunningNode(tmp_path / "other", free_port(), "PACS")
    same_port = {**os.environ, "DICOM_NODE__RECEIVE__PORT": str(node.port)}
    refused = subprocess.run(other.command("serve"), capture_output=True, text=True, check=False, env=same_port)
    assert refused.returncode == 1
    assert f"another dicom-node on this machine already listens on port {node.port}" in refused.stderr
    assert answers(node)


def test_a_port_in_use_stops_serve_before_it_starts_anything(node: RunningNode) -> None:
    with socket.create_server(("127.0.0.1", node.port)):
        refused = subprocess.run(node.command("serve"), capture_output=True, text=True, check=False, timeout=180)
    assert refused.returncode == 2
    assert f"receive.port: port {node.port} is in use by another program" in refused.stderr
    assert "started" not in refused.stderr
