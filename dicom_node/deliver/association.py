"""Open an association as a service class user, and say in plain words why it did not come about.

pynetdicom reports a failure as a flag on the association. Here each becomes a DeliveryError that tells an
administrator what to look at and tells the node whether another try can help.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation, UserIdentityNegotiation
from pynetdicom.presentation import PresentationContext

from dicom_node.domain.delivery import DimseDestination, TlsClient
from dicom_node.domain.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.errors import ConfigurationError, DeliveryError
from dicom_node.tls.client import client_context
from dicom_node.tls.profile import why

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_PDU = 128 * 1024
_LOOK_S = 0.05  # how often to see whether a thread that is waited for still lives

# A P-DATA-TF begins so, and the message control header of its one value ends so (PS3.8 9.3.5, E.2)
_P_DATA, _LAST_OF_DATA_SET = b"\x04", 0b10

# PS3.8 table 9-18: result of a presentation context that was not accepted.
_CONTEXT_RESULTS = {
    1: "rejected by the user",
    2: "no reason given",
    3: "SOP class not supported",
    4: "transfer syntaxes not supported",
}


@contextmanager
def associated(
    destination: DimseDestination,
    contexts: Sequence[PresentationContext],
    handlers: Sequence[evt.EventHandlerType] = (),
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Conversation]:
    """Associate for the length of a block; release after it, abort when the block raises.

    Parameters
    ----------
    destination : DimseDestination
        Who is called, in whose name, and how long each step may take.
    contexts : sequence of PresentationContext
        What is proposed; at most 128 (PS3.8 9.3.2.2: odd identifiers from 1 to 255).
    handlers : sequence of (event, callable)
        For what the peer asks of us meanwhile, in pynetdicom's terms.
    roles : sequence of SCP_SCU_RoleSelectionNegotiation
        Where we are to be the provider of a service.

    Raises
    ------
    DeliveryError
        When the host is unknown or unreachable, there is no TLS with it, or the peer rejects, aborts, stays silent or
        accepts none of the contexts (the only one of these that another try cannot change).
    """
    line = _Line(destination)
    assoc = _request(destination, contexts, line, handlers, roles)
    try:
        if not assoc.is_established:
            raise _why_not(destination, assoc, line)
        yield Conversation(destination, assoc, line)
        assoc.release()
    finally:
        if assoc.is_established:
            assoc.abort()
        line.close()


class Conversation:
    """An association in use."""

    def __init__(self, destination: DimseDestination, assoc: Association, line: _Line) -> None:
        self.assoc = assoc
        self.timeout_s = destination.timeout_s
        self._destination = destination
        self._line = line

    @property
    def data_sets_sent(self) -> int:
        """How many data sets have gone out whole, as far as this machine can tell."""
        return self._line.data_sets_sent

    def ask(self, request: Callable[[], Dataset], what: str, allowed_s: float) -> Dataset:
        """Send a request and wait for the answer.

        Parameters
        ----------
        request : callable
            One of the `send_c_…` methods of `assoc`, with its arguments bound.
        what : str
            The service, for messages.
        allowed_s : float
            How long the answer may take, sending included.

        Returns
        -------
        pydicom.dataset.Dataset
            With a Status (0000,0900).

        Raises
        ------
        DeliveryError
            When no answer came.
        """
        self.assoc.dimse_timeout = allowed_s
        started = time.monotonic()
        try:
            answer = request()
        except (ValueError, AttributeError) as error:  # no context fits, or the file lacks what C-STORE needs
            raise DeliveryError(f"{self._destination.name}: cannot be sent: {error}", retry=False) from error
        except (RuntimeError, OSError) as error:
            raise DeliveryError(f"{self._destination.name}: {what} failed: {error}", retry=True) from error
        if "Status" not in answer:
            raise self._lost(what, time.monotonic() - started, allowed_s)
        return answer

    def _lost(self, what: str, waited_s: float, allowed_s: float) -> DeliveryError:
        where = _name(self._destination)
        if self._line.aborted_by_peer:
            return DeliveryError(f"{where} aborted the association during {what}", retry=True)
        if waited_s < min(allowed_s, self._line.timeout_s):
            return DeliveryError(f"{where} closed the connection during {what}", retry=True)
        return DeliveryError(f"{where} did not complete {what} within {allowed_s:.0f} s", retry=True)


def _refusal(context: PresentationContext) -> str:
    return _CONTEXT_RESULTS.get(context.result or 0, "refused")


class _Line:
    """What happened on the connection, as pynetdicom tells it while associating."""

    def __init__(self, destination: DimseDestination) -> None:
        self.timeout_s = destination.timeout_s
        self._tls = _context(destination, destination.tls) if destination.tls else None
        self.connected = False
        self.aborted_by_peer = False
        self.rejection: A_ASSOCIATE_RJ | None = None
        self.data_sets_sent = 0
        self._socket: socket.socket | None = None
        self.started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def created(self, event: evt.Event) -> None:
        """Prepare the association's thread, and its socket: it comes before both are used.

        Without TCP_NODELAY small PDUs wait for acknowledgements, 20 objects a second at best.
        """
        if not isinstance(event.assoc._reactor_checkpoint, _Checkpoint):  # this comes for a release, too
            event.assoc._reactor_checkpoint = _Checkpoint(event.assoc)
        wrapper = event.assoc.dul.socket
        if self._tls is None and wrapper is not None and wrapper.socket is not None:
            self._socket = wrapper.socket
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wrap_socket(self, peer: socket.socket, *, server_side: bool, server_hostname: str) -> ssl.SSLSocket:
        """Do what pynetdicom asks of an SSLContext before it connects, and keep the socket."""
        assert self._tls is not None
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = self._tls.wrap_socket(peer, server_side=server_side, server_hostname=server_hostname)
        return self._socket

    @property
    def no_tls(self) -> str:
        """Why there is no TLS; empty where that was not the trouble."""
        problem = getattr(self._socket, "problem", None)
        return why(problem) if problem is not None else ""

    def opened(self, event: evt.Event) -> None:
        """Let the timeout hold for each write, so that a peer that stops reading cannot hold us for ever."""
        self.connected = True
        if self._socket is not None:
            self._socket.settimeout(self.timeout_s)

    def sent(self, event: evt.Event) -> None:
        """Count whole data sets, and acknowledge at once what the peer answers in pieces.

        A peer without TCP_NODELAY (dcmtk and Orthanc as they come) holds back the second piece of each answer until
        the first is acknowledged, which Linux does after 40 ms unless asked, each time anew, to do it at once.
        """
        if event.data[:1] == _P_DATA and event.data[11] & 3 == _LAST_OF_DATA_SET:
            self.data_sets_sent += 1
        if self._socket is not None and hasattr(socket, "TCP_QUICKACK"):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def received(self, event: evt.Event) -> None:
        """Remember that it was the peer who aborted, or who rejected: pynetdicom forgets a rejection that is quick.

        When its reading thread has closed the connection before the other one looks, that takes the peer for absent.
        """
        if isinstance(event.pdu, A_ABORT_RQ):
            self.aborted_by_peer = True
        elif isinstance(event.pdu, A_ASSOCIATE_RJ):
            self.rejection = event.pdu

    def close(self) -> None:
        """Close the socket: pynetdicom forgets to where the peer was absent or gone first."""
        if self._socket is not None:
            self._socket.close()


class _Checkpoint(threading.Event):
    """Where an association's own thread waits while another one talks on it, and is known to wait there.

    pynetdicom says so by a flag that the thread lowers a moment after it went on. Whoever looked in that moment sent a
    request whose answer the thread then took and threw away: on a busy machine one echo in sixty of a fast peer, each
    at the cost of the whole timeout.
    """

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._assoc = assoc
        self._changed = threading.Condition()
        self._is_open = True
        self._is_waited_at = False

    def set(self) -> None:
        """Let the thread go on."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Stop the thread here, and return once it waits, unless it has ended or is the one that calls."""
        with self._changed:
            self._is_open = False
            while not self._is_waited_at and self._assoc.is_alive() and self._assoc is not threading.current_thread():
                self._changed.wait(_LOOK_S)

    def is_set(self) -> bool:
        """Whether the thread may go on."""
        return self._is_open

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the thread may go on."""
        with self._changed:
            while not self._is_open:
                self._is_waited_at = True
                self._changed.notify_all()
                self._changed.wait()
            self._is_waited_at = False
        return True


def _request(
    destination: DimseDestination,
    contexts: Sequence[PresentationContext],
    line: _Line,
    handlers: Sequence[evt.EventHandlerType],
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation],
) -> Association:
    _config.LOG_HANDLER_LEVEL = "none"  # its per-PDU logging costs more than the sending
    _config.STORE_SEND_CHUNKED_DATASET = True  # send a file's bytes as they are, undecoded
    ae = AE(ae_title=destination.calling_ae)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = destination.timeout_s
    try:
        return ae.associate(
            destination.host,
            destination.port,
            contexts=list(contexts),
            ae_title=destination.ae_title,
            max_pdu=MAX_PDU,
            tls_args=destination.tls and (line, destination.tls.server_name or destination.host),  # type: ignore[arg-type]
            ext_neg=[*roles, *_identity(destination)],
            evt_handlers=[
                (evt.EVT_ACSE_SENT, line.created),
                (evt.EVT_CONN_OPEN, line.opened),
                (evt.EVT_DATA_SENT, line.sent),
                (evt.EVT_PDU_RECV, line.received),
                *handlers,
            ],
        )
    except OSError as error:
        raise DeliveryError(f"the host of {_name(destination)} cannot be found: {error}", retry=True) from error


def _identity(destination: DimseDestination) -> list[UserIdentityNegotiation]:
    """Say who we are, where somebody wants to know: by name, or by name and passcode (PS3.7 D.3.3.7)."""
    if not destination.user:
        return []
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 2 if destination.passcode else 1
    identity.primary_field = destination.user.encode()
    if destination.passcode:
        identity.secondary_field = destination.passcode.encode()
    return [identity]


class _Socket(ssl.SSLSocket):
    """A socket that remembers why its handshake failed, which pynetdicom only logs."""

    problem: OSError | None = None

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError as error:
            self.problem = error
            raise

    def read(self, len: int = 1024, buffer: WriteableBuffer | None = None) -> bytes:  # noqa: A002 - as inherited
        """Read; a peer that speaks TLS 1.3 says only now that it does not take our certificate, or wants one."""
        try:
            return super().read(len, buffer)
        except ssl.SSLError as error:
            self.problem = error
            raise


def _context(destination: DimseDestination, tls: TlsClient) -> ssl.SSLContext:
    try:
        context = client_context(tls)
    except ConfigurationError as error:
        raise DeliveryError(f"{_name(destination)}: {error}", retry=True) from error
    context.sslsocket_class = _Socket
    return context


def _why_not(destination: DimseDestination, assoc: Association, line: _Line) -> DeliveryError:
    where = _name(destination)
    if line.no_tls:
        return DeliveryError(f"no TLS with {where}: {line.no_tls}", retry=True)
    if not line.connected:
        how = f"no answer in {line.timeout_s:g} s" if line.elapsed_s >= line.timeout_s else "refused or unreachable"
        return DeliveryError(f"no connection to {where}: {how}", retry=True)
    if line.rejection is not None:
        return _rejected(destination, line.rejection)
    if assoc.rejected_contexts and not assoc.accepted_contexts:
        refused = assoc.rejected_contexts
        classes = ", ".join(sorted({cx.abstract_syntax.name for cx in refused if cx.abstract_syntax}))
        return DeliveryError(f"{where} does not take {classes}: {_refusal(refused[0])}", retry=False, is_refused=True)
    if line.elapsed_s >= line.timeout_s:
        return DeliveryError(
            f"{where} did not answer the association request in {line.timeout_s:g} s",
            retry=True,
        )
    return DeliveryError(
        f"{where} closed the connection instead of answering the association request",
        retry=True,
    )


def _rejected(destination: DimseDestination, answer: A_ASSOCIATE_RJ) -> DeliveryError:
    """Explain a rejection (PS3.8 table 9-21). Even a permanent one is tried again: an administrator can lift it."""
    identified = f"; are user and passcode of {destination.user} right?" if destination.user else ""
    advice = {
        (1, 3): f"; register the calling AE title {destination.calling_ae} there",
        (1, 7): f"; is the called AE title {destination.ae_title} right?",
        (1, 1): identified,
        (2, 1): identified,
    }.get((answer.source or 0, answer.reason_diagnostic or 0), "")
    kind = "for now" if answer.result == 2 else "permanently, as it says"
    return DeliveryError(
        f"{_name(destination)} rejected the association {kind}: {answer.reason_str}{advice}",
        retry=True,
    )


def _name(destination: DimseDestination) -> str:
    return f"{destination.name} ({destination.where})"
