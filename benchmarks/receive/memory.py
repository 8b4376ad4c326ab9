"""What the receivers' memory does over thousands of associations, health checks and port scans.

    python -m benchmarks.receive.memory                 10,000 of each
    python -m benchmarks.receive.memory --count 500

Each association sends one small instance; each health check connects and leaves, or asks for an echo, or breaks off in
the middle of its request. Linux only.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable

from benchmarks.receive.acceptors import Node, lone_node
from tests.integration.receive.objects import ct
from tests.integration.receive.scu import Scu, request, store_all

_WARM_UP = 300


def main() -> None:
    """Parse, start a node, come and go, print."""
    with lone_node(__doc__, 10_000) as (node, count):
        print(f"at start {node.rss_mib():.1f} MiB in {len(node.processes)} processes")
        for title, once in KINDS.items():
            come_and_go(node, once, range(-_WARM_UP, 0))
            before, started = node.rss_mib(), time.monotonic()
            come_and_go(node, once, range(count))
            took = time.monotonic() - started
            print(f"{title:28} {count} in {took:4.0f} s: {before:.1f} -> {node.rss_mib():.1f} MiB", flush=True)


def come_and_go(node: Node, once: Callable[[int, int], None], numbers: range) -> None:
    """Do the same thing again and again, and let the receivers come to rest."""
    for number in numbers:
        once(node.port, number)
    time.sleep(1)


def _store(port: int, number: int) -> None:
    series = f"1.2.{10**6 + number // 50}.4"
    if store_all(port, [ct(number % 50 + 1, series=series)]) != [0]:
        raise RuntimeError("an instance was refused")


def _leave(port: int, number: int) -> None:
    socket.create_connection(("127.0.0.1", port), 10).close()


def _echo(port: int, number: int) -> None:
    with Scu(port) as scu:
        if scu.associate().echo() != 0:
            raise RuntimeError("an echo was refused")
        scu.release()


def _break_off(port: int, number: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as peer, contextlib.suppress(OSError):
        whole = request((ct().sop_class_uid, [ct().transfer_syntax_uid]))
        peer.sendall(whole[: number % len(whole)])
        if number % 2:  # by a reset
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


KINDS: dict[str, Callable[[int, int], None]] = {
    "associations that store": _store,
    "C-ECHO": _echo,
    "connect and leave": _leave,
    "break off in the request": _break_off,
}


if __name__ == "__main__":
    main()
