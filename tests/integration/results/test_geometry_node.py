"""The same through the whole node: a scanner sends, PostgreSQL remembers, a real archive gives back.

``python -m benchmarks.geometry`` does it for every way of cutting the patient, on both databases.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.results.phantom_node import phantom_node, prove_cell
from tests.peers.orthanc import Orthanc
from tests.peers.postgresql import PostgreSQL

CELLS = ("axial, feet first", "oblique about two axes")


@pytest.mark.timeout(300)
def test_what_the_node_makes_lies_where_the_patient_has_it(
    tmp_path: Path, orthanc: Orthanc, postgresql: PostgreSQL
) -> None:
    node = phantom_node(tmp_path / "home", orthanc, postgresql.database())
    node.start()
    try:
        for number, name in enumerate(CELLS):
            assert prove_cell(name, node, orthanc, tmp_path / str(number)) > 1000
    finally:
        node.stop()
