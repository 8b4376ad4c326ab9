"""kill -9 at random moments of the intake and of the whole road, on both databases; `make chaos` does more of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.intake import run_intake
from tests.chaos.road import run_road
from tests.node import RunningNode
from tests.peers.orthanc import Orthanc

SEED = 20261124
ROAD_POINTS = 18  # each victim in each phase
INTAKE_POINTS = 6


@pytest.fixture
def node(orthanc_module: Orthanc, tmp_path: Path, database_url: str) -> Iterator[RunningNode]:
    running = RunningNode(
        tmp_path / "home",
        orthanc_module.dicom_port,
        orthanc_module.ae,
        database_url=database_url,
        quiet_s=1.5,
        patience_s=20.0,  # longer than a busy machine needs to start the receivers again
    )
    running.start()
    yield running
    running.stop()


@pytest.mark.timeout(900)
def test_kill_9_of_the_intake_loses_nothing_that_was_acknowledged(tmp_path: Path, database_url: str) -> None:
    ledger = run_intake(tmp_path / "home", database_url, INTAKE_POINTS, SEED)
    assert ledger.problems == []
    assert ledger.stored == ledger.acknowledged > INTAKE_POINTS
    assert ledger.kills.total() == INTAKE_POINTS


@pytest.mark.timeout(1500)
def test_kill_9_anywhere_leaves_one_seg_and_one_sr(
    node: RunningNode, orthanc_module: Orthanc, chest_ct: list[Path], tmp_path: Path
) -> None:
    ledger = run_road(node, orthanc_module, chest_ct, tmp_path, ROAD_POINTS, SEED)
    assert ledger.problems == []
    assert ledger.stored == ledger.acknowledged
    assert (ledger.processed, ledger.delivered) == (ROAD_POINTS, 2 * ROAD_POINTS)
