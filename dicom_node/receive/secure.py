"""A socket that speaks TLS and never waits: what a connection reads and writes, in between OpenSSL's memory buffers."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

from dicom_node.errors import TlsFailed
from dicom_node.tls.profile import why

if TYPE_CHECKING:  # it loads a library that a node without TLS does not need
    from dicom_node.tls.certificate import Certificate

_HANDSHAKE = 0x16  # ContentType of the first record (RFC 8446 5.1)
_A_ASSOCIATE_RQ = 0x01


class SecureSocket:
    """The server's end of a TLS connection, with those methods of a non-blocking socket that a connection uses.

    Attributes
    ----------
    has_begun, is_open : bool
        Whether the handshake is under way or over, and whether it is over.
    certificate : Certificate or None
        What the peer showed, once the handshake is over.
    """

    def __init__(self, peer: socket.socket, context: ssl.SSLContext) -> None:
        self._socket = peer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._unsent = b""
        self.has_begun = False
        self.is_open = False
        self.certificate: Certificate | None = None

    @property
    def is_writing(self) -> bool:
        """Whether bytes wait for the network to take them: `flush` then, once it does."""
        return bool(self._unsent or self._out.pending)

    def fileno(self) -> int:
        """Give the descriptor to wait for."""
        return self._socket.fileno()

    def recv(self, size: int) -> bytes:
        """Read what the peer said, at most what came in `size` bytes; empty once it has left.

        Raises
        ------
        BlockingIOError
            If nothing is there yet.
        TlsFailed
            If the peer does not speak TLS, or not as we want it.
        OSError
            If the connection is lost.
        """
        data = self._socket.recv(size)
        if data:
            self._begin(data)
            self._in.write(data)
        else:
            self._in.write_eof()
        try:
            said = self._decrypt(size)
        finally:
            self.flush()
        if not said and data:
            raise BlockingIOError
        return said

    def send(self, data: bytes | bytearray) -> int:
        """Encrypt and send; how many bytes were taken.

        Raises
        ------
        BlockingIOError
            If what was taken before has not gone yet.
        OSError
            If the connection is lost.
        """
        self.flush()
        if self.is_writing:
            raise BlockingIOError
        taken = self._tls.write(data)
        self.flush()
        return taken

    def flush(self) -> None:
        """Send what waits, as far as the network takes it."""
        self._unsent += self._out.read()
        with suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]

    def close(self) -> None:
        """Say goodbye (RFC 8446 6.1), as far as that goes without waiting, and close."""
        with suppress(OSError, ValueError):
            if self.is_open:
                with suppress(ssl.SSLError):  # the peer's goodbye is not waited for
                    self._tls.unwrap()
            self.flush()
        self._socket.close()

    def _begin(self, data: bytes) -> None:
        """Look at the first byte: what is no TLS at all deserves a clearer word than OpenSSL's."""
        if not self.has_begun and data[0] != _HANDSHAKE:
            what = "DICOM without TLS" if data[0] == _A_ASSOCIATE_RQ else "no TLS"
            raise TlsFailed(f"it speaks {what} on the port for TLS")
        self.has_begun = True

    def _decrypt(self, size: int) -> bytes:
        said = bytearray()
        try:
            if not self.is_open:
                self._tls.do_handshake()
                self.is_open = True
                self.certificate = _shown(self._tls)
            while piece := self._tls.read(size):
                said += piece
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            if self.has_begun and not self.is_open:
                raise TlsFailed("it left in the middle of the handshake") from None
        except ssl.SSLError as error:
            raise TlsFailed(why(error)) from None
        return bytes(said)


def _shown(connection: ssl.SSLObject) -> Certificate | None:
    from dicom_node.tls.certificate import read_certificate

    der = connection.getpeercert(binary_form=True)
    try:
        return None if der is None else read_certificate(der)
    except ValueError as error:
        raise TlsFailed(f"its certificate cannot be read: {error}") from None
