"""The listener: one loop over all sockets of a process, so that a thousand slow peers cost no thread (PS3.8 section 9).

Several processes listen on the same port, and share the connections out among them (shared.py).
"""

from __future__ import annotations

import logging
import select
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from functools import partial
from threading import Event as StopEvent
from typing import TYPE_CHECKING

from pynetdicom.pdu_primitives import A_ASSOCIATE
from sqlalchemy import Connection as Transaction
from sqlalchemy import Engine

from dicom_node.catalog import rule_sop_classes
from dicom_node.db.audit import record
from dicom_node.db.instances import end_association
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.errors import TlsFailed
from dicom_node.receive.admission import TOO_MANY, Rejection, Services, refuse, services
from dicom_node.receive.association import Association, State
from dicom_node.receive.commitment import EventReport, answer_report
from dicom_node.receive.identity import IN_CLEAR, Shown
from dicom_node.receive.reporter import AFTER_S, Report, Reporter
from dicom_node.receive.secure import SecureSocket
from dicom_node.receive.shared import BACKLOG, LEAVE_S, Shared, bound
from dicom_node.settings import ReceiveTls, Settings
from dicom_node.spool import Spool
from dicom_node.store.arrival import Arrival
from dicom_node.store.storage import Storage

if TYPE_CHECKING:
    from dicom_node.receive.credentials import Credentials

logger = logging.getLogger(__name__)

DRAIN_S = 5.0
FLUSH_S = 20.0
_TICK_S = 0.5
_READ_BYTES = 256 * 1024
_NEGOTIATING = 64  # connections beyond receive.max_associations that may wait to be rejected or to close
_TELL_REJECTION_EVERY_S = 60.0
_MOST_REJECTIONS = 1_000
_CLOSED_THERE = getattr(select, "POLLRDHUP", 0)  # of Linux; elsewhere only what is closed both ways is told


class Receiver:
    """The storage and verification SCP of one process.

    Parameters
    ----------
    settings : Settings
        Where to listen, who may send, how long to wait.
    spool : Spool
        Prepared.
    engine : sqlalchemy.Engine
        Need not answer yet: until it does, peers are told 0xA700.
    shared : Shared, optional
        The sockets to listen on; this process opens its own without.
    slot : int
        Which of the receivers it is.
    """

    def __init__(
        self, settings: Settings, spool: Spool, engine: Engine, shared: Shared | None = None, slot: int = 0
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._storage = Storage(spool, engine, settings.assemble.waiting())
        self.reporter = Reporter(engine, spool)
        self._selector = selectors.DefaultSelector()
        self._connections: set[Connection] = set()
        self._credentials = _credentials(settings.receive.tls) if settings.receive.tls else None
        self._over_tls: socket.socket | None = None  # that one of the listeners
        self._shared = shared
        self._slot = slot
        self._resting: dict[
            socket.socket, float
        ] = {}  # listeners that are not listened to -> monotonic time until when
        self._next_look = 0.0  # monotonic time of the next look at the clocks of the connections
        self._posted: deque[Callable[[], None]] = deque()
        self._wake_out, self._wake_in = socket.socketpair()
        self._is_woken = False  # and has not yet looked at what is posted
        self._sop_classes = frozenset(settings.receive.sop_classes) | rule_sop_classes(settings)
        self._unnamed: set[tuple[str, str, str]] = set()  # calling AE, address, SOP class: recorded
        self._told: dict[tuple[str, ...], float] = {}  # calling AE, address, reason -> when it was recorded

    def run(self, stop: StopEvent) -> None:
        """Listen until `stop`; then let associations finish for `DRAIN_S`, and abort those that have not.

        Raises
        ------
        OSError
            If the address cannot be listened on.
        """
        self._spool.sweep_incoming()
        with ExitStack() as stack:
            listeners = [self._open(number, port, stack) for number, port in enumerate(self._settings.receive.ports)]
            for end in (self._wake_in, self._wake_out):
                end.setblocking(False)
            self._selector.register(self._wake_out, selectors.EVENT_READ, self._woken)
            for listener in listeners:
                self._listen_to(listener)
            self._note_count()
            self._storage.start()
            self.reporter.start()
            while not stop.is_set():
                self._turn()
            for listener in listeners:
                while self._take(listener):  # those that the kernel has let in already
                    pass
                self._stop_listening_to(listener)
            if self._shared is not None:
                self._shared.leave(self._slot)
                self._shared = None
        self._drain()

    def post(self, step: Callable[[], None]) -> None:
        """Have something run in the loop. From any thread."""
        self._posted.append(step)
        if not self._is_woken:
            self._is_woken = True
            with suppress(OSError):  # it has ended
                self._wake_in.send(b"\0")

    def refuse(self, request: A_ASSOCIATE, address: str, shown: Shown) -> Rejection | None:
        """Why this peer gets no association, which is recorded; None when it does."""
        rejection = refuse(request, address, self._settings, shown) or self._too_many(address)
        if rejection is not None:
            self._record_rejection(request, address, rejection)
        return rejection

    def services(self, request: A_ASSOCIATE, address: str, shown: Shown) -> Services:
        """What this peer may do."""
        return services(request, address, self._settings, shown, self._sop_classes)

    def unnamed(self, request: A_ASSOCIATE, address: str, sop_classes: list[str]) -> None:
        """Record private classes that a peer may not send; each once while this process lives."""
        told = [uid for uid in sop_classes if (request.calling_ae_title, address, uid) not in self._unnamed]
        if not told or len(self._unnamed) >= _MOST_REJECTIONS:
            return
        self._unnamed |= {(request.calling_ae_title, address, uid) for uid in told}
        calling = request.calling_ae_title
        logger.warning(
            "%s at %s may not send %s: named by no rule and not in receive.sop_classes", calling, address, told
        )
        detail = {"from": calling, "address": address, "sop_classes": told[:20]}
        self._tell(AuditEvent(Event.SOP_CLASS_REFUSED, detail=detail))

    def no_tls(self, address: str, reason: str) -> None:
        """Log and record that a connection had to end because there is no TLS, or TLS where there should be none."""
        if self._is_news((address, reason)):
            logger.warning("no TLS with %s: %s", address, reason)
            self._tell(AuditEvent(Event.TLS_FAILED, detail={"address": address, "reason": reason}))

    def forget(self, connection: Connection) -> None:
        """Drop a connection that has been closed."""
        self._connections.discard(connection)
        self._note_count()

    def _open(self, number: int, port: int, stack: ExitStack) -> socket.socket:
        receive = self._settings.receive
        listener = self._shared.listeners[number] if self._shared else bound(receive.address, port)
        stack.enter_context(listener).listen(BACKLOG)
        is_secure = receive.tls is not None and port == receive.tls.port
        if is_secure:
            self._over_tls = listener
        logger.info("listening on %s port %d%s", receive.address, port, " for TLS" if is_secure else "")
        return listener

    def _turn(self) -> None:
        """Wait for the network or for another thread, and do what there is to do."""
        rest_s = (until - time.monotonic() for until in self._resting.values())
        for key, mask in self._selector.select(max(0.0, min((_TICK_S, *rest_s)))):
            if isinstance(key.data, Connection):
                key.data.ready(mask)
            else:
                key.data()
        while self._posted:
            self._posted.popleft()()
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _TICK_S
            for connection in [c for c in self._connections if c.deadline() <= now]:
                connection.expire()
            for connection in [*self._connections]:
                connection.tell(now)
        for listener in [one for one, until in self._resting.items() if until <= now]:
            self._listen_to(listener)
            self._take(listener)

    def _woken(self) -> None:
        self._wake_out.recv(4096)
        self._is_woken = False  # before the next look at what is posted

    def _listen_to(self, listener: socket.socket) -> None:
        self._resting.pop(listener, None)
        self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))

    def _stop_listening_to(self, listener: socket.socket) -> None:
        if listener not in self._resting:
            self._selector.unregister(listener)

    def _rest(self, listener: socket.socket, seconds: float) -> None:
        self._stop_listening_to(listener)
        self._resting[listener] = time.monotonic() + seconds

    def _accept(self, listener: socket.socket) -> None:
        """Accept a connection, or leave it for a moment to a receiver that has fewer."""
        if self._shared is not None and self._shared.is_ahead(self._slot):
            self._rest(listener, LEAVE_S)
        else:
            self._take(listener)

    def _take(self, listener: socket.socket) -> bool:
        """Accept one connection, where one waits."""
        try:
            peer, address = listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:  # the peer has gone again, or there is no descriptor left
            logger.warning("a connection could not be accepted: %s", error)
            self._rest(listener, _TICK_S)
            return False
        if not self._has_room(_plain(address[0])):
            peer.close()
            return True
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = self._secured(peer) if listener is self._over_tls else peer
        self._connections.add(Connection(line, address[0], self, self._storage, self._selector, self._settings))
        self._note_count()
        return True

    def _note_count(self) -> None:
        if self._shared is not None:
            self._shared.note(self._slot, len(self._connections))

    def _secured(self, peer: socket.socket) -> SecureSocket:
        assert self._credentials is not None  # there is a listener for TLS
        return SecureSocket(peer, self._credentials.context())

    def _too_many(self, address: str) -> Rejection | None:
        receive = self._settings.receive
        there = [c for c in self._connections if c.association.state is State.OPEN]
        if _are_full(there, receive.max_associations):
            return Rejection(*TOO_MANY, "receive.max_associations are open")
        theirs = [c for c in there if c.association.address == address]
        if _are_full(theirs, receive.max_associations_per_peer):
            return Rejection(*TOO_MANY, "receive.max_associations_per_peer are open")
        return None

    def _has_room(self, address: str) -> bool:
        """Whether to talk with one more connection at all, if only to reject it."""
        receive = self._settings.receive
        if _are_full(self._connections, receive.max_associations + _NEGOTIATING):
            return False
        theirs = [c for c in self._connections if c.association.address == address]
        return not _are_full(theirs, receive.max_associations_per_peer + _NEGOTIATING // 2)

    def _record_rejection(self, request: A_ASSOCIATE, address: str, rejection: Rejection) -> None:
        calling = request.calling_ae_title
        if not self._is_news((calling, address, rejection.reason)):
            return
        logger.warning("association from %s at %s rejected: %s", calling, address, rejection.reason)
        detail = {"from": calling, "address": address, "to": request.called_ae_title, "reason": rejection.reason}
        self._tell(AuditEvent(Event.ASSOCIATION_REJECTED, detail=detail))

    def _is_news(self, what: tuple[str, ...]) -> bool:
        """Whether to log and record something: of the same again and again, one a minute."""
        now = time.monotonic()
        if now - self._told.get(what, -_TELL_REJECTION_EVERY_S) < _TELL_REJECTION_EVERY_S:
            return False
        if len(self._told) >= _MOST_REJECTIONS:
            self._told.clear()
        self._told[what] = now
        return True

    def _tell(self, event: AuditEvent) -> None:
        self._storage.tell(lambda tx: record(tx, event))

    def _drain(self) -> None:
        end = time.monotonic() + DRAIN_S
        while time.monotonic() < end and any(c.association.state is State.OPEN for c in self._connections):
            self._turn()
        for connection in [*self._connections]:
            connection.shut_down()
        self._storage.stop(FLUSH_S)
        while self._posted:  # the last answers; their peers have been told to try again, and will find them stored
            self._posted.popleft()()
        self._storage.tell_last()
        self.reporter.stop(DRAIN_S)
        for connection in [*self._connections]:
            connection.close()
        self._selector.close()
        for end_of_pipe in (self._wake_in, self._wake_out):
            end_of_pipe.close()


class Connection:
    """The socket of one association, and its clocks: ARTIM before and after it, idleness in between."""

    def __init__(
        self,
        peer: socket.socket | SecureSocket,
        address: str,
        receiver: Receiver,
        storage: Storage,
        selector: selectors.BaseSelector,
        settings: Settings,
    ) -> None:
        self.association = Association(self, _plain(address))
        self._peer = peer
        self._secure = peer if isinstance(peer, SecureSocket) else None
        self._receiver = receiver
        self._storage = storage
        self._selector = selector
        self._artim_s = settings.receive.artim_timeout_s
        self._idle_s = settings.receive.idle_timeout_s
        self._answer_s = settings.receive.answer_timeout_s
        self._opened_at = self._last_seen = time.monotonic()
        self._closing_since: float | None = None
        self._mask = selectors.EVENT_READ
        selector.register(peer.fileno(), self._mask, self)

    # What the loop asks for

    def ready(self, mask: int) -> None:
        """Read and write what the network allows."""
        if self.is_closed:
            return
        if mask & selectors.EVENT_WRITE and self._secure is not None:
            self._guard(self._secure.flush)
        if mask & selectors.EVENT_READ and not self.is_closed:
            self._guard(self._read)
        if not self.is_closed:
            self._guard(self._refresh)

    def deadline(self) -> float:
        """Monotonic time at which patience ends."""
        if self._closing_since is not None:
            return self._closing_since + self._artim_s
        if self.association.state is State.WAITING:
            return self._opened_at + self._artim_s
        return self._last_seen + (self._answer_s if self.association.is_our_turn else self._idle_s)

    def expire(self) -> None:
        """End what has taken too long."""
        if self.association.state is State.OPEN:
            is_ours = self.association.is_our_turn
            late = f"aborted: neither disk nor database answered for {self._answer_s:g} s"
            self.association.abort(late if is_ours else f"idle for {self._idle_s:g} s")
            self._refresh_or_close()
            return
        if self._secure is not None and self._secure.has_begun and not self._secure.is_open:
            self._receiver.no_tls(self.association.address, f"its handshake took more than {self._artim_s:g} s")
        self.close()

    def tell(self, now: float) -> None:
        """Report on what a peer asked us to commit ourselves to, when it has said nothing more for a moment."""
        if self.association.owes_report and now - self._last_seen >= AFTER_S:
            self._run(self.association.tell)

    def shut_down(self) -> None:
        """Abort what is still open, because this process ends."""
        if self.association.state is State.OPEN:
            self.association.abort("aborted: the receiver was stopped")
            self._refresh_or_close()

    def close(self) -> None:
        """Close the socket."""
        if not self.is_closed:
            self._wait_for(0)
            self._peer.close()
            self._receiver.forget(self)

    @property
    def is_closed(self) -> bool:
        """Whether the socket is closed."""
        return self._peer.fileno() < 0

    @property
    def has_left(self) -> bool:
        """Whether the peer has closed its end, although what it said before is still being read and stored."""
        look = select.poll()
        look.register(self._peer.fileno(), _CLOSED_THERE)
        return bool(look.poll(0))

    # What the association asks for

    def refuse(self, request: A_ASSOCIATE, address: str) -> Rejection | None:
        """Why this peer gets no association."""
        return self._receiver.refuse(request, address, self._shown())

    def services(self, request: A_ASSOCIATE, address: str) -> Services:
        """What this peer may do."""
        return self._receiver.services(request, address, self._shown())

    def unnamed(self, request: A_ASSOCIATE, address: str, sop_classes: list[str]) -> None:
        """Record private classes that this peer may not send."""
        self._receiver.unnamed(request, address, sop_classes)

    def post(self, step: Callable[[], None]) -> None:
        """Run something in the loop, and then go on with this connection."""
        self._receiver.post(partial(self._run, step))

    def write(self, arrival: Arrival, data: memoryview) -> None:
        """Append to a data set."""
        self._storage.write(arrival, data)

    def finish(self, arrival: Arrival) -> None:
        """Store a data set that is complete."""
        self._storage.finish(arrival)

    def abandon(self, arrival: Arrival) -> None:
        """Forget a data set whose rest will not come."""
        self._storage.abandon(arrival)

    def report(self, report: EventReport) -> None:
        """Note a report of storage commitment that is complete."""
        self._storage.do(partial(answer_report, report))

    def prepare(self, calling_ae: str, transaction_uid: str, ready: Callable[[Report | None], None]) -> None:
        """Make the report on what the peer asked us to commit ourselves to; `ready` is called in the loop."""
        self._receiver.reporter.prepare(calling_ae, transaction_uid, lambda report: self.post(partial(ready, report)))

    def settle(self, report: Report, status: int | None) -> None:
        """Note what the peer answered to it."""
        self._receiver.reporter.settle(report, status)

    def leave(self, calling_ae: str, transaction_uid: str) -> None:
        """Note that the peer left before it could be told."""
        self._receiver.reporter.leave(calling_ae, transaction_uid)

    def ended(self, association: Association, reason: str) -> None:
        """Record the end of an association that tried to store something."""
        sender, stored, refused = association.sender, association.stored, association.refused
        assert sender is not None
        logger.info("association %s %s: %d stored, %d refused", sender.id, reason, stored, refused)
        if not association.attempted:
            return

        def note(tx: Transaction) -> None:
            end_association(tx, sender, reason=reason, stored=stored, refused=refused)

        self._storage.tell(note)

    # Its own

    def _shown(self) -> Shown:
        return IN_CLEAR if self._secure is None else Shown(is_secure=True, certificate=self._secure.certificate)

    def _run(self, step: Callable[[], None]) -> None:
        self._guard(step)
        if not self.is_closed:
            self._guard(self._refresh)

    def _guard(self, step: Callable[[], None]) -> None:
        """Do something, at the cost of this association only."""
        try:
            step()
        except TlsFailed as error:
            self._receiver.no_tls(self.association.address, str(error))
            self._lose(f"TLS failed: {error}")
        except OSError as error:
            self._lose(f"connection lost: {error.strerror}")
        except Exception:  # one peer must not cost the others theirs
            logger.exception("an association is aborted")
            self.association.abort("aborted: an error of ours")
            self._refresh_or_close()

    def _read(self) -> None:
        try:
            data = self._peer.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._lose("connection closed by the peer")
            return
        self._last_seen = time.monotonic()
        self.association.received(data)

    def _refresh(self) -> None:
        """Send what can be sent, act on what waited for that, and say what to wait for next."""
        association = self.association
        while association.outbox and self._send():
            association.proceed()
        if association.state is State.CLOSED:
            self.close()
        if self.is_closed:
            return
        if association.state is State.CLOSING and self._closing_since is None:
            self._closing_since = time.monotonic()
        is_writing = association.outbox or (self._secure is not None and self._secure.is_writing)
        mask = (selectors.EVENT_WRITE if is_writing else 0) | (selectors.EVENT_READ if association.wants_more else 0)
        self._wait_for(mask)

    def _send(self) -> bool:
        """Send from the outbox; whether all of it has gone."""
        outbox = self.association.outbox
        try:
            sent = self._peer.send(outbox)
        except BlockingIOError:
            return False
        del outbox[:sent]
        self._last_seen = time.monotonic()  # it could not be heard of while it waited for this
        return not outbox

    def _wait_for(self, mask: int) -> None:
        if mask == self._mask:
            return
        if not self._mask:
            self._selector.register(self._peer.fileno(), mask, self)
        elif not mask:
            self._selector.unregister(self._peer.fileno())
        else:
            self._selector.modify(self._peer.fileno(), mask, self)
        self._mask = mask

    def _refresh_or_close(self) -> None:
        try:
            self._refresh()
        except OSError:
            self.close()

    def _lose(self, reason: str) -> None:
        self.association.lost(reason)
        self.close()


def _are_full(connections: Collection[Connection], places: int) -> bool:
    """Whether every place is taken. Peers that have left keep none, unless they are as many as there are places."""
    if len(connections) < places:
        return False
    return len(connections) >= 2 * places or sum(not c.has_left for c in connections) >= places


def _credentials(tls: ReceiveTls) -> Credentials:
    from dicom_node.receive.credentials import Credentials

    return Credentials(tls)


def _plain(address: str) -> str:
    """Give an IPv4 address as such, on a socket that takes both."""
    return address.removeprefix("::ffff:")
