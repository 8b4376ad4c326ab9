"""A socket sink: what comes is written to a file, synced and then answered. The least that storing can cost.

python -m benchmarks.receive.sink PORT FOLDER
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from itertools import count
from pathlib import Path

_numbers = count()


def main() -> None:
    """Listen, with a thread for each connection, until killed."""
    folder = Path(sys.argv[2])
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64) as listener:
        while True:
            peer, _ = listener.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_take, args=(peer, folder), daemon=True).start()


def _take(peer: socket.socket, folder: Path) -> None:
    buffer = memoryview(bytearray(256 * 1024))
    while head := peer.recv(4, socket.MSG_WAITALL):
        left = int.from_bytes(head, "big")
        with (folder / f"{next(_numbers)}").open("wb", buffering=0) as file:
            while left:
                got = peer.recv_into(buffer[: min(left, len(buffer))])
                if not got:
                    return
                file.write(buffer[:got])
                left -= got
            os.fsync(file.fileno())
        peer.sendall(b"\1")
    peer.close()


if __name__ == "__main__":
    main()
