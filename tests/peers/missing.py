"""What happens when a peer is not installed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

INSTALL = "sudo sh deploy/peers.sh"
SKIPPED = "PEERS=none: "


def need(*programs: str, folders: tuple[Path, ...] = ()) -> str:
    """Find the first of `programs` on PATH or in `folders`.

    Without it the test fails and says how to install it; with PEERS=none in the environment the test is skipped.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    for program in programs:
        if found := shutil.which(program, path=path):
            return found
    if os.environ.get("PEERS") == "none":
        pytest.skip(f"{SKIPPED}{programs[0]} is not installed")
    pytest.fail(f"{programs[0]} is not installed, so nothing was tested. Install the peers: {INSTALL}", pytrace=False)
