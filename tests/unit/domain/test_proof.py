"""What follows from the answers of a destination about an object that it took."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydicom.dataset import Dataset

from dicom_node.domain.proof import (
    Ask,
    CommitmentReport,
    GiveUp,
    Proof,
    ProofPolicy,
    ProofState,
    Proven,
    SendAgain,
    Verify,
    Wait,
    after_query,
    before_asking,
)

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
POLICY = ProofPolicy(Verify.BOTH, after_s=10, timeout_s=3600, resends=2)
TAKEN = Proof("d", 1, "1.2", "1.3", "1.4", "1.5", "p", "0", Verify.BOTH, since=NOW - timedelta(seconds=10))


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_at_first_everything_is_asked_that_is_wanted() -> None:
    assert before_asking(TAKEN, POLICY, NOW) == Ask(query=True, commitment=True)
    assert before_asking(replace(TAKEN, verify=Verify.QUERY), POLICY, NOW) == Ask(query=True, commitment=False)
    assert before_asking(replace(TAKEN, verify=Verify.COMMITMENT), POLICY, NOW) == Ask(query=False, commitment=True)


def test_what_was_seen_waits_for_its_commitment_alone() -> None:
    asked = replace(TAKEN, seen_at=NOW, asked=1, asked_at=ago(60))
    assert before_asking(asked, POLICY, NOW) == Wait(ago(60) + timedelta(hours=1))
    assert before_asking(replace(asked, committed_at=NOW), POLICY, NOW) == Proven()


def test_commitment_that_is_not_heard_of_is_asked_for_anew_and_in_the_end_given_up() -> None:
    late = replace(TAKEN, seen_at=NOW, asked=2, asked_at=ago(3600))
    assert before_asking(late, POLICY, NOW) == Ask(query=False, commitment=True)
    verdict = before_asking(replace(late, asked=3), POLICY, NOW)
    assert isinstance(verdict, GiveUp)
    assert (verdict.state, "asked for 3 times" in verdict.why) == (ProofState.NO_ANSWER, True)


@pytest.mark.parametrize("reason", [0x0110, 0x0112, 0x0213, 0x9999])
def test_refused_commitment_sends_again_as_often_as_allowed(reason: int) -> None:
    refused = replace(TAKEN, asked=1, asked_at=ago(5), failure_reason=reason)
    assert isinstance(before_asking(refused, POLICY, NOW), SendAgain)
    verdict = before_asking(replace(refused, resent=2), POLICY, NOW)
    assert isinstance(verdict, GiveUp)
    assert verdict.state is ProofState.FAILED
    assert f"0x{reason:04X}" in verdict.why


@pytest.mark.parametrize("reason", [0x0119, 0x0122])
def test_refused_for_good_is_not_sent_again(reason: int) -> None:
    verdict = before_asking(replace(TAKEN, asked=1, asked_at=ago(5), failure_reason=reason), POLICY, NOW)
    assert isinstance(verdict, GiveUp)
    assert verdict.state is ProofState.FAILED


def test_used_transaction_uid_says_nothing_of_the_object() -> None:
    used = replace(TAKEN, seen_at=NOW, asked=1, asked_at=ago(5), failure_reason=0x0131)
    assert before_asking(used, POLICY, NOW) == Ask(query=False, commitment=True)


def test_query_that_finds_nothing_is_repeated_with_growing_waits_until_the_object_counts_as_missing() -> None:
    waits, proof, now = [], replace(TAKEN, since=NOW), NOW + timedelta(seconds=10)
    while isinstance(verdict := after_query(proof, POLICY, now, is_found=False), Wait):
        waits.append((verdict.until - now).total_seconds())
        proof, now = replace(proof, looks=proof.looks + 1), verdict.until
    assert waits == [10, 20, 40, 80, 160, 320, 640, 1280, 1040]
    assert isinstance(verdict, SendAgain)
    assert now == NOW + timedelta(hours=1)


def test_object_that_was_found_is_proven_unless_commitment_is_wanted_too() -> None:
    assert isinstance(after_query(TAKEN, POLICY, NOW, is_found=True), Wait)
    assert after_query(replace(TAKEN, committed_at=NOW), POLICY, NOW, is_found=True) == Proven()
    assert after_query(replace(TAKEN, verify=Verify.QUERY), POLICY, NOW, is_found=True) == Proven()


def test_object_in_both_lists_of_a_report_is_not_committed_to() -> None:
    def item(uid: str, reason: int | None = None) -> Dataset:
        ds = Dataset()
        ds.ReferencedSOPInstanceUID = uid
        if reason is not None:
            ds.FailureReason = reason
        return ds

    ds = Dataset()
    ds.TransactionUID = "1.9"
    ds.ReferencedSOPSequence = [item("1.1"), item("1.2")]
    ds.FailedSOPSequence = [item("1.2", 0x0112), item("1.3")]
    assert CommitmentReport.of(ds) == CommitmentReport("1.9", frozenset({"1.1"}), {"1.2": 0x0112, "1.3": 0x0110})
