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
    assert "The PACS holds all 5 objects" in done.stdout
    assert "Lung-RADS 4B" in done.stdout  # of the nodule that four readers outlined, and of nothing else
    assert "Nodule 1" in done.stdout
    assert "Nodule 2" not in done.stdout
    made = sorted(p.name for p in (tmp_path / "demo" / "results").iterdir())
    assert made == ["page.png", "picture.png", "pm.dcm", "sc.dcm", "seg.dcm", "sr.dcm", "viewer_sr.dcm"]
