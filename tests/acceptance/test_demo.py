"""The demo, as the README starts it, on a machine without a PACS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "deploy" / "demo" / "demo.py"


@pytest.mark.timeout(600)
def test_the_demo_ends_well_only_when_the_pacs_holds_the_results(tmp_path: Path) -> None:
    command = [sys.executable, str(DEMO), "--builtin-pacs", "--folder", str(tmp_path / "demo")]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=580)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "The PACS holds the SEG and the SR." in done.stdout
    assert sorted(p.name for p in (tmp_path / "demo" / "results").iterdir()) == ["picture.png", "seg.dcm", "sr.dcm"]
