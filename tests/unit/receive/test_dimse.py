"""Command sets, against pynetdicom's own encoder and decoder."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import P_DATA_TF

from dicom_node.errors import ProtocolError
from dicom_node.receive.dimse import C_STORE_RQ, Command, p_data, read_command, response


def command_set(**elements: object) -> bytes:
    command = Dataset()
    for keyword, value in elements.items():
        setattr(command, keyword, value)
    encoded = encode(command, True, True)
    assert encoded is not None
    return bytes(encoded)


STORE = {
    "AffectedSOPClassUID": CTImageStorage,
    "CommandField": 0x0001,
    "MessageID": 7,
    "Priority": 0,
    "CommandDataSetType": 0x0000,
    "AffectedSOPInstanceUID": "1.2.3",
}


def test_a_request_reads_as_pynetdicom_writes_it() -> None:
    assert read_command(command_set(**STORE)) == Command(C_STORE_RQ, 7, True, CTImageStorage, "1.2.3")
    assert not read_command(command_set(**STORE | {"CommandDataSetType": 0x0101})).has_data_set


@pytest.mark.parametrize("status", [0x0000, 0x0111, 0xA700, 0xC000])
def test_a_response_reads_in_pynetdicom_as_it_was_meant(status: int) -> None:
    request = Command(C_STORE_RQ, 7, True, CTImageStorage, "1.2.3")
    body = response(request, status, "less than 512 MiB free in the spool, " * 3 if status else "")
    answer = decode(BytesIO(body), True, True)
    assert answer.CommandGroupLength == len(body) - 12
    assert (answer.CommandField, answer.MessageIDBeingRespondedTo, answer.Status) == (0x8001, 7, status)
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (CTImageStorage, "1.2.3")
    assert answer.CommandDataSetType == 0x0101
    assert len(answer.get("ErrorComment", "")) == (64 if status else 0)


@given(st.integers(1, 400), st.one_of(st.just(0), st.integers(1, 500)))
def test_p_data_holds_the_whole_command_set_in_pdus_that_the_peer_takes(size: int, longest: int) -> None:
    sent = p_data(5, bytes(n % 251 for n in range(size)), longest)
    whole, last = b"", False
    while sent:
        length = int.from_bytes(sent[2:6], "big")
        assert not longest or length <= max(longest, 64)
        pdu = P_DATA_TF()
        pdu.decode(sent[: 6 + length])
        for item in pdu.presentation_data_value_items:
            assert item.presentation_context_id == 5
            assert not last
            value = item.presentation_data_value or b""
            last = bool(value[0] & 2)
            whole += value[1:]
        sent = sent[6 + length :]
    assert last
    assert whole == bytes(n % 251 for n in range(size))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_or_the_peer_s_fault(data: bytes) -> None:
    with suppress(ProtocolError):
        read_command(data)


@pytest.mark.parametrize("missing", ["CommandField", "MessageID"])
def test_a_command_without_what_an_answer_needs_is_refused(missing: str) -> None:
    with pytest.raises(ProtocolError):
        read_command(command_set(**{k: v for k, v in STORE.items() if k != missing}))
