"""The certificates that peers are shown: read anew when their files change, without a restart.

New handshakes take what is new; connections that are open go on with what they have. Files that cannot be used change
nothing: the log and the node's health tell of them, and what was read before stays in use.
"""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path

from dicom_node.errors import ConfigurationError
from dicom_node.settings import ReceiveTls
from dicom_node.tls.server import files_of, server_context

LOOK_S = 2.0

_log = logging.getLogger(__name__)
_Signature = tuple[tuple[int, int, int] | None, ...]


class Credentials:
    """The context for new connections.

    Raises
    ------
    ConfigurationError
        If the files cannot be used at the start.
    """

    def __init__(self, tls: ReceiveTls) -> None:
        self._tls = tls
        self._files = files_of(tls)
        self._seen = self._look()
        self._next_look = time.monotonic() + LOOK_S
        self._context = server_context(tls)

    def context(self) -> ssl.SSLContext:
        """Give the context, of the newest files that could be used."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            if (seen := self._look()) != self._seen:
                self._seen = seen
                self._read_again()
        return self._context

    def _read_again(self) -> None:
        try:
            self._context = server_context(self._tls)
        except ConfigurationError as error:
            _log.error("TLS goes on with the certificates from before; the new files: %s", "; ".join(error.problems))
        else:
            _log.info("TLS goes on with the new certificates")

    def _look(self) -> _Signature:
        return tuple(_signature(path) for path in self._files)


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
