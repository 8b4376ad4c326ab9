"""The sender: the same bytes to everybody, on as many associations as asked, and no work in between."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pydicom.uid import CTImageStorage

from tests.integration.receive.scu import P_DATA, Scu

_STATUS = struct.pack("<HHI", 0, 0x0900, 2)


def send(port: int, requests: Sequence[bytes], syntax: str, associations: int, called: str) -> float:
    """Send requests over several associations at once.

    Returns
    -------
    float
        Seconds from the first byte to the last answer.

    Raises
    ------
    RuntimeError
        If one of them is not answered with success.
    """
    peers = [
        Scu(port, timeout_s=120).associate((CTImageStorage, [syntax]), called=called, max_pdu=131072)
        for _ in range(associations)
    ]
    with ThreadPoolExecutor(associations) as pool:
        started = time.perf_counter()
        list(pool.map(_send_all, peers, [requests[n::associations] for n in range(associations)]))
        took = time.perf_counter() - started
    for peer in peers:
        peer.release()
    return took


def _send_all(peer: Scu, requests: Sequence[bytes]) -> None:
    for request in requests:
        peer.socket.sendall(request)
        kind, body = peer.pdu()
        place = body.find(_STATUS) + len(_STATUS)
        if kind != P_DATA or body[place : place + 2] != b"\0\0":
            raise RuntimeError(f"answered with PDU type {kind} and status {body[place : place + 2][::-1].hex()}")


def send_plainly(port: int, requests: Sequence[bytes], connections: int) -> float:
    """Send the same bytes to the sink: a length, the bytes, and one byte back; the seconds that it takes."""
    peers = [socket.create_connection(("127.0.0.1", port), timeout=120) for _ in range(connections)]
    for peer in peers:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with ThreadPoolExecutor(connections) as pool:
        started = time.perf_counter()
        list(pool.map(_send_plainly, peers, [requests[n::connections] for n in range(connections)]))
        took = time.perf_counter() - started
    for peer in peers:
        peer.close()
    return took


def _send_plainly(peer: socket.socket, requests: Sequence[bytes]) -> None:
    for request in requests:
        peer.sendall(struct.pack(">I", len(request)))
        peer.sendall(request)
        if peer.recv(1) != b"\1":
            raise RuntimeError("the sink did not answer")
