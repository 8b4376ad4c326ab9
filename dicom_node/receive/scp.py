"""The DICOM listener: one selector loop per process, any number of processes on one port.

pynetdicom's own server keeps a thread and a polling loop for each association; here one loop serves all of them, and
what it reads goes straight to the spool. Another thread waits for the disk and the database (store.py).
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress

from sqlalchemy import Engine

from dicom_node.receive.admission import MAX_PDU
from dicom_node.receive.association import Association, State
from dicom_node.receive.store import Arrival, Store
from dicom_node.settings import Settings
from dicom_node.spool import Spool

BACKLOG = 128
READ_BYTES = 2 * MAX_PDU
TICK_S = 1.0
STOP_LOOK_S = 0.25
DRAIN_S = 10.0
MOST_CONNECTIONS = 4  # times as many connections as associations: health checks and port scanners come and go

_log = logging.getLogger(__name__)


class Receiver:
    """Listens until told to stop.

    Parameters
    ----------
    settings : Settings
        Section ``receive``, and who we are.
    spool, engine : Spool, sqlalchemy.Engine
        Where instances go.

    Attributes
    ----------
    port : int
        Where it listens, once `run` has begun.
    listening : threading.Event
        Set when it does.
    """

    def __init__(self, settings: Settings, spool: Spool, engine: Engine) -> None:
        self._settings = settings
        self._spool = spool
        self._engine = engine
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, Association] = {}
        self._answers: deque[tuple[socket.socket, Association, Arrival]] = deque()
        self._wake_read, self._wake_write = socket.socketpair()
        self._most = -(-settings.receive.max_associations // settings.receive.processes)
        self.port = settings.receive.port
        self.listening = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop`; then let running associations end for a few seconds, and abort the rest.

        Raises
        ------
        OSError
            If the address cannot be listened on.
        """
        self._spool.sweep_incoming()
        self._store = Store(self._spool, self._engine, self._settings.assemble.quiet_s)
        listener = self._listen()
        self.listening.set()
        try:
            self._serve(listener, stop)
            self._selector.unregister(listener)
            listener.close()
            self._drain()
        finally:
            listener.close()
            for connection in list(self._peers):
                self._peers[connection].abort("the node stops")
                self._flush(connection)
                self._close(connection)
            self._store.close()
            self._selector.close()
            self._wake_read.close()
            self._wake_write.close()

    def _listen(self) -> socket.socket:
        receive = self._settings.receive
        family = socket.AF_INET6 if ":" in receive.address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((receive.address, receive.port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        return listener

    def _serve(self, listener: socket.socket, stop: threading.Event) -> None:
        next_look = time.monotonic() + TICK_S
        while not stop.is_set():
            self._step(STOP_LOOK_S)
            if time.monotonic() >= next_look:
                self._close_overdue()
                next_look = time.monotonic() + TICK_S

    def _drain(self) -> None:
        end = time.monotonic() + DRAIN_S
        for connection, peer in list(self._peers.items()):
            if peer.state in (State.AWAITING_REQUEST, State.AWAITING_CLOSE):
                self._close(connection)
        while self._peers and time.monotonic() < end:
            self._step(0.1)

    def _step(self, wait_s: float) -> None:
        for key, events in self._selector.select(wait_s):
            key.data(key.fileobj, events)

    def _accept(self, listener: socket.socket, events: int) -> None:
        try:
            connection, address = listener.accept()
        except OSError:  # the peer is gone already, or we are out of descriptors: the next one may be served
            return
        if len(self._peers) >= MOST_CONNECTIONS * self._most:
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def answered(arrival: Arrival) -> None:
            self._answers.append((connection, peer, arrival))
            self._wake()

        peer = Association(address[0], self._settings, self._store, self._may_associate, answered)
        self._peers[connection] = peer
        self._selector.register(connection, selectors.EVENT_READ, self._ready)

    def _may_associate(self) -> bool:
        return sum(peer.state in (State.ESTABLISHED, State.RELEASING) for peer in self._peers.values()) < self._most

    def _ready(self, connection: socket.socket, events: int) -> None:
        if connection not in self._peers:  # closed a moment ago, by what this step did before
            return
        if events & selectors.EVENT_READ:
            self._read(connection)
        if connection in self._peers:
            self._flush(connection)

    def _read(self, connection: socket.socket) -> None:
        peer = self._peers[connection]
        try:
            data = connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            peer.feed(data)
            return
        if peer.state is State.AWAITING_CLOSE:
            peer.closed = True
        else:
            peer.lost("connection lost")
        peer.out.clear()

    def _flush(self, connection: socket.socket) -> None:
        """Write what is due, then wait for what can come next: room to write, or bytes to read."""
        peer = self._peers[connection]
        if peer.out:
            try:
                sent = connection.send(peer.out)
                del peer.out[:sent]
            except BlockingIOError:
                pass
            except OSError:
                peer.lost("connection lost")
                peer.out.clear()
        if peer.closed and not peer.out:
            self._close(connection)
            return
        events = (selectors.EVENT_WRITE if peer.out else 0) | (selectors.EVENT_READ if peer.has_room else 0)
        if connection.fileno() in self._selector.get_map():
            if events:
                self._selector.modify(connection, events, self._ready)
            else:
                self._selector.unregister(connection)
        elif events:
            self._selector.register(connection, events, self._ready)

    def _close(self, connection: socket.socket) -> None:
        peer = self._peers.pop(connection)
        if not peer.closed:
            peer.lost("connection lost")
        if connection.fileno() in self._selector.get_map():
            self._selector.unregister(connection)
        connection.close()

    def _woken(self, wake: socket.socket, events: int) -> None:
        with suppress(BlockingIOError):  # read already
            wake.recv(4096)
        while self._answers:
            connection, peer, arrival = self._answers.popleft()
            peer.respond(arrival)  # a peer that is gone still has its instances counted
            if connection in self._peers:
                self._flush(connection)

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # full of wake-ups already
            self._wake_write.send(b"\0")

    def _close_overdue(self) -> None:
        now = time.monotonic()
        for connection, peer in list(self._peers.items()):
            if why := peer.overdue(now):
                if peer.state is State.AWAITING_CLOSE:
                    peer.closed = True
                else:
                    peer.abort(why)
                self._flush(connection)
