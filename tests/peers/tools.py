"""The DICOM toolkits' own programs."""

from __future__ import annotations

import subprocess

from tests.peers.missing import need


def dcmtk(program: str, *arguments: str, succeeds: bool = True) -> str:
    """Run a program of dcmtk; its output, both streams together.

    Parameters
    ----------
    succeeds : bool
        Whether the exit status has to be 0; otherwise it has to be another.
    """
    command = [need(program), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=300)
    said = done.stdout.decode(errors="replace")
    assert (done.returncode == 0) == succeeds, f"{program} ended with {done.returncode}: {said[-3000:]}"
    return said
