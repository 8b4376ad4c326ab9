"""A spool for the results of one test."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool
