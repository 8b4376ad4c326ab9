"""DIMSE command sets: a few flat elements of group 0000, always implicit little endian (PS3.7 6.3 and annex E).

Read and written by hand: it takes microseconds, and nothing a peer sends can make it take more.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicom_node.errors import ProtocolError

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ, N_EVENT_REPORT_RQ = 0x0001, 0x0030, 0x0FFF, 0x0100
N_ACTION_RQ, N_CREATE_RQ = 0x0130, 0x0140
RESPONSE = 0x8000
N_EVENT_REPORT_RSP = N_EVENT_REPORT_RQ | RESPONSE
NO_DATA_SET = 0x0101
SUCCESS, UNRECOGNIZED_OPERATION = 0x0000, 0x0211
LONGEST_COMMAND_SET = 16 * 1024

_SOP_CLASS, _FIELD, _MESSAGE_ID, _RESPONDED_TO = 0x0002, 0x0100, 0x0110, 0x0120
_DATA_SET_TYPE, _STATUS, _COMMENT, _SOP_INSTANCE = 0x0800, 0x0900, 0x0902, 0x1000
_REQUESTED_CLASS, _REQUESTED_INSTANCE = 0x0003, 0x1001
_EVENT_TYPE = 0x1002
_ELEMENT = struct.Struct("<HHI")
_P_DATA = struct.Struct(">BxIIBB")
_LONGEST_COMMENT = 64  # VR LO


@dataclass(frozen=True, slots=True)
class Command:
    """What a command set says. UIDs, the affected or the requested ones, are as sent: nothing has looked at them yet.

    `message_id` is that of the request, in a response, too. `status` is of responses.
    """

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    status: int | None = None


def read_command(data: bytes) -> Command:
    """Read a command set.

    Raises
    ------
    ProtocolError
        If it is no list of group 0000 elements, or lacks its field or message id.
    """
    elements = _elements(data)
    field = _number(elements, _FIELD)
    if field is None:
        raise ProtocolError("a command set without Command Field")
    message_id = _number(elements, _RESPONDED_TO if field & RESPONSE or field == C_CANCEL_RQ else _MESSAGE_ID)
    if message_id is None:
        raise ProtocolError(f"command 0x{field:04X} without Message ID")
    return Command(
        field=field,
        message_id=message_id,
        has_data_set=_number(elements, _DATA_SET_TYPE) != NO_DATA_SET,
        sop_class_uid=_text(elements.get(_SOP_CLASS) or elements.get(_REQUESTED_CLASS, b"")),
        sop_instance_uid=_text(elements.get(_SOP_INSTANCE) or elements.get(_REQUESTED_INSTANCE, b"")),
        status=_number(elements, _STATUS),
    )


def response(command: Command, status: int, comment: str = "") -> bytes:
    """Encode the response to a request.

    Parameters
    ----------
    status : int
        DIMSE status.
    comment : str
        Error Comment (0000,0902); cut to 64 characters.
    """
    elements = [
        (_SOP_CLASS, _padded(command.sop_class_uid, "\0")),
        (_FIELD, struct.pack("<H", command.field | RESPONSE)),
        (_RESPONDED_TO, struct.pack("<H", command.message_id)),
        (_DATA_SET_TYPE, struct.pack("<H", NO_DATA_SET)),
        (_STATUS, struct.pack("<H", status)),
        (_COMMENT, _padded(comment[:_LONGEST_COMMENT], " ")),
        (_SOP_INSTANCE, _padded(command.sop_instance_uid, "\0")),
    ]
    return _command_set(elements)


def event_report(message_id: int, sop_class_uid: str, sop_instance_uid: str, event_type: int) -> bytes:
    """Encode the command of an N-EVENT-REPORT request, whose data set follows (PS3.7 10.3.1)."""
    return _command_set(
        [
            (_SOP_CLASS, _padded(sop_class_uid, "\0")),
            (_FIELD, struct.pack("<H", N_EVENT_REPORT_RQ)),
            (_MESSAGE_ID, struct.pack("<H", message_id)),
            (_DATA_SET_TYPE, struct.pack("<H", 1)),
            (_SOP_INSTANCE, _padded(sop_instance_uid, "\0")),
            (_EVENT_TYPE, struct.pack("<H", event_type)),
        ]
    )


def p_data(context_id: int, message: bytes, longest: int, *, is_command: bool = True) -> bytes:
    """Pack a command set or a data set into P-DATA-TF PDUs (PS3.8 9.3.5 and annex E).

    Parameters
    ----------
    longest : int
        The peer's maximum length; 0 for none.
    """
    size = max(longest - 6, 58) if longest else len(message)
    packed = bytearray()
    for start in range(0, len(message), size):
        piece = message[start : start + size]
        control = is_command | (2 if start + size >= len(message) else 0)
        packed += _P_DATA.pack(4, len(piece) + 6, len(piece) + 2, context_id, control) + piece
    return bytes(packed)


def _command_set(elements: list[tuple[int, bytes]]) -> bytes:
    body = b"".join(_ELEMENT.pack(0, number, len(value)) + value for number, value in elements if value)
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


def _elements(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            raise ProtocolError("a command set that ends inside an element")
        group, number, length = _ELEMENT.unpack_from(data, position)
        value = data[position + 8 : position + 8 + length]
        if group != 0 or len(value) != length:
            raise ProtocolError("a command set that is none: wrong group or length")
        found[number] = value
        position += 8 + length
    return found


def _number(elements: dict[int, bytes], number: int) -> int | None:
    value = elements.get(number, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")


def _padded(text: str, pad: str) -> bytes:
    value = text.encode("ascii", "replace")
    return value + pad.encode() if len(value) % 2 else value
