"""One peer's association: PDUs in, PDUs out (PS3.8 section 9), as bytes; the socket is scp.py's.

PDUs are taken apart here; pynetdicom decodes and encodes those that negotiate. Data sets pass through: what is there of
one goes to the disk without waiting for the rest of its PDU, and without being copied.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from datetime import datetime
from enum import Enum, auto
from functools import partial
from typing import Protocol
from uuid import uuid4

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_node.db.engine import utc_now
from dicom_node.db.instances import RELEASED, Sender
from dicom_node.errors import DataSetMismatch, ProtocolError, TlsFailed
from dicom_node.receive import dimse
from dicom_node.receive.admission import (
    Rejection,
    Services,
    acceptance,
    check_items,
    implementation_of,
    negotiate,
    peer_max_pdu,
    unnamed_classes,
    window,
)
from dicom_node.receive.commitment import REQUESTS, EventReport
from dicom_node.receive.dimse import Command
from dicom_node.receive.reporter import HOLD_S, Report
from dicom_node.store.arrival import LONGEST_WAIT_BYTES, Arrival

logger = logging.getLogger(__name__)

_TLS = 0x16  # no PDU: how a TLS handshake begins
_RQ, _DATA, _RELEASE_RQ, _RELEASE_RP, _ABORT = 0x01, 0x04, 0x05, 0x06, 0x07
# Longer ones are refused unread. Data: room for peers that ignore the 128 KiB that we offer.
_LONGEST = {_RQ: 512 * 1024, 0x02: 64, 0x03: 64, _DATA: 1024 * 1024, _RELEASE_RQ: 64, _RELEASE_RP: 64, _ABORT: 64}
_HEAD = struct.Struct(">BxI")
_PDV = struct.Struct(">IBB")
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"  # the well-known one (PS3.4 J.3.5)


class Hub(Protocol):
    """What an association needs of the receiver that it belongs to."""

    def refuse(self, request: A_ASSOCIATE, address: str) -> Rejection | None:
        """Why this peer gets no association; None when it does."""

    def services(self, request: A_ASSOCIATE, address: str) -> Services:
        """What this peer may do."""

    def post(self, step: Callable[[], None]) -> None:
        """Run something in the loop; called from other threads."""

    def unnamed(self, request: A_ASSOCIATE, address: str, sop_classes: list[str]) -> None:
        """Record private classes that this peer may not send, because nobody has named them."""

    def write(self, arrival: Arrival, data: memoryview) -> None:
        """Append to a data set."""

    def finish(self, arrival: Arrival) -> None:
        """Store a data set that is complete."""

    def abandon(self, arrival: Arrival) -> None:
        """Forget a data set whose rest will not come."""

    def report(self, report: EventReport) -> None:
        """Note a report of storage commitment that is complete."""

    def prepare(self, calling_ae: str, transaction_uid: str, ready: Callable[[Report | None], None]) -> None:
        """Make the report on what the peer asked us to commit ourselves to; `ready` is called in the loop."""

    def settle(self, report: Report, status: int | None) -> None:
        """Note what the peer answered to that, None when it left instead."""

    def leave(self, calling_ae: str, transaction_uid: str) -> None:
        """Note that the peer left before it could be told."""

    def ended(self, association: Association, reason: str) -> None:
        """Record the end of an association that tried to store something."""


class State(Enum):
    """Where an association stands (PS3.8 table 9-10, abridged)."""

    WAITING = auto()  # Sta2: for the A-ASSOCIATE-RQ
    OPEN = auto()  # Sta6
    CLOSING = auto()  # Sta13: for the peer to close the connection
    CLOSED = auto()


class Association:
    """The acceptor's side of one connection.

    Attributes
    ----------
    outbox : bytearray
        What is to be sent; nothing more is read from the peer until it has gone.
    under_way : int
        Requests that wait for their answers: one, or as many as the asynchronous operations window allows.
    """

    def __init__(self, hub: Hub, address: str) -> None:
        self.address = address
        self.state = State.WAITING
        self.outbox = bytearray()
        self.under_way = 0
        self.sender: Sender | None = None
        self.attempted = self.stored = self.refused = 0
        self._hub = hub
        self._started_at: datetime = utc_now()
        self._inbox: bytes | bytearray = b""
        self._at = 0  # where in it we are
        self._pdu_left = 0  # of the P-DATA-TF that is arriving
        self._value_left = 0  # of the data set fragment in it
        self._is_last = False  # that fragment
        self._allowed = Services(stores=False)
        self._contexts: dict[int, tuple[str, str]] = {}  # id -> abstract syntax, transfer syntax
        self._peer_max_pdu = 0
        self._window = 1
        self._is_leaving = False  # the peer wants to release, and is still owed answers
        self._storing: list[Arrival] = []  # complete, and perhaps not yet written
        self._context_id = 0  # of the message that is arriving
        self._command_set = bytearray()
        self._command: Command | None = None  # complete, its data set is arriving
        self._arrival: Arrival | None = None
        self._report: EventReport | None = None
        self._promised: list[tuple[int, str]] = []  # context and transaction, to be reported on
        self._telling: tuple[int, str] | None = None  # that of them which is being reported on
        self._told: Report | None = None  # what it is told, once that is known; sent when it is idle
        self._told_as = 0  # message id of the report, once it is sent
        self._end_reason = ""

    @property
    def wants_more(self) -> bool:
        """Whether to read from the peer: it is told to wait by the network, not by us."""
        return not (self.outbox or (self.is_busy and self._there) or self._is_held_back)

    @property
    def is_busy(self) -> bool:
        """Whether nothing more is taken up until an answer is given."""
        if self.under_way >= self._window or self._is_leaving:
            return True
        return bool(self._storing) and self._unwritten() > LONGEST_WAIT_BYTES

    def _unwritten(self) -> int:
        """How many bytes wait for the disk, of data sets that are complete."""
        self._storing = [arrival for arrival in self._storing if arrival.written < arrival.queued]
        return sum(arrival.queued - arrival.written for arrival in self._storing)

    @property
    def is_our_turn(self) -> bool:
        """Whether the peer has to wait for our disk or database: it is not idle then."""
        is_looking = self._telling is not None and self._told is None
        return self.under_way > 0 or self._is_held_back or is_looking

    @property
    def owes_report(self) -> bool:
        """Whether there is something to `tell`."""
        return bool(self._promised or self._told)

    @property
    def _is_idle(self) -> bool:
        is_between = not (self._command_set or self._command or self._pdu_left or self._there)
        return self.state is State.OPEN and is_between and not (self.under_way or self.outbox or self._is_leaving)

    @property
    def _is_held_back(self) -> bool:
        return self._arrival is not None and self._arrival.on_room is not None

    @property
    def _there(self) -> int:
        """How many bytes have come that nobody has looked at."""
        return len(self._inbox) - self._at

    def received(self, data: bytes) -> None:
        """Take what came from the peer, and act on it as far as it can be acted on."""
        if self.state in (State.CLOSING, State.CLOSED):
            return
        if not self._there:
            self._inbox, self._at = data, 0
        else:
            if not isinstance(self._inbox, bytearray):
                self._inbox, self._at = bytearray(memoryview(self._inbox)[self._at :]), 0
            self._inbox += data
        self.proceed()

    def proceed(self) -> None:
        """Act on the PDUs that have been received, as far as nothing has to be waited for."""
        try:
            while not self.is_busy and not self.outbox and self._step():
                pass
            if isinstance(self._inbox, bytearray):
                del self._inbox[: self._at]
                self._at = 0
        except TlsFailed:
            raise
        except ProtocolError as error:
            logger.warning("association with %s aborted: %s", self.address, error)
            self.abort(f"aborted: {error}", error.abort_reason)

    def abort(self, reason: str, abort_reason: int = 0) -> None:
        """Send an A-ABORT as the service provider (PS3.8 9.3.8)."""
        self.outbox += struct.pack(">BxIxxBB", _ABORT, 4, 2, abort_reason)
        self._end(reason, State.CLOSING)

    def tell(self) -> None:
        """Report, step by step, on what the peer asked us to commit ourselves to; it has to be silent meanwhile."""
        if not self._is_idle or self.sender is None:
            return
        if self._told is not None and not self._told_as:
            self._send_report(self._told)
        elif self._telling is None and self._promised:
            self._telling = self._promised.pop(0)
            self._hub.prepare(self.sender.calling_ae, self._telling[1], self._ready)

    def lost(self, reason: str) -> None:
        """Note that the connection is gone."""
        self._end(reason, State.CLOSED)

    def _step(self) -> bool:
        if self.state in (State.CLOSING, State.CLOSED):
            return False
        if self._value_left:
            return self._take_piece()
        return self._take_value() if self._pdu_left else self._take_pdu()

    def _take_pdu(self) -> bool:
        if self._there < _HEAD.size:
            return False
        kind, length = _HEAD.unpack_from(self._inbox, self._at)
        if kind == _TLS and self.state is State.WAITING:
            raise TlsFailed("it speaks TLS on the port without it")
        if kind not in _LONGEST:
            raise ProtocolError(f"PDU type 0x{kind:02X} does not exist", abort_reason=1)
        if length > _LONGEST[kind]:
            raise ProtocolError(f"PDU of type 0x{kind:02X} with {length} bytes")
        if kind == _DATA and self.state is State.OPEN:
            self._at += _HEAD.size
            self._pdu_left = length
            return True
        if self._there < _HEAD.size + length:
            return False
        self._act(kind, self._next(_HEAD.size + length))
        return True

    def _next(self, length: int) -> bytes:
        """Take bytes that are there."""
        start, self._at = self._at, self._at + length
        return bytes(memoryview(self._inbox)[start : self._at])

    def _act(self, kind: int, pdu: bytes) -> None:
        if kind == _ABORT:
            self._end("aborted by the peer", State.CLOSED)
        elif self.state is State.WAITING and kind == _RQ:
            self._associate(pdu)
        elif self.state is State.OPEN and kind == _RELEASE_RQ:
            self._is_leaving = True
            self._release_once_answered()
        else:
            raise ProtocolError(f"PDU of type 0x{kind:02X} out of place", abort_reason=2)

    def _associate(self, pdu: bytes) -> None:
        request = _decode_request(pdu)
        if rejection := self._hub.refuse(request, self.address):
            numbers = (rejection.result, rejection.source, rejection.diagnostic)
            self.outbox += struct.pack(">BxIxBBB", 0x03, 4, *numbers)
            self.state = State.CLOSING
            return
        allowed = self._allowed = self._hub.services(request, self.address)
        if unnamed := unnamed_classes(request, allowed):
            self._hub.unnamed(request, self.address, unnamed)
        contexts, roles = negotiate(request, allowed)
        answer = A_ASSOCIATE_AC()
        answer.from_primitive(acceptance(request, contexts, roles, is_user=allowed.is_user))
        self._contexts = {
            int(cx.context_id): (str(cx.abstract_syntax), str(cx.transfer_syntax[0]))
            for cx in contexts
            if cx.result == 0 and cx.context_id is not None
        }
        self._peer_max_pdu = peer_max_pdu(request)
        self._window = window(request) or 1
        self.sender = Sender(
            id=str(uuid4()),
            calling_ae=request.calling_ae_title,
            called_ae=request.called_ae_title,
            address=self.address,
            implementation=implementation_of(request),
            started_at=self._started_at,
        )
        self.outbox += answer.encode()
        self.state = State.OPEN
        logger.info("association %s from %s at %s", self.sender.id, self.sender.calling_ae, self.address)

    def _take_value(self) -> bool:
        """Begin the next presentation data value of a P-DATA-TF (PS3.8 9.3.5 and annex E)."""
        if self._pdu_left < _PDV.size:
            raise ProtocolError("a P-DATA-TF that ends inside a presentation data value")
        if self._there < _PDV.size:
            return False
        length, context_id, control = _PDV.unpack_from(self._inbox, self._at)
        if length < 2 or 4 + length > self._pdu_left:
            raise ProtocolError(f"a presentation data value of {length} bytes does not fit its PDU")
        is_command, is_last = bool(control & 1), bool(control & 2)
        if is_command and self._there < 4 + length:
            return False
        self._at += _PDV.size
        self._pdu_left -= 4 + length
        if is_command:
            self._take_command(context_id, self._next(length - 2), is_last=is_last)
        else:
            self._begin_fragment(context_id, length - 2, is_last=is_last)
        return True

    def _take_command(self, context_id: int, fragment: bytes, *, is_last: bool) -> None:
        if context_id not in self._contexts:
            raise ProtocolError(f"presentation context {context_id} was not accepted")
        if self._command is not None or (self._command_set and context_id != self._context_id):
            raise ProtocolError("a command inside another message", abort_reason=2)
        self._context_id = context_id
        self._command_set += fragment
        if len(self._command_set) > dimse.LONGEST_COMMAND_SET:
            raise ProtocolError(f"a command set of more than {dimse.LONGEST_COMMAND_SET} bytes")
        if is_last:
            command = dimse.read_command(bytes(self._command_set))
            self._command_set.clear()
            self._start(command)

    def _start(self, command: Command) -> None:
        """Act on a request whose command set is complete; its data set may be still to come."""
        if command.field == dimse.C_STORE_RQ:
            self._begin_store(command)
        elif (command.field, self._contexts[self._context_id][0]) in REQUESTS and self._may_ask(command):
            self._begin_report(command)
        if command.has_data_set:
            self._command = command
        else:
            self._complete(command)

    def _begin_store(self, command: Command) -> None:
        assert self.sender is not None
        abstract_syntax, transfer_syntax = self._contexts[self._context_id]
        announced = command.sop_class_uid, command.sop_instance_uid
        arrival = Arrival(
            self.sender, *announced, transfer_syntax, partial(self._answer_later, self._context_id, command)
        )
        arrival.check_announced()
        if arrival.error is None and command.sop_class_uid != abstract_syntax:
            arrival.error = DataSetMismatch("SOP class of the command is not that of the context")
        self.attempted += 1
        self._arrival = arrival

    def _may_ask(self, command: Command) -> bool:
        if command.field == dimse.N_EVENT_REPORT_RQ:
            return self._allowed.reports
        return self._allowed.commits or command.field != dimse.N_ACTION_RQ

    def _begin_report(self, command: Command) -> None:
        assert self.sender is not None
        _, transfer_syntax = self._contexts[self._context_id]
        answer = partial(self._answer_report_later, self._context_id)
        called = self.sender.called_ae
        report = EventReport(command, transfer_syntax, self.sender.calling_ae, answer, called_ae=called)
        if command.field == dimse.N_ACTION_RQ and self._allowed.is_told_here:
            report.hold_s, report.answer = HOLD_S, partial(self._answer_promise_later, self._context_id, report)
        self._report = report

    def _begin_fragment(self, context_id: int, length: int, *, is_last: bool) -> None:
        if self._command is None or context_id != self._context_id:
            raise ProtocolError("a data set that no command announced", abort_reason=2)
        self._value_left, self._is_last = length, is_last
        if not length and is_last:
            self._complete(self._command)

    def _take_piece(self) -> bool:
        """Take what is there of a data set fragment."""
        length = min(self._there, self._value_left)
        if not length:
            return False
        assert self._command is not None
        piece = memoryview(self._inbox)[self._at : self._at + length]
        if isinstance(self._inbox, bytearray):  # which will be changed
            piece = memoryview(bytes(piece))
        self._at += length
        self._value_left -= length
        if self._arrival is not None:
            self._hub.write(self._arrival, piece)
            self._hold_back(self._arrival)
        elif self._report is not None:
            self._report.append(piece)
        if self._is_last and not self._value_left:
            self._complete(self._command)
        return True

    def _hold_back(self, arrival: Arrival) -> None:
        """Stop reading while the disk is far behind. Looked at twice: it may have caught up in between."""
        if arrival.is_ahead:
            arrival.on_room = partial(self._hub.post, self.proceed)
            if not arrival.is_ahead:
                arrival.on_room = None

    def _complete(self, command: Command) -> None:
        """Answer a request that is there as a whole, or have it answered once it is stored."""
        self._command = None
        if self._arrival is not None:
            arrival, self._arrival = self._arrival, None
            self.under_way += 1
            if self._window > 1:  # else its answer is waited for
                self._storing.append(arrival)
            self._hub.finish(arrival)
        elif self._report is not None:
            report, self._report = self._report, None
            self.under_way += 1
            self._hub.report(report)
        elif command.field == dimse.C_ECHO_RQ:
            self._respond(self._context_id, command, dimse.SUCCESS)
        elif command.field == dimse.N_EVENT_REPORT_RSP and self._told_as and command.message_id == self._told_as:
            self._settle_report(command.status)
        elif command.field & dimse.RESPONSE:
            raise ProtocolError(f"response 0x{command.field:04X} to nothing that we asked", abort_reason=2)
        elif command.field != dimse.C_CANCEL_RQ:  # a cancel has nothing to cancel, and no response
            self._respond(self._context_id, command, dimse.UNRECOGNIZED_OPERATION)

    def _respond(self, context_id: int, command: Command, status: int, comment: str = "") -> None:
        self.outbox += dimse.p_data(context_id, dimse.response(command, status, comment), self._peer_max_pdu)

    def _answer_later(self, context_id: int, command: Command, status: int, comment: str) -> None:
        """Hand the answer of the storing threads over to the loop."""
        self._hub.post(partial(self._stored, context_id, command, status, comment))

    def _answer_report_later(self, context_id: int, command: Command, status: int, comment: str) -> None:
        self._hub.post(partial(self._answer, context_id, command, status, comment))

    def _answer_promise_later(
        self, context_id: int, report: EventReport, command: Command, status: int, comment: str
    ) -> None:
        self._hub.post(partial(self._answer_promise, context_id, report, command, status, comment))

    def _answer_promise(
        self, context_id: int, report: EventReport, command: Command, status: int, comment: str
    ) -> None:
        if status == dimse.SUCCESS:
            self._promised.append((context_id, report.transaction_uid))
        self._answer(context_id, command, status, comment)
        if self._end_reason:
            self._leave_promises()

    def _ready(self, report: Report | None) -> None:
        """Take the report that was made, in the loop."""
        self._told = report
        if report is None:
            self._telling = None
        elif self._end_reason:
            self._settle_report(None)
        else:
            self.tell()

    def _send_report(self, report: Report) -> None:
        assert self._telling is not None
        context_id, _ = self._telling
        sop_class, transfer_syntax = self._contexts[context_id]
        self._told_as = 1
        command = dimse.event_report(self._told_as, sop_class, COMMITMENT_INSTANCE, report.event_type)
        self.outbox += dimse.p_data(context_id, command, self._peer_max_pdu)
        data = report.encoded(transfer_syntax)
        self.outbox += dimse.p_data(context_id, data, self._peer_max_pdu, is_command=False)

    def _settle_report(self, status: int | None) -> None:
        assert self._told is not None
        self._hub.settle(self._told, status)
        self._telling, self._told, self._told_as = None, None, 0

    def _leave_promises(self) -> None:
        """Leave what the peer has not been told here to whoever reports on an association of our own."""
        if self._told is not None:
            self._settle_report(None)
        while self._promised and self.sender is not None:
            self._hub.leave(self.sender.calling_ae, self._promised.pop(0)[1])

    def _stored(self, context_id: int, command: Command, status: int, comment: str) -> None:
        if status == dimse.SUCCESS:
            self.stored += 1
        else:
            self.refused += 1
            logger.warning("instance %s refused, 0x%04X: %s", command.sop_instance_uid[:64], status, comment)
        self._answer(context_id, command, status, comment)

    def _answer(self, context_id: int, command: Command, status: int, comment: str) -> None:
        self.under_way -= 1
        if not self._end_reason:
            self._respond(context_id, command, status, comment)
            self._release_once_answered()
        elif not self.under_way:
            self._hub.ended(self, self._end_reason)

    def _release_once_answered(self) -> None:
        if self._is_leaving and not self.under_way:
            self.outbox += struct.pack(">BxI4x", _RELEASE_RP, 4)
            self._end(RELEASED, State.CLOSING)

    def _end(self, reason: str, state: State) -> None:
        """Leave the association, once; later calls only say that the connection is gone, too."""
        was_open = self.state is State.OPEN
        self.state = state
        self._inbox, self._at = b"", 0
        if not was_open:
            return
        self._end_reason = reason
        self._leave_promises()
        if self._arrival is not None:
            self._hub.abandon(self._arrival)
            self._arrival = None
        if not self.under_way:  # else the last answer, when it comes, ends the association
            self._hub.ended(self, reason)


def _decode_request(pdu: bytes) -> A_ASSOCIATE:
    check_items(pdu)
    try:
        decoded = A_ASSOCIATE_RQ()
        decoded.decode(pdu)
        request = decoded.to_primitive()
    except Exception as error:  # noqa: BLE001 - pynetdicom raises whatever the malformed item happens to trip over
        raise ProtocolError(f"an A-ASSOCIATE-RQ that cannot be decoded ({type(error).__name__})") from None
    if not request.presentation_context_definition_list:
        raise ProtocolError("an A-ASSOCIATE-RQ without presentation contexts")
    return request
