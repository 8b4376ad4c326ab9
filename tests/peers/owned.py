"""Peers that end with the tests, even with tests that are killed."""

from __future__ import annotations

import shutil


def owned(*command: str, user: str = "") -> list[str]:
    """Return `command` such that the process gets SIGINT when the test process that started it dies.

    Parameters
    ----------
    user : str
        Whom it shall run as, where it shall not be the caller.
    """
    setpriv = shutil.which("setpriv")  # of util-linux; elsewhere peers end with the tests that end in order
    if setpriv is None:
        return ["runuser", "-u", user, "--", *command] if user else [*command]
    becoming = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
    return [setpriv, *becoming, "--pdeathsig", "INT", "--", *command]
