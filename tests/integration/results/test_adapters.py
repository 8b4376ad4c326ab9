"""What the code of the OHIF viewer reads in our objects: skipped where its npm packages are not installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_node.spool import Spool
from tests.peers.missing import need
from tests.unit.results.case import ALL, Built, built_of, card_with, make_case, nodules

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "deploy" / "ohif" / "adapters.mjs"
pytestmark = pytest.mark.skipif(
    not (ROOT / "node_modules" / "@cornerstonejs" / "adapters").exists(), reason=f"npm packages: see {SCRIPT.name}"
)


@pytest.fixture
def built(tmp_path: Path, spool: Spool) -> Built:
    case = make_case(tmp_path / "ct")
    return built_of(case, *nodules(case), spool, card_with(outputs=ALL))


def read(folder: Path, built: Built) -> list[dict[str, Any]]:
    """Give what the script says of segmentation, report for viewers and report."""
    files = []
    for kind in ("seg", "viewer_sr", "sr"):
        files.append(folder / f"{kind}.dcm")
        files[-1].write_bytes(built.files[kind])
    command = [need("node"), str(SCRIPT), str(folder / "ct"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=300)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_cornerstone_counts_our_voxels_and_takes_our_measurements_over(tmp_path: Path, built: Built) -> None:
    seg, viewer_sr, sr = read(tmp_path, built)
    assert seg["voxels"] == {str(segment.number): segment.voxels for segment in built.findings.present}
    assert sr["measurements"] == {}
    found = [segment for segment in built.findings.present if segment.axes]
    taken = viewer_sr["measurements"]["Bidirectional"]
    assert [one["label"] for one in taken] == ["Nodule 1 (AI, certainty 93%)", "Nodule 2 (AI, certainty 41%)"]
    for one, segment in zip(taken, found, strict=True):
        assert segment.axes is not None
        ends = [*segment.axes.long_ends_mm, *segment.axes.short_ends_mm]
        assert np.allclose(one["points"], ends, atol=0.001)
        sizes = {each.name.meaning: each.value for each in segment.measurements}
        assert (one["stats"]["length"], one["stats"]["width"]) == (sizes["Long Axis"], sizes["Short Axis"])
