"""One association, as its acceptor: PDUs in, DIMSE messages understood, data sets streamed, responses out.

Written against PS3.8 section 9 and PS3.7 section 9, on pynetdicom's PDU classes. It touches no socket: the loop of scp.py
feeds it bytes and takes bytes from it, and so may a fuzzer.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from io import BytesIO
from uuid import uuid4

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RP
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.db.instances import Sender
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.uids import is_uid
from dicom_node.errors import CannotUnderstand, DataSetMismatch
from dicom_node.receive.admission import (
    MAX_PDU,
    Rejection,
    acceptance,
    implementation_of,
    negotiate,
    peer_max_pdu,
    refuse,
)
from dicom_node.receive.store import Arrival, Store
from dicom_node.settings import Settings

LARGEST_REQUEST = 1024 * 1024  # an A-ASSOCIATE-RQ with all 128 contexts has some 50 KiB
LARGEST_COMMAND = 64 * 1024
MOST_PENDING = 16  # C-STORE requests of one association that wait for their commit

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ, RESPONSE = 0x0001, 0x0030, 0x0FFF, 0x8000
NO_DATA_SET = 0x0101
UNRECOGNIZED_OPERATION = 0x0211

UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 1, 2, 6  # reasons of an A-P-ABORT (PS3.8 table 9-26)


class State(Enum):
    """States of the upper layer that an acceptor has (PS3.8 table 9-10)."""

    AWAITING_REQUEST = "Sta2"
    ESTABLISHED = "Sta6"
    RELEASING = "Sta8"  # asked to release, while instances still wait for their commit
    AWAITING_CLOSE = "Sta13"


class Association:
    """The acceptor's side of one connection.

    Parameters
    ----------
    address : str
        IP address of the peer.
    store : Store
        Where instances go.
    may_associate : callable
        Whether there is room for one more association.
    answered : callable
        Called from the committing thread with an arrival that was stored or refused; the loop has to call
        `respond` with it from its own thread.

    Attributes
    ----------
    out : bytearray
        Bytes for the peer, which the loop takes from here.
    closed : bool
        Nothing more is read; the loop closes the socket once `out` is empty.
    """

    def __init__(
        self,
        address: str,
        settings: Settings,
        store: Store,
        may_associate: Callable[[], bool],
        answered: Callable[[Arrival], None],
    ) -> None:
        self.address = address
        self.out = bytearray()
        self.closed = False
        self.state = State.AWAITING_REQUEST
        self.last_heard = time.monotonic()
        self._settings = settings
        self._store = store
        self._may_associate = may_associate
        self._answered = answered
        self._in = bytearray()
        self._contexts: dict[int, tuple[UID, UID]] = {}
        self._max_pdu = 0
        self._sender: Sender | None = None
        self._command = bytearray()
        self._message: Dataset | None = None  # a command whose data set is arriving
        self._message_context = 0
        self._arrival: Arrival | None = None
        self._requests: dict[int, tuple[int, Dataset]] = {}
        self._stored = self._refused = 0
        self._why = "released"
        self._ended = False

    @property
    def has_room(self) -> bool:
        """Whether more may be read: a peer that sends on without waiting for its answers is held back."""
        return len(self._requests) < MOST_PENDING and not self.closed

    def feed(self, data: bytes | memoryview) -> None:
        """Take bytes from the peer."""
        self.last_heard = time.monotonic()
        self._in += data
        start = 0
        while not self.closed and len(self._in) - start >= 6:
            kind, length = self._in[start], int.from_bytes(self._in[start + 2 : start + 6], "big")
            if not self._may_come(kind, length):
                break
            end = start + 6 + length
            if len(self._in) < end:
                break
            self._take(kind, bytes(self._in[start:end]))
            start = end
        del self._in[:start]

    def respond(self, arrival: Arrival) -> None:
        """Send the response to a C-STORE whose instance was stored or refused."""
        context, command = self._requests.pop(id(arrival))
        if arrival.problem is None:
            self._stored += 1
        else:
            self._refused += 1
        if self.state in (State.ESTABLISHED, State.RELEASING) and not self.closed:
            problem = arrival.problem
            self._send_response(context, command, problem.status if problem else 0x0000, str(problem or ""))
        if self.state is State.RELEASING and not self._requests:
            self._release()
        self._end_if_over()

    def lost(self, why: str) -> None:
        """Take note that the connection is gone, or is given up: what had not arrived whole is discarded."""
        if self._arrival is not None:
            self._arrival.refuse(CannotUnderstand(why))
            self._arrival = None
        self.closed = True
        self._why = why
        self._end_if_over()

    def abort(self, why: str, reason: int = 0) -> None:
        """Send an A-ABORT of the service provider and give the connection up."""
        pdu = A_ABORT_RQ()
        pdu.source, pdu.reason_diagnostic = 0x02, reason
        self.out += pdu.encode()
        self.lost(why)

    def overdue(self, now: float) -> str | None:
        """Say what the peer has been waited for too long, if so (PS3.8 9.1.5: ARTIM timer)."""
        quiet_s = now - self.last_heard
        receive = self._settings.receive
        if self.state is State.ESTABLISHED:
            if quiet_s > receive.idle_timeout_s and not self._requests:
                return f"silent for {receive.idle_timeout_s:g} s"
        elif self.state is not State.RELEASING and quiet_s > receive.artim_timeout_s:
            return f"no association request in {receive.artim_timeout_s:g} s" if self._sender is None else "not closed"
        return None

    def _end_if_over(self) -> None:
        over = self.closed or self.state is State.AWAITING_CLOSE
        if over and not self._requests and not self._ended and self._sender and (self._stored or self._refused):
            self._ended = True
            self._store.end(self._sender, self._why, self._stored, self._refused)

    def _may_come(self, kind: int, length: int) -> bool:
        """Hold a PDU to its type and size before it is read: a length is a promise of memory."""
        if kind not in (0x01, 0x04, 0x05, 0x07):
            self.abort(f"PDU type 0x{kind:02X}", UNEXPECTED_PDU if kind in (0x02, 0x03, 0x06) else UNRECOGNIZED_PDU)
        elif (kind == 0x01) != (self.state is State.AWAITING_REQUEST) and kind != 0x07:
            self.abort(f"PDU type 0x{kind:02X} is unexpected in state {self.state.value}", UNEXPECTED_PDU)
        elif length > (LARGEST_REQUEST if kind == 0x01 else MAX_PDU if kind == 0x04 else 4):
            self.abort(f"PDU of {length} bytes", INVALID_PARAMETER)
        return not self.closed

    def _take(self, kind: int, pdu: bytes) -> None:
        if kind == 0x04:
            self._take_data(memoryview(pdu)[6:])
        elif kind == 0x01:
            self._take_request(pdu)
        elif kind == 0x05:
            self._take_release()
        else:
            self.lost("aborted by the peer")

    def _take_request(self, pdu: bytes) -> None:
        try:
            request_pdu = A_ASSOCIATE_RQ()
            request_pdu.decode(pdu)
            request = request_pdu.to_primitive()
            rejection = self._rejection(request)
            contexts = [] if rejection else negotiate(request)
            answer = None if rejection else acceptance(request, contexts)
        except Exception:  # noqa: BLE001 - whatever bytes make the decoder raise, it is the peer's fault
            self.abort("the association request cannot be read", INVALID_PARAMETER)
            return
        if rejection or answer is None:
            assert rejection is not None
            self._reject(request, rejection)
            return
        self._sender = Sender(
            id=str(uuid4()),
            calling_ae=request.calling_ae_title,
            called_ae=request.called_ae_title,
            address=self.address,
            implementation=implementation_of(request),
            started_at=datetime.now(UTC),
        )
        self._max_pdu = peer_max_pdu(request)
        self._contexts = {
            cx.context_id: (cx.abstract_syntax, cx.transfer_syntax[0])
            for cx in contexts
            if cx.result == 0x00 and cx.context_id is not None and cx.abstract_syntax is not None
        }
        accept = A_ASSOCIATE_AC()
        accept.from_primitive(answer)
        self.out += accept.encode()
        self.state = State.ESTABLISHED

    def _rejection(self, request: A_ASSOCIATE) -> Rejection | None:
        if not self._may_associate():
            return Rejection(2, 3, 2, "as many associations as receive.max_associations allows are open")
        return refuse(request, self.address, self._settings)

    def _reject(self, request: A_ASSOCIATE, rejection: Rejection) -> None:
        pdu = A_ASSOCIATE_RJ()
        pdu.result, pdu.source = rejection.result, rejection.source
        pdu.reason_diagnostic = rejection.diagnostic
        self.out += pdu.encode()
        self.state = State.AWAITING_CLOSE
        detail = {
            "calling": request.calling_ae_title,
            "called": request.called_ae_title,
            "address": self.address,
            "reason": rejection.reason,
        }
        self._store.note(AuditEvent(Event.ASSOCIATION_REJECTED, detail=detail))

    def _take_release(self) -> None:
        if self._requests:
            self.state = State.RELEASING
        else:
            self._release()
            self._end_if_over()

    def _release(self) -> None:
        self.out += A_RELEASE_RP().encode()
        self.state = State.AWAITING_CLOSE

    def _take_data(self, body: memoryview) -> None:
        """Split a P-DATA-TF into presentation data values (PS3.8 9.3.5)."""
        if self.state is not State.ESTABLISHED:
            self.abort("data after the release", UNEXPECTED_PDU)
            return
        while body and not self.closed:
            length = int.from_bytes(body[:4], "big")
            if len(body) < 6 or not 2 <= length <= len(body) - 4:
                self.abort("a presentation data value does not fit its PDU", INVALID_PARAMETER)
                return
            self._take_value(body[4], body[5], body[6 : 4 + length])
            body = body[4 + length :]

    def _take_value(self, context: int, control: int, data: memoryview) -> None:
        is_command, is_last = control & 1, control & 2
        if context not in self._contexts:
            self.abort(f"presentation context {context} was not accepted", INVALID_PARAMETER)
        elif is_command:
            if self._message is not None or len(self._command) + len(data) > LARGEST_COMMAND:
                self.abort("a command where a data set was due, or one too long", INVALID_PARAMETER)
                return
            self._command += data
            if is_last:
                self._take_command(context)
        elif self._message is None or context != self._message_context:
            self.abort("a data set without its command", INVALID_PARAMETER)
        else:
            if self._arrival is not None:
                self._arrival.write(data)
            if is_last:
                self._finish_message()

    def _take_command(self, context: int) -> None:
        try:
            command = decode(BytesIO(bytes(self._command)), True, True)
            field, has_data = int(command.CommandField), int(command.CommandDataSetType) != NO_DATA_SET
            int(command.MessageID if field != C_CANCEL_RQ else 0)
        except Exception:  # noqa: BLE001 - whatever bytes make the decoder raise, it is the peer's fault
            self.abort("a command set cannot be read", INVALID_PARAMETER)
            return
        finally:
            self._command = bytearray()
        self._message, self._message_context = command, context
        if field == C_STORE_RQ and has_data:
            self._begin_store(context, command)
        if not has_data:
            self._finish_message()

    def _begin_store(self, context: int, command: Dataset) -> None:
        assert self._sender is not None
        abstract, transfer_syntax = self._contexts[context]
        sop_class, sop_instance = (str(command.get(k, "")) for k in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"))
        arrival = Arrival(self._sender, sop_class, sop_instance, transfer_syntax, self._answered)
        if not is_uid(sop_instance):
            arrival.sop_instance_uid = ""
            arrival.refuse(CannotUnderstand("Affected SOP Instance UID is missing or no UID"))
        elif sop_class != abstract:
            arrival.refuse(DataSetMismatch("the SOP Class is not that of the presentation context"))
        self._store.begin(arrival)
        self._arrival = arrival

    def _finish_message(self) -> None:
        command, context = self._message, self._message_context
        assert command is not None
        self._message = None
        arrival, self._arrival = self._arrival, None
        field = int(command.CommandField)
        if arrival is not None:
            self._requests[id(arrival)] = context, command
            self._store.finish(arrival)
        elif field == C_ECHO_RQ and self._contexts[context][0] == Verification:
            self._send_response(context, command, 0x0000)
        elif field == C_STORE_RQ:
            self._send_response(context, command, CannotUnderstand.status, "a C-STORE request without data set")
        elif field != C_CANCEL_RQ and not field & RESPONSE:
            self._send_response(context, command, UNRECOGNIZED_OPERATION, "this node stores and echoes")

    def _send_response(self, context: int, command: Dataset, status: int, comment: str = "") -> None:
        """Encode a response (PS3.7 9.3.1.2, 9.3.5.2); Error Comment is an LO of at most 64 characters."""
        answer = Dataset()
        if "AffectedSOPClassUID" in command:
            answer.AffectedSOPClassUID = command.AffectedSOPClassUID
        answer.CommandField = int(command.CommandField) | RESPONSE
        answer.MessageIDBeingRespondedTo = command.MessageID
        answer.CommandDataSetType = NO_DATA_SET
        answer.Status = status
        if comment:
            answer.ErrorComment = comment.encode("ascii", "replace").decode()[:64]
        if "AffectedSOPInstanceUID" in command:
            answer.AffectedSOPInstanceUID = command.AffectedSOPInstanceUID
        body = encode(answer, True, True) or b""
        body = struct.pack("<HHLL", 0x0000, 0x0000, 4, len(body)) + body
        room = (self._max_pdu or MAX_PDU) - 6
        pieces = [body[n : n + room] for n in range(0, len(body), max(room, 1))]
        for number, piece in enumerate(pieces, 1):
            control = 0x03 if number == len(pieces) else 0x01
            self.out += struct.pack(">BBLLBB", 0x04, 0, len(piece) + 6, len(piece) + 2, context, control) + piece
