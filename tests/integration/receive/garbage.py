"""Bytes that no peer in its right mind sends, the same for the same seed: broken PDUs, broken data sets."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.integration.receive.objects import ct
from tests.integration.receive.scu import Instance, Scu, command_set, p_data, pdv, request

OPENING = request((CTImageStorage, [ExplicitVRLittleEndian]))


def stream(rng: random.Random) -> bytes:
    """An association with two stores, then broken in one of the ways that bytes break."""
    scu_command = Scu.store_command(_Numbered(), ct(rng.randrange(5)))
    values = pdv(1, 3, command_set(scu_command)), pdv(1, 2, ct(rng.randrange(5)).data)
    whole = OPENING + p_data(values[0]) + p_data(values[1]) + p_data(*values) + struct.pack(">BxI4x", 5, 4)
    start = rng.choice((0, len(OPENING), len(OPENING)))  # mostly beyond the request
    damaged = bytearray(whole)
    for _ in range(rng.randrange(1, 6)):
        position = rng.randrange(min(start, len(damaged) - 1), len(damaged))
        match rng.randrange(5):
            case 0:
                damaged[position] ^= 1 << rng.randrange(8)
            case 1:
                del damaged[position + 1 : position + rng.randrange(2, 40)]
            case 2:
                damaged[position:position] = rng.randbytes(rng.randrange(1, 40))
            case 3:
                damaged[position : position + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff"))
            case _:
                del damaged[position:]
                damaged += rng.randbytes(rng.randrange(1, 60))
    return bytes(damaged)


class _Numbered(Scu):
    def __init__(self) -> None:  # no connection: only its messages are wanted
        self._message_id = 0


def mutated(whole: Instance, rng: random.Random, uid: str = "") -> Instance:
    """An object with some bytes of its header changed, and now and then cut off.

    Parameters
    ----------
    uid : str
        What it is announced as; its own SOP Instance UID when empty.
    """
    data = bytearray(whole.data)
    head = min(len(data), 2000)
    for _ in range(rng.randrange(1, 5)):
        data[rng.randrange(head)] = rng.randrange(256)
    if rng.random() < 0.3:
        del data[rng.randrange(1, len(data)) :]
    return replace(whole, sop_instance_uid=uid or whole.sop_instance_uid, data=bytes(data))


def renamed(whole: Instance, number: int) -> Instance:
    """The same object under another SOP Instance UID of the same length, unless it is deflated."""
    uid = f"{whole.sop_instance_uid[:-6]}{number % 900_000 + 100_000}"
    data = whole.data.replace(whole.sop_instance_uid.encode(), uid.encode())
    return whole if data == whole.data else replace(whole, sop_instance_uid=uid, data=data)
