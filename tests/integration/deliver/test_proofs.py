"""What the rows of a proof go through, on both databases: tokens, leases, reports that come early, late or twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, update

from dicom_node.db import tables as t
from dicom_node.db.deliveries import claim_delivery, finish_delivered, finish_failed, resend, send_missing
from dicom_node.db.engine import open_engine, utc_now
from dicom_node.db.proofs import (
    claim_proofs,
    close_unwanted,
    finish_proven,
    note_asked,
    note_report,
    note_seen,
    note_unasked,
    note_waiting,
)
from dicom_node.db.retention import due_results
from dicom_node.domain.delivery import Delivery, Sent
from dicom_node.domain.model import OutputKind
from dicom_node.domain.proof import CommitmentReport, Proof, ProofPolicy, Verify
from dicom_node.errors import DeliveryError
from tests.integration.deliver.rows import Queue, add_results, deliveries, events, proofs

POLICY = ProofPolicy(Verify.BOTH, after_s=0.001, timeout_s=3600, resends=3)


class Node:
    """A database with one delivered object, and what a test does to it."""

    def __init__(self, url: str, spool: Path) -> None:
        self.engine = open_engine(url)
        t.metadata.create_all(self.engine)
        self.queue = Queue()
        with self.engine.begin() as tx:
            self.job = add_results(tx, spool, self.queue, kinds=(OutputKind.SR,))
            tx.execute(update(t.job).values(state="completed"))
        self.delivery_id = deliveries(self.engine, self.job)[0].id
        self.deliver()

    def do(self, step: Any, *arguments: Any) -> Any:
        with self.engine.begin() as tx:
            return step(tx, *arguments)

    def take_up(self) -> Delivery:
        found: Delivery = self.do(claim_delivery, self.delivery_id, "here", self.queue)
        return found

    def deliver(self, policy: ProofPolicy = POLICY) -> None:
        assert self.do(finish_delivered, self.take_up(), Sent(0), self.queue, policy)

    def claim(self) -> list[Proof]:
        found: list[Proof] = self.do(claim_proofs, "pacs", Verify.BOTH, 900.0)
        return found

    def due_again(self) -> None:
        self.do(lambda tx: tx.execute(update(t.proof).values(due_at=utc_now())))

    @property
    def row(self) -> Row[Any]:
        [row] = proofs(self.engine, self.job)
        return row

    @property
    def is_needed(self) -> bool:
        with self.engine.begin() as tx:
            return due_results(tx, None, 1) == []


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Node]:
    made = Node(database_url, tmp_path)
    yield made
    made.engine.dispose()


def report(proof: Proof, transaction_uid: str = "1.9", reason: int | None = None) -> CommitmentReport:
    uid = proof.sop_instance_uid
    if reason is None:
        return CommitmentReport(transaction_uid, frozenset({uid}), {})
    return CommitmentReport(transaction_uid, frozenset(), {uid: reason})


def test_proof_is_claimed_by_one_and_needed_until_it_is_proven(node: Node) -> None:
    [proof] = node.claim()
    assert node.claim() == []
    node.do(note_asked, "1.9", [proof])
    assert node.do(note_report, report(proof)) == 1
    [again] = node.claim()  # due at once, whoever waits
    assert again.committed_at is not None
    assert node.is_needed
    assert node.do(lambda tx: finish_proven(tx, again, seen=True))
    assert (node.row.state, node.row.due_at) == ("proven", None)
    assert not node.is_needed
    assert events(node.engine, node.delivery_id)[-2:] == ["storage commitment asked", "delivery proven"]


def test_report_that_came_while_we_looked_is_not_waited_for(node: Node) -> None:
    [proof] = node.claim()
    node.do(note_asked, "1.9", [proof])
    node.do(note_report, report(proof))
    node.do(note_seen, proof, utc_now() + timedelta(hours=1))
    [again] = node.claim()
    assert again.committed_at is not None
    assert again.seen_at is not None
    node.do(note_waiting, again, utc_now() + timedelta(hours=1))
    assert len(node.claim()) == 1


def test_report_of_an_older_request_or_a_stranger_changes_nothing(node: Node) -> None:
    [proof] = node.claim()
    node.do(note_asked, "1.8", [proof])
    node.do(note_asked, "1.9", [proof])
    assert node.do(note_report, report(proof, "1.8")) is None
    assert node.do(note_report, report(proof, "1.7", 0x0112)) is None
    assert node.do(note_report, CommitmentReport("1.9", frozenset({"1.2.3"}), {"1.2.4": 0x0112})) == 0
    assert (node.row.committed_at, node.row.failure_reason) == (None, None)
    assert node.do(note_report, report(proof)) == 1
    assert node.do(note_report, report(proof, reason=0x0112)) == 0, "what was committed to once is not taken back"


def test_request_that_was_not_answered_does_not_count_but_its_report_does(node: Node) -> None:
    [proof] = node.claim()
    node.do(note_asked, "1.9", [proof])
    node.do(note_unasked, "1.9")
    assert (node.row.asked, node.row.asked_at) == (0, None)
    assert node.do(note_report, report(proof)) == 1


def test_missing_object_is_enqueued_once_and_its_old_proof_is_worth_nothing(node: Node) -> None:
    [proof] = node.claim()
    node.do(note_asked, "1.9", [proof])
    node.queue.take()
    assert node.do(lambda tx: send_missing(tx, proof, "it is not there", node.queue))
    assert not node.do(lambda tx: send_missing(tx, proof, "it is not there", node.queue))
    assert node.queue.take() == [(node.delivery_id, 2)]
    assert node.is_needed
    node.due_again()
    assert node.claim() == [], "nobody is asked about what is under way"

    node.deliver()
    assert node.do(note_report, report(proof)) is None
    assert not node.do(lambda tx: finish_proven(tx, proof, seen=True))
    [fresh] = node.claim()
    assert (fresh.attempt, fresh.resent, fresh.asked, fresh.committed_at) == (2, 1, 0, None)


def test_missing_object_that_is_refused_when_it_is_sent_again_is_not_proven(node: Node) -> None:
    [proof] = node.claim()
    node.do(lambda tx: send_missing(tx, proof, "it is not there", node.queue))
    refused = DeliveryError("pacs answered 0xC000", retry=False, status=0xC000)
    assert node.do(finish_failed, node.take_up(), refused, node.queue)
    assert (node.row.state, node.row.said) == ("failed", "pacs answered 0xC000")


def test_operator_s_resend_starts_the_proof_anew(node: Node) -> None:
    [proof] = node.claim()
    node.do(lambda tx: send_missing(tx, proof, "it is not there", node.queue))
    node.deliver()
    node.do(resend, [node.delivery_id], node.queue)
    assert proofs(node.engine, node.job) == []
    node.deliver()
    assert node.row.resent == 0


def test_proof_that_the_settings_no_longer_want_ends(node: Node) -> None:
    assert node.do(close_unwanted, ["pacs"]) == 0
    assert node.do(close_unwanted, ["other"]) == 1
    assert node.row.state == "no answer"
