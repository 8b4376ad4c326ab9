"""A sender that says exactly what a test wants said, byte by byte: PS3.8 written out, without a toolkit in between."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom.dsutils import decode, encode
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA, A_RELEASE_RP, A_ABORT = 0x02, 0x03, 0x04, 0x06, 0x07


@dataclass(frozen=True, slots=True)
class Instance:
    """An object to send: its identity and the bytes of its data set."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes

    @classmethod
    def read(cls, path: Path) -> Instance:
        """Take a file's data set as it stands there."""
        content = path.read_bytes()
        meta = dcmread(BytesIO(content), stop_before_pixels=True).file_meta
        start = 144 + int.from_bytes(content[140:144], "little")
        return cls(
            str(meta.MediaStorageSOPClassUID),
            str(meta.MediaStorageSOPInstanceUID),
            str(meta.TransferSyntaxUID),
            content[start:],
        )


class Rejected(Exception):
    """The A-ASSOCIATE-RJ: result, source, reason."""


class Aborted(Exception):
    """The A-ABORT, or None where the connection ended without one."""


class Scu:
    """A connection to a receiver.

    Parameters
    ----------
    contexts : sequence of (str, sequence of str)
        Abstract syntax and transfer syntaxes of each presentation context; their ids are 1, 3, 5, …
    over : socket.socket, optional
        A connection that there is already, over TLS for example.
    """

    def __init__(self, port: int, *, timeout_s: float = 60.0, over: socket.socket | None = None) -> None:
        self.socket = over or socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.contexts: dict[tuple[str, str], int] = {}
        self.accepted = b""
        self._message_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def associate(
        self,
        *contexts: tuple[str, Sequence[str]],
        calling: str = "SCANNER",
        called: str = "AINODE",
        max_pdu: int = 16384,
        more: bytes = b"",
    ) -> Self:
        """Open an association; raises `Rejected` or `Aborted`. `more`: further items of the user information."""
        asked = (*contexts, (Verification, [ImplicitVRLittleEndian]))
        self.socket.sendall(request(*asked, calling=calling, called=called, max_pdu=max_pdu, more=more))
        kind, body = self.pdu()
        if kind == A_ASSOCIATE_RJ:
            raise Rejected(tuple(body[1:4]))
        if kind != A_ASSOCIATE_AC:
            raise Aborted(body)
        self.accepted = body
        for number, result, syntax in accepted(body):
            if result == 0:
                self.contexts[asked[(number - 1) // 2][0], syntax] = number
        return self

    def associate_for(self, *instances: Instance, **options: Any) -> Self:
        """Open an association with the contexts that some instances need."""
        needed = {(one.sop_class_uid, one.transfer_syntax_uid) for one in instances}
        return self.associate(*((sop_class, [syntax]) for sop_class, syntax in sorted(needed)), **options)

    def store(self, instance: Instance, *, piece: int = 100_000) -> int:
        """Send an instance; the status of the response."""
        self.begin_store(instance)
        self.send_data(instance, instance.data, piece=piece)
        return int(self.response().Status)

    def begin_store(self, instance: Instance, **changes: Any) -> None:
        """Send the command of a C-STORE request; `changes` are put over its elements, None leaves one out."""
        command = self.store_command(instance)
        for keyword, value in changes.items():
            if value is None:
                delattr(command, keyword)
            else:
                setattr(command, keyword, value)
        self.send_command(command, self.context_of(instance))

    def store_command(self, instance: Instance) -> Dataset:
        """The command of a C-STORE request, not yet sent."""
        command = Dataset()
        command.AffectedSOPClassUID = instance.sop_class_uid
        command.CommandField = 0x0001
        self._message_id += 1
        command.MessageID = self._message_id
        command.Priority = 0
        command.CommandDataSetType = 0x0000
        command.AffectedSOPInstanceUID = instance.sop_instance_uid
        return command

    def send_data(self, instance: Instance, data: bytes, *, piece: int = 100_000, ends: bool = True) -> None:
        """Send data set fragments; with `ends` the last of them says so."""
        context = self.context_of(instance)
        starts = range(0, len(data), piece)
        for start in starts:
            fragment = data[start : start + piece]
            self.socket.sendall(p_data(pdv(context, 2 if ends and start == starts[-1] else 0, fragment)))

    def send_command(self, command: Dataset, context: int) -> None:
        """Send a command set in one PDU."""
        self.socket.sendall(p_data(pdv(context, 3, command_set(command))))

    def echo(self) -> int:
        """C-ECHO; the status of the response."""
        self.ask_echo()
        return int(self.response().Status)

    def ask_echo(self) -> None:
        """Send the request of a C-ECHO, and wait for nothing."""
        command = Dataset()
        command.AffectedSOPClassUID = Verification
        command.CommandField = 0x0030
        self._message_id += 1
        command.MessageID = self._message_id
        command.CommandDataSetType = 0x0101
        self.send_command(command, self.contexts[Verification, ImplicitVRLittleEndian])

    def response(self) -> Dataset:
        """Wait for a response; its command set. Raises `Aborted`."""
        whole = b""
        while True:
            kind, body = self.pdu()
            if kind != P_DATA:
                raise Aborted(kind, body)
            length, _, control = struct.unpack_from(">IBB", body)
            whole += body[6 : 4 + length]
            if control & 2:
                return decode(BytesIO(whole), True, True)

    def release(self) -> None:
        """Release the association in order; the acceptor answers, then we close."""
        self.socket.sendall(struct.pack(">BxI4x", 5, 4))
        assert self.pdu() == (A_RELEASE_RP, bytes(4))
        self.socket.close()

    def pdu(self) -> tuple[int, bytes]:
        """Wait for a PDU: type and body. Raises `Aborted` when the connection ends instead."""
        head = self._exactly(6)
        return head[0], self._exactly(int.from_bytes(head[2:6], "big"))

    def context_of(self, instance: Instance) -> int:
        """The context that an instance goes by."""
        return self.contexts[instance.sop_class_uid, instance.transfer_syntax_uid]

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            try:
                more = self.socket.recv(length - len(data))
            except ConnectionError:
                more = b""
            if not more:
                raise Aborted(None)
            data += more
        return data


def store_all(port: int, instances: Sequence[Instance], **options: Any) -> list[int]:
    """Send instances over one association; their statuses."""
    with Scu(port) as scu:
        scu.associate_for(*instances, **options)
        statuses = [scu.store(one) for one in instances]
        scu.release()
    return statuses


def request(
    *contexts: tuple[str, Sequence[str]],
    calling: str = "SCANNER",
    called: str = "AINODE",
    max_pdu: int = 16384,
    more: bytes = b"",
) -> bytes:
    """Encode an A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, syntaxes) in enumerate(contexts):
        inner = item(0x30, UID(abstract).encode()) + b"".join(item(0x40, UID(s).encode()) for s in syntaxes)
        items += item(0x20, bytes((2 * number + 1, 0, 0, 0)) + inner)
    items += item(0x50, item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.3.4") + item(0x55, b"RAW") + more)
    fixed = struct.pack(">HH16s16s32x", 1, 0, called.encode().ljust(16), calling.encode().ljust(16))
    return pdu(0x01, fixed + items)


def accepted(body: bytes) -> list[tuple[int, int, str]]:
    """Context id, result and transfer syntax of every answer in an A-ASSOCIATE-AC."""
    found = []
    position = 68
    while position < len(body):
        kind, length = struct.unpack_from(">BxH", body, position)
        if kind == 0x21:
            inner = body[position + 4 : position + 4 + length]
            found.append((inner[0], inner[2], inner[8:].decode().strip("\0")))
        position += 4 + length
    return found


def user_information(body: bytes) -> dict[int, bytes]:
    """The items of the user information in an A-ASSOCIATE-AC, by their type."""
    start = body.rindex(b"\x50\0", 68, body.index(b"\x51\0\0\4", 68) - 1) + 4
    found, position = {}, start
    while position < len(body):
        kind, length = struct.unpack_from(">BxH", body, position)
        found[kind] = body[position + 4 : position + 4 + length]
        position += 4 + length
    return found


def item(kind: int, value: bytes) -> bytes:
    """One item of a PDU."""
    return struct.pack(">BxH", kind, len(value)) + value


def pdu(kind: int, body: bytes) -> bytes:
    """One PDU."""
    return struct.pack(">BxI", kind, len(body)) + body


def pdv(context: int, control: int, fragment: bytes) -> bytes:
    """One presentation data value; control: 1 command, 2 last."""
    return struct.pack(">IBB", len(fragment) + 2, context, control) + fragment


def p_data(*values: bytes) -> bytes:
    """One P-DATA-TF."""
    return pdu(P_DATA, b"".join(values))


def command_set(command: Dataset) -> bytes:
    """Encode a command set with its group length."""
    body = encode(command, True, True)
    assert body is not None
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body
