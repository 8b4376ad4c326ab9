"""Watched folders: nothing half-written is taken, nothing is lost, and nothing is touched too early."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.db import tables as t
from dicom_node.settings import load_settings
from dicom_node.spool import Spool
from dicom_node.watch import Watcher
from tests.ct import small_ct
from tests.integration.intake.test_import import Node
from tests.node import wait_for

Start = Callable[..., "Watched"]


class Watched:
    """A folder that is watched in this process."""

    def __init__(self, home: Path, *, afterwards: str = "move", reserve_mib: int = 0) -> None:
        self.folder = home / "drop"
        self.folder.mkdir()
        self.node = Node(home / "node", f"sqlite:///{home / 'node.db'}")
        with self.node.file.open("a") as file:
            file.write(
                f'\n[[receive.folders]]\npath = "{self.folder}"\nafterwards = "{afterwards}"\ncalling_ae = "DROP"\n'
                "settle_s = 0.4\nevery_s = 0.1\n"
            )
        self.settings = load_settings(self.node.file, {})
        self.spool = Spool(self.settings.spool.path, reserve_mib)
        self._stop = threading.Event()
        watcher = Watcher(self.settings, self.node.engine, self.spool)
        self._thread = threading.Thread(target=watcher.run, args=(self._stop,))
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.node.engine.dispose()

    def stored(self) -> int:
        return len(self.node.rows())

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def soon(self, look: Callable[[], Any]) -> Any:
        return wait_for(look, 60, lambda: str(self.names()), every_s=0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Watched] = []

    def begin(**options: Any) -> Watched:
        started.append(Watched(tmp_path, **options))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


@pytest.fixture
def slices(tmp_path: Path) -> list[Path]:
    return small_ct(tmp_path / "ct", slices=4, rows=16, columns=16)


@pytest.mark.parametrize(
    ("afterwards", "left"),
    [
        ("keep", ["a/0.dcm", "a/1.dcm", "more.zip"]),
        ("delete", []),
        ("move", ["done/a/0.dcm", "done/a/1.dcm", "done/more.zip"]),
    ],
)
def test_files_and_archives_are_taken_and_then_as_it_was_wanted(
    start: Start, slices: list[Path], afterwards: str, left: list[str]
) -> None:
    watched = start(afterwards=afterwards)
    (watched.folder / "a").mkdir()
    for number in (0, 1):
        shutil.copy(slices[number], watched.folder / "a" / f"{number}.dcm")
    with zipfile.ZipFile(watched.folder / "more.zip", "w") as archive:
        for number in (2, 3):
            archive.write(slices[number], f"{number}.dcm")
    watched.soon(lambda: watched.stored() == 4 and watched.names() == left)
    watched.soon(lambda: all(one.end_reason for one in watched.node.rows(t.association)))  # type: ignore[attr-defined]
    (association, *_) = watched.node.rows(t.association)
    assert (association.calling_ae, association.end_reason) == ("DROP", "released")  # type: ignore[attr-defined]
    time.sleep(0.7)  # another look or two at what is kept
    told = [row.detail for row in watched.node.rows(t.audit_event) if row.event == "instances imported"]  # type: ignore[attr-defined]
    assert sum(one["taken"] for one in told) == 4
    assert sum(one["already_there"] for one in told) == 0


def test_what_cannot_be_taken_is_put_aside_with_the_reason(start: Start, slices: list[Path]) -> None:
    watched = start()
    (watched.folder / "notes.txt").write_text("a note\n" * 50)
    (watched.folder / "broken.zip").write_bytes(b"PK no archive")
    (watched.folder / "syntax.dcm").write_bytes(
        slices[0].read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
    )
    watched.soon(lambda: len([name for name in watched.names() if name.endswith(".reason.txt")]) == 3)
    assert [name for name in watched.names() if not name.startswith("failed/")] == []
    assert (watched.folder / "failed/notes.txt.reason.txt").read_text() == "no DICOM file\n"
    assert "transfer syntax" in (watched.folder / "failed/syntax.dcm.reason.txt").read_text()
    assert watched.stored() == 0


def test_a_file_is_never_read_before_it_is_whole(start: Start, slices: list[Path]) -> None:
    watched = start(afterwards="delete")
    whole = slices[0].read_bytes()
    stalled, slow, hidden = (watched.folder / name for name in ("stalled.dcm", "slow.dcm", "hidden.dcm.part"))
    stalled.write_bytes(whole[:-100])  # stands still for longer than it takes to settle
    hidden.write_bytes(slices[2].read_bytes())
    with slow.open("wb") as file:
        data = slices[1].read_bytes()
        for start_at in range(0, len(data), len(data) // 8):
            file.write(data[start_at : start_at + len(data) // 8])
            file.flush()
            time.sleep(0.15)
            assert watched.stored() == 0
    watched.soon(lambda: watched.stored() == 1 and watched.names() == ["hidden.dcm.part", "stalled.dcm"])
    with stalled.open("ab") as file:
        file.write(whole[-100:])
    hidden.rename(watched.folder / "hidden.dcm")
    watched.soon(lambda: watched.stored() == 3 and watched.names() == [])


def test_a_file_that_never_becomes_whole_is_put_aside_in_the_end(start: Start, slices: list[Path]) -> None:
    watched = start(afterwards="delete")
    (watched.folder / "half.dcm").write_bytes(slices[0].read_bytes()[:-100])
    watched.soon(lambda: watched.names() == ["failed/half.dcm", "failed/half.dcm.reason.txt"])
    assert "ends inside element (7FE0,0010)" in (watched.folder / "failed/half.dcm.reason.txt").read_text()


def test_with_a_full_disk_files_stay_and_are_taken_later(start: Start, slices: list[Path]) -> None:
    watched = start(afterwards="delete", reserve_mib=10**9)
    shutil.copy(slices[0], watched.folder / "one.dcm")
    refused = watched.soon(lambda: [r for r in watched.node.rows(t.audit_event) if r.event == "instance refused"])  # type: ignore[attr-defined]
    assert refused[0].detail["status"] == "0xA700"
    assert watched.names() == ["one.dcm"]
    watched.spool.reserve_mib = 0
    watched.soon(lambda: watched.stored() == 1 and watched.names() == [])


def test_a_watcher_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    watched = Watched(tmp_path, afterwards="delete")
    watched.stop()
    many = small_ct(tmp_path / "many", slices=80, rows=64, columns=64)
    for path in many:
        shutil.copy(path, watched.folder / path.name)
    node = watched.node
    command = [sys.executable, "-m", "dicom_node", "watch", "--settings", str(node.file)]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(node.rows, 60, every_s=0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert len(node.rows()) + len(list(watched.folder.iterdir())) >= 80
    second = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: not list(watched.folder.iterdir()), 60)
    finally:
        second.terminate()
        second.wait(180)
    assert len(node.rows()) == 80
    assert second.returncode == 0
    node.engine.dispose()
