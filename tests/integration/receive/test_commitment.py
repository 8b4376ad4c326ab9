"""A destination calls back to report on storage commitment; nobody else can, and nothing it says costs anybody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from sqlalchemy import text

from dicom_node.db import tables as t
from dicom_node.db.deliveries import claim_delivery, finish_delivered
from dicom_node.db.engine import transaction
from dicom_node.db.proofs import claim_proofs, note_asked
from dicom_node.domain.delivery import Sent
from dicom_node.domain.model import OutputKind
from dicom_node.domain.proof import Proof, ProofPolicy, Verify
from dicom_node.receive import commitment
from tests.integration.deliver.rows import Queue, add_results, deliveries
from tests.integration.receive.conftest import Running, Start
from tests.integration.receive.scu import Scu, p_data, pdv

PACS = {"pacs": {"host": "127.0.0.1", "port": 104, "ae_title": "PACS", "verify": "commitment"}}
PUSH, WELL_KNOWN = StorageCommitmentPushModel, StorageCommitmentPushModelInstance


def asked(node: Running, spool: Path) -> Proof:
    """An object that was sent, and whose commitment was asked for under 1.9."""
    queue = Queue()
    policy = ProofPolicy(Verify.COMMITMENT, after_s=0.001)
    with transaction(node.engine) as tx:
        job = add_results(tx, spool, queue, kinds=(OutputKind.SR,))
    [sr] = deliveries(node.engine, job)
    with transaction(node.engine) as tx:
        delivery = claim_delivery(tx, sr.id, "here", queue)
        assert delivery is not None
        finish_delivered(tx, delivery, Sent(0), queue, policy)
    with transaction(node.engine) as tx:
        [proof] = claim_proofs(tx, "pacs", Verify.COMMITMENT, 60)
        note_asked(tx, "1.9", [proof])
    return proof


def call(node: Running, *, calling: str = "PACS", role: bool = True, storage: bool = False) -> Association:
    ae = AE(calling)
    ae.add_requested_context(PUSH, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    if storage:
        ae.add_requested_context(CTImageStorage)
    roles = [build_role(PUSH, scp_role=True)] if role else []
    return ae.associate("127.0.0.1", node.port, ae_title="AINODE", ext_neg=roles)  # type: ignore[arg-type]


def said(transaction_uid: str, *committed: str) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = [Dataset() for _ in committed]
    for item, uid in zip(ds.ReferencedSOPSequence, committed, strict=True):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.34", uid
    return ds


def send(assoc: Association, report: Dataset) -> int:
    answer, _ = assoc.send_n_event_report(report, 1, PUSH, WELL_KNOWN)
    return int(answer.Status)


def test_report_is_answered_once_it_is_noted_and_the_association_goes_on(start: Start, tmp_path: Path) -> None:
    node = start(settings={"destinations": PACS})
    proof = asked(node, tmp_path)
    assoc = call(node)
    [context] = assoc.accepted_contexts
    assert (context.as_scp, context.as_scu) == (True, False)
    assert send(assoc, said("1.2.3", proof.sop_instance_uid)) == 0x0000, "nobody asked: it need not be repeated"
    assert node.rows(t.proof)[0].committed_at is None
    assert send(assoc, said("1.9", proof.sop_instance_uid)) == 0x0000
    assert node.rows(t.proof)[0].committed_at is not None
    assoc.release()
    assert not node.rows(t.association), "it stored nothing"


@pytest.mark.parametrize(
    ("who", "contexts"),
    [
        ({}, ["Storage Commitment Push Model SOP Class"]),
        ({"storage": True}, ["Storage Commitment Push Model SOP Class"]),  # a destination is no scanner
        ({"role": False}, ["Storage Commitment Push Model SOP Class"]),  # some PACS forget it
        ({"calling": "SCANNER"}, ["Storage Commitment Push Model SOP Class"]),  # a PACS may call by another name
        ({"calling": "SCANNER", "role": False, "storage": True}, ["CT Image Storage"]),  # a scanner that asks us
        ({"calling": "NOBODY"}, []),
    ],
)
def test_only_a_provider_whom_we_may_have_asked_can_report(
    start: Start, who: dict[str, Any], contexts: list[str]
) -> None:
    node = start(settings={"destinations": PACS})
    assoc = call(node, **who)
    assert [cx.abstract_syntax.name for cx in assoc.accepted_contexts if cx.abstract_syntax] == contexts
    assoc.abort()


def test_where_no_destination_is_asked_nobody_can_report(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    node = start(settings={"destinations": {"pacs": PACS["pacs"] | {"verify": "query"}}})
    assert not call(node).is_established  # pynetdicom calls it aborted when it sees the connection closed first
    assert "rejected: calling AE title PACS is not in receive.peers" in caplog.text
    assert not call(node, calling="SCANNER").accepted_contexts


def test_report_that_cannot_be_noted_is_not_answered_with_success(start: Start, tmp_path: Path) -> None:
    node = start(settings={"destinations": PACS})
    proof = asked(node, tmp_path)
    assoc = call(node)
    with node.engine.begin() as tx:
        tx.execute(text("ALTER TABLE proof RENAME TO elsewhere"))
    assert send(assoc, said("1.9", proof.sop_instance_uid)) == commitment.PROCESSING_FAILURE
    with node.engine.begin() as tx:
        tx.execute(text("ALTER TABLE elsewhere RENAME TO proof"))
    assert send(assoc, said("1.9", proof.sop_instance_uid)) == 0x0000
    assert node.rows(t.proof)[0].committed_at is not None
    assoc.release()


def test_garbage_is_refused_and_a_report_without_end_aborted(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    node = start(settings={"destinations": PACS})
    monkeypatch.setattr(commitment, "LONGEST_REPORT", 10_000)
    with Scu(node.port) as scu:
        scu.associate((PUSH, [ImplicitVRLittleEndian]), calling="PACS")
        number = scu.contexts[PUSH, ImplicitVRLittleEndian]
        command = Dataset()
        command.AffectedSOPClassUID, command.CommandField, command.MessageID = PUSH, 0x0100, 1
        command.CommandDataSetType, command.AffectedSOPInstanceUID, command.EventTypeID = 0, WELL_KNOWN, 1
        scu.send_command(command, number)
        scu.socket.sendall(p_data(pdv(number, 2, b"\x08\x00\x95\x11\xff\xff\xff\x7f1.9")))
        answer = scu.response()
        assert (answer.CommandField, answer.AffectedSOPInstanceUID) == (0x8100, WELL_KNOWN)
        scu.send_command(command, number)
        scu.socket.sendall(p_data(pdv(number, 0, bytes(10_001))))
        assert scu.pdu()[0] == 0x07
    assert not node.rows(t.proof)
