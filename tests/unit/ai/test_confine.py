"""A bundle with a hostile configuration costs one failed attempt with a reason, and reaches nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ai.contract import BundleError, ModelCrashed, Volume
from ai.process import ModelProcess
from tests.unit.ai.bundles import SIDES, two_blobs, write_bundle

# With 1 as its first voxel the model tries to read a file of the node, with 2 it tries everything, with 3 only what an
# honest model may do.
TRICKS = SIDES.replace(
    "class Sides",
    """
import contextlib, os, pathlib, signal, socket, subprocess, tempfile, threading

secret = pathlib.Path("SECRET")

def leave_the_scratch_folder():
    (pathlib.Path(tempfile.gettempdir()).parent / "loot").write_text("x")

tricks = {
    "read a file of the node": secret.read_text,
    "read the parent's environment": pathlib.Path(f"/proc/{os.getppid()}/environ").read_bytes,
    "open a connection": lambda: socket.create_connection(("127.0.0.1", PORT), timeout=2),
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "fork": os.fork,
    "leave the group that is killed": os.setsid,
    "signal the parent": lambda: os.kill(os.getppid(), signal.SIGCONT),
    "overwrite a file of the node": lambda: secret.write_text("overwritten"),
    "list a folder of the node": lambda: os.listdir(secret.parent),
    "change its own bundle": lambda: pathlib.Path(__file__).write_text("changed"),
    "write beside its folder": leave_the_scratch_folder,
}

def do_them_all():
    done = []
    for name, trick in tricks.items():
        with contextlib.suppress(PermissionError):
            trick()
            done.append(name)
    assert not done, done

def be_honest():
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "cache").write_text("mine")
    threads = [threading.Thread(target=torch.ones, args=(9,)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    pathlib.Path(__file__).read_text()

class Sides""",
).replace(
    "        bright = (",
    """        moods = {1: secret.read_text, 2: do_them_all, 3: be_honest, 4: socket.socket, 5: os.fork}
        moods.get(int(image.flatten()[0]), int)()
        bright = (""",
)
SPY, THIEF, HONEST, CALLER, FORKER = 1, 2, 3, 4, 5


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("node") / "secret.toml"
    file.write_text("password")
    file.chmod(0o666)
    return file


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, secret: Path, listener: socket.socket) -> Path:
    code = TRICKS.replace("SECRET", str(secret)).replace("PORT", str(listener.getsockname()[1]))
    return write_bundle(tmp_path_factory.mktemp("b") / "tricks", network=code, preprocessing=[])


def _volume(mood: int) -> Volume:
    volume = two_blobs(np.stack([*np.eye(3)[::-1]], axis=1), (5.0, 4.0, 4.0))
    volume.array[0, 0, 0] = mood
    return volume


@pytest.fixture(scope="module")
def model(bundle: Path) -> Iterator[ModelProcess]:
    with ModelProcess(bundle, confine="always") as process:
        yield process


def test_a_model_can_do_its_work_and_nothing_else(model: ModelProcess, secret: Path) -> None:
    assert model.predict(_volume(HONEST), timeout_s=60).mask("left side").any()
    assert model.predict(_volume(THIEF), timeout_s=60).mask("left side").any()
    assert secret.read_text() == "password"


@pytest.mark.parametrize("mood", [SPY, CALLER, FORKER])
def test_a_forbidden_act_ends_the_attempt_with_a_reason(mood: int, model: ModelProcess) -> None:
    with pytest.raises(ModelCrashed, match=r"PermissionError.*may open no connection, start no process and read no"):
        model.predict(_volume(mood), timeout_s=60)


def test_a_model_leaves_nothing_behind(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ModelProcess(bundle, confine="never") as process:
        process.predict(_volume(SPY), timeout_s=60)  # unconfined it can, else the tests above would prove nothing
        pid = process.pid
        assert list(tmp_path.iterdir()), "its own folder"

    assert not list(tmp_path.iterdir())
    assert not Path(f"/proc/{pid}").exists()


def test_a_hostile_configuration_fails_while_it_is_loaded(tmp_path: Path, secret: Path) -> None:
    steal = {"_target_": "Lambdad", "keys": "image", "func": f"$open({str(secret)!r}).read()"}
    folder = write_bundle(tmp_path / "steals", preprocessing=[steal])

    with ModelProcess(folder, confine="always") as process, pytest.raises(BundleError, match="read no file outside"):
        process.predict(_volume(0), timeout_s=60)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "needy", network="import a_package_that_nobody_has\n" + SIDES)

    with ModelProcess(folder) as process, pytest.raises(BundleError, match="a_package_that_nobody_has"):
        process.predict(_volume(0), timeout_s=60)


def test_an_account_that_does_not_exist_is_refused(bundle: Path) -> None:
    with ModelProcess(bundle, account="no-such-account") as process, pytest.raises(BundleError, match="no-such-acc"):
        process.predict(_volume(0), timeout_s=60)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a process another account")
def test_a_process_under_another_account_cannot_go_back(secret: Path) -> None:
    secret.chmod(0o600)
    code = f"""
        import os
        from ai.confine import become
        become("nobody")
        assert os.getresuid() == (os.getuid(),) * 3 != (0, 0, 0)
        for act in (lambda: open({str(secret)!r}), lambda: os.setuid(0)):
            try:
                act()
            except PermissionError:
                continue
            raise SystemExit(1)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
