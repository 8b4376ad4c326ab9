"""Proof of delivery: a status of 0x0000 says that a peer took an object; whether it has it is asked afterwards.

Two questions can be put to a destination: whether it commits itself to the object (storage commitment, PS3.4 annex J)
and whether a query finds it (C-FIND or QIDO-RS). `decide` says what follows from the answers so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from dicom_node.domain.job import retry_delay_s

MOST_ASKED = 3  # storage commitment that nobody answers is asked for so often
LONGEST_WAIT_S = 3600.0

# Failure Reason (0008,1197) of a storage commitment (PS3.3 C.14.1.1).
DUPLICATE_TRANSACTION_UID = 0x0131
FINAL = {0x0119: "class and instance conflict", 0x0122: "the SOP class is not supported"}
LOST = {0x0110: "processing failure", 0x0112: "no such object instance", 0x0213: "resource limitation"}


class Verify(StrEnum):
    """What has to be proven before a delivery is believed."""

    NONE = "none"
    QUERY = "query"
    COMMITMENT = "commitment"
    BOTH = "both"

    @property
    def by_query(self) -> bool:
        """Whether the object has to be found."""
        return self in (Verify.QUERY, Verify.BOTH)

    @property
    def by_commitment(self) -> bool:
        """Whether the destination has to commit itself."""
        return self in (Verify.COMMITMENT, Verify.BOTH)


class ProofState(StrEnum):
    """Where the proof of one delivery stands. A delivery of which no proof is wanted has none."""

    DUE = "due"
    PROVEN = "proven"
    FAILED = "failed"  # the destination says that it does not have it, however often it is sent
    NO_ANSWER = "no answer"  # the destination does not say


@dataclass(frozen=True, slots=True)
class ProofPolicy:
    """What is to be proven at a destination, and with how much patience.

    Attributes
    ----------
    after_s : float
        When the first question is put after the object was taken; many archives file it only then.
    timeout_s : float
        An object that no query has found for so long is missing; a commitment not heard of for so long is asked for
        anew.
    resends : int
        How often a missing object is sent again by itself.
    """

    verify: Verify = Verify.NONE
    after_s: float = 10.0
    timeout_s: float = 3600.0
    resends: int = 3


NO_PROOF = ProofPolicy()


@dataclass(frozen=True, slots=True)
class Proof:
    """The proof of one delivery so far. `attempt` is that of the delivery, and the token: an older one proves nothing.

    `since` is when the destination took the object, `asked_at` when its commitment was last asked for, `looks` counts
    the questions since, `asked` those for commitment, and `resent` how often it was sent again because it was missing.
    """

    delivery_id: str
    attempt: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    path: str
    sha256: str
    verify: Verify
    since: datetime
    looks: int = 0
    asked: int = 0
    asked_at: datetime | None = None
    failure_reason: int | None = None
    committed_at: datetime | None = None
    seen_at: datetime | None = None
    resent: int = 0

    @property
    def lacks_sight(self) -> bool:
        """Whether it still has to be found."""
        return self.verify.by_query and self.seen_at is None

    @property
    def lacks_commitment(self) -> bool:
        """Whether it still has to be committed to."""
        return self.verify.by_commitment and self.committed_at is None


class EventInformation(Protocol):
    """The data set of an N-EVENT-REPORT; a pydicom.Dataset is one."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """Give the value of an attribute."""


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """What a destination says of a request for storage commitment: SOP Instance UIDs, and Failure Reasons by them."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int]

    @classmethod
    def of(cls, information: EventInformation) -> CommitmentReport:
        """Read the Event Information (PS3.4 table J.3-3). An object in both lists counts as not committed to."""
        failed = {
            str(item.get("ReferencedSOPInstanceUID", "")): int(item.get("FailureReason") or 0x0110)
            for item in information.get("FailedSOPSequence") or ()
        }
        named = {str(i.get("ReferencedSOPInstanceUID", "")) for i in information.get("ReferencedSOPSequence") or ()}
        return cls(str(information.get("TransactionUID", "")), frozenset(named - failed.keys()), failed)


@dataclass(frozen=True, slots=True)
class Proven:
    """Everything that was wanted is there."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Put these questions now."""

    query: bool
    commitment: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`."""

    until: datetime


@dataclass(frozen=True, slots=True)
class SendAgain:
    """The destination has lost it."""

    why: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No proof is to be had."""

    state: ProofState
    why: str


Verdict = Proven | Ask | Wait | SendAgain | GiveUp


def before_asking(proof: Proof, policy: ProofPolicy, now: datetime) -> Verdict:
    """Decide what to ask of a destination about one delivery whose time has come.

    Returns
    -------
    Proven, Ask, Wait, SendAgain or GiveUp
        A commitment that was refused leads to another sending, or to giving up; one that nobody answered, to being
        asked again.
    """
    if proof.lacks_commitment and proof.failure_reason not in (None, DUPLICATE_TRANSACTION_UID):
        assert proof.failure_reason is not None
        return _refused(proof, policy, proof.failure_reason)
    query, commitment = proof.lacks_sight, proof.lacks_commitment
    if commitment and proof.asked_at is not None and proof.failure_reason is None:
        commitment = now >= proof.asked_at + timedelta(seconds=policy.timeout_s)
        if commitment and proof.asked >= MOST_ASKED:
            why = f"storage commitment was asked for {proof.asked} times, and no report came"
            return GiveUp(ProofState.NO_ANSWER, why)
    if query or commitment:
        return Ask(query, commitment)
    if proof.lacks_commitment:
        assert proof.asked_at is not None
        return Wait(proof.asked_at + timedelta(seconds=policy.timeout_s))
    return Proven()


def after_query(proof: Proof, policy: ProofPolicy, now: datetime, *, is_found: bool) -> Verdict:
    """Decide what follows from a query that was answered; `proof` is as it was before."""
    if is_found:
        return _await_commitment(proof, policy, now) if proof.lacks_commitment else Proven()
    missing_at = proof.since + timedelta(seconds=policy.timeout_s)
    if now >= missing_at:
        return _again(proof, policy, f"a query does not find it, {policy.timeout_s:g} s after it was taken")
    longest_s = min(LONGEST_WAIT_S, policy.timeout_s)
    next_look = now + timedelta(seconds=retry_delay_s(proof.looks + 1, first_s=policy.after_s, longest_s=longest_s))
    return Wait(min(next_look, missing_at))


def reason_text(reason: int) -> str:
    """Say a Failure Reason (0008,1197) in words."""
    words = (LOST | FINAL).get(reason, "no reason that the standard knows")
    return f"0x{reason:04X} ({words})"


def _refused(proof: Proof, policy: ProofPolicy, reason: int) -> Verdict:
    why = f"the destination does not commit itself to it: {reason_text(reason)}"
    if reason in FINAL:
        return GiveUp(ProofState.FAILED, why)
    return _again(proof, policy, why)


def _again(proof: Proof, policy: ProofPolicy, why: str) -> Verdict:
    if proof.resent < policy.resends:
        return SendAgain(why)
    return GiveUp(ProofState.FAILED, f"{why}; it was sent again {proof.resent} times")


def _await_commitment(proof: Proof, policy: ProofPolicy, now: datetime) -> Wait:
    return Wait((proof.asked_at or now) + timedelta(seconds=policy.timeout_s))
