"""What the receivers of a machine share: the sockets that they listen on, and how many connections each of them has.

The supervisor binds the sockets and hands them on. So what connects waits in one queue, whoever of them dies, and is
taken by whoever has the fewest connections: the others leave it a moment for that. With a socket for each (SO_REUSEPORT
alone) the kernel deals out by a hash of addresses and ports, by chance, and what waits for one that dies is lost.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

LEAVE_S = 0.05  # to another receiver that has fewer connections; one that is at work on a full machine is as late
BACKLOG = 128
_GONE = 0xFFFFFFFF
_COUNT = struct.Struct("=I")


class Shared:
    """Held open inside `with`.

    Parameters
    ----------
    listeners : sequence of socket.socket
        Bound, one for each port, in the order of `receive.ports`.
    counts : int
        Descriptor of a file with the number of connections of each receiver, in the order of their slots.
    """

    def __init__(self, listeners: Sequence[socket.socket], counts: int) -> None:
        self.listeners = tuple(listeners)
        self._counts_fd = counts
        self._counts = mmap.mmap(counts, 0)

    @classmethod
    def make(cls, address: str, ports: Sequence[int], receivers: int) -> Self:
        """Bind the sockets; nobody listens on them yet.

        Raises
        ------
        OSError
            If an address cannot be had.
        """
        with ExitStack() as stack:
            listeners = [stack.enter_context(bound(address, port)) for port in ports]
            counts = _file_in_memory()
            os.write(counts, _COUNT.pack(_GONE) * receivers)
            stack.pop_all()
            return cls(listeners, counts)

    @classmethod
    def inherited(cls, descriptors: Sequence[int]) -> Self:
        """Take over what another process made and has in `descriptors`."""
        counts, *listeners = descriptors
        shared = cls([socket.socket(fileno=one) for one in listeners], counts)
        for listener in shared.listeners:
            listener.setblocking(False)
        return shared

    @property
    def descriptors(self) -> list[int]:
        """What a process has to inherit to take part."""
        return [self._counts_fd, *(listener.fileno() for listener in self.listeners)]

    def note(self, slot: int, connections: int) -> None:
        """Say how many connections a receiver has."""
        _COUNT.pack_into(self._counts, slot * _COUNT.size, connections)

    def leave(self, slot: int) -> None:
        """Say that a receiver takes none: nobody waits for it any more."""
        self.note(slot, _GONE)

    @property
    def connections(self) -> list[int | None]:
        """How many connections each receiver has; None of one that takes none."""
        return [None if count == _GONE else count for (count,) in _COUNT.iter_unpack(self._counts[:])]

    def is_ahead(self, slot: int) -> bool:
        """Whether another receiver has fewer connections than this one."""
        there = self.connections
        mine = there[slot]
        return mine is not None and any(count is not None and count < mine for count in there)

    def close(self) -> None:
        """Let go of everything."""
        if not self._counts.closed:
            self._counts.close()
            os.close(self._counts_fd)
        for listener in self.listeners:
            listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _file_in_memory() -> int:
    if sys.platform == "linux":
        return os.memfd_create("receivers")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def bound(address: str, port: int) -> socket.socket:
    """Open a socket to listen on, bound to an address that receivers of this node share.

    Raises
    ------
    OSError
        If the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and address == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address, port))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
