"""Whose turn it is to write rows, among the processes of a machine that share a SQLite.

SQLite lets one write at a time, and has the others look again after pauses that grow. Who waits here is woken by the
kernel as soon as the one before is done, or dead, and takes along all that has become ready meanwhile.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class Turn:
    """Held inside `with`, by one thread of a process at a time.

    It only orders: where its file cannot be made, nobody waits here, and the database still lets one write at a time.

    Parameters
    ----------
    path : pathlib.Path
        A file to lock; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> None:
        with suppress(OSError):
            self._fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
