"""Processes that write rows wait for each other, and for no one who is dead."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from dicom_node.store.turn import Turn

HOLDS = """
import pathlib, sys
from dicom_node.store.turn import Turn
with Turn(pathlib.Path(sys.argv[1])):
    print(flush=True)
    input()
"""


def test_who_comes_later_waits_until_the_one_before_has_left(tmp_path: Path) -> None:
    came: list[str] = []

    def come() -> None:
        with Turn(tmp_path / "rows"):
            came.append("second")

    with Turn(tmp_path / "rows"):
        second = threading.Thread(target=come)
        second.start()
        second.join(0.3)
        came.append("first")
    second.join(60)
    assert came == ["first", "second"]


def test_nobody_waits_for_a_process_that_was_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / "rows")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    with Turn(tmp_path / "rows"):
        assert (tmp_path / "rows").exists()


def test_where_there_is_no_place_for_its_file_nobody_waits(tmp_path: Path) -> None:
    with Turn(tmp_path / "no" / "rows"), Turn(tmp_path / "no" / "rows"):
        assert not (tmp_path / "no").exists()
