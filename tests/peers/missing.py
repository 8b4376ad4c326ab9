"""What happens when a peer is not installed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

INSTALL = "sudo sh deploy/peers.sh"
SKIPPED = "PEERS=none: "


def need(*programs: str, folders: tuple[Path, ...] = ()) -> str:
    """Find the first of `programs` on PATH, in `folders`, or in this Python environment.

    In that order: pynetdicom installs a storescu and an echoscu of its own, which are not those of dcmtk. Without the
    program the test fails and says how to install it; with PEERS=none in the environment the test is skipped.
    """
    environment = str(Path(sys.executable).parent)
    places = [place for place in os.environ.get("PATH", "").split(os.pathsep) if place != environment]
    path = os.pathsep.join([*places, "/usr/sbin", *map(str, folders), environment])
    for program in programs:
        if found := shutil.which(program, path=path):
            return found
    if os.environ.get("PEERS") == "none":
        pytest.skip(f"{SKIPPED}{programs[0]} is not installed")
    pytest.fail(f"{programs[0]} is not installed, so nothing was tested. Install the peers: {INSTALL}", pytrace=False)
