"""Ask one destination for the proof of what it took, and draw the conclusion; a thread for each destination.

Nothing here sends an object: what is missing is enqueued like any delivery.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine

from dicom_node.db import proofs as db
from dicom_node.db.deliveries import DeliveryQueue, send_missing
from dicom_node.db.engine import commit, transaction, utc_now
from dicom_node.deliver.commitment import ask_commitment
from dicom_node.domain.delivery import Destination, DimseDestination
from dicom_node.domain.job import retry_delay_s
from dicom_node.domain.proof import (
    LONGEST_WAIT_S,
    Ask,
    CommitmentReport,
    GiveUp,
    Proof,
    ProofState,
    Proven,
    SendAgain,
    Verdict,
    Wait,
    after_query,
    before_asking,
)
from dicom_node.domain.uids import uuid_uid
from dicom_node.errors import DeliveryError

LEASE_S = 900.0  # longer than any conversation about a hundred objects

Find = Callable[[Any, Sequence[Proof]], set[str]]
log = logging.getLogger(__name__)


class Prover:
    """Has one destination prove what it took.

    Parameters
    ----------
    find : callable
        Asks it which objects it has.
    give_up_after_s : float
        How long a destination that does not answer is asked.
    """

    def __init__(
        self, engine: Engine, enqueuer: DeliveryQueue, destination: Destination, find: Find, give_up_after_s: float
    ) -> None:
        self._engine = engine
        self._enqueuer = enqueuer
        self._destination = destination
        self._policy = destination.proof
        self._find = find
        self._give_up_after_s = give_up_after_s

    def look(self) -> None:
        """Put the questions whose time has come. The database may be away: then the next look does it."""
        with transaction(self._engine) as tx:
            proofs = db.claim_proofs(tx, self._destination.name, self._policy.verify, LEASE_S)
        now = utc_now()
        verdicts = {proof: before_asking(proof, self._policy, now) for proof in proofs}
        asked = {proof: verdict for proof, verdict in verdicts.items() if isinstance(verdict, Ask)}
        self._conclude({proof: verdict for proof, verdict in verdicts.items() if proof not in asked})
        still_open = self._query([proof for proof, ask in asked.items() if ask.query])
        unseen = {proof for proof, ask in asked.items() if ask.query} - still_open
        self._ask_commitment([proof for proof, ask in asked.items() if ask.commitment and proof not in unseen])

    def _query(self, proofs: list[Proof]) -> set[Proof]:
        """Look for objects; those whose proof goes on, since the destination answers and has not lost them."""
        if not proofs:
            return set()
        try:
            found = self._find(self._destination, proofs)
        except DeliveryError as error:
            self._unanswered(proofs, error)
            return set()
        now = utc_now()
        verdicts = {
            is_found: {
                proof: after_query(proof, self._policy, now, is_found=is_found)
                for proof in proofs
                if (proof.sop_instance_uid in found) is is_found
            }
            for is_found in (True, False)
        }
        for is_found, some in verdicts.items():
            self._conclude(some, is_found=is_found)
        return {proof for some in verdicts.values() for proof, verdict in some.items() if isinstance(verdict, Wait)}

    def _ask_commitment(self, proofs: list[Proof]) -> None:
        if not proofs:
            return
        assert isinstance(self._destination, DimseDestination)  # settings refuse to ask any other for commitment
        transaction_uid = uuid_uid(uuid4())
        with transaction(self._engine) as tx:  # first: the report may be faster than the answer
            db.note_asked(tx, transaction_uid, proofs)
        try:
            ask_commitment(self._destination, transaction_uid, proofs, self._take_report)
        except DeliveryError as error:
            with transaction(self._engine) as tx:
                db.note_unasked(tx, transaction_uid)
            self._unanswered(proofs, error)
            return
        until = utc_now() + timedelta(seconds=self._policy.timeout_s)
        self._conclude({proof: Wait(until) for proof in proofs if not proof.lacks_sight})

    def _take_report(self, report: CommitmentReport) -> None:
        with transaction(self._engine) as tx:
            db.note_report(tx, report)

    def _unanswered(self, proofs: list[Proof], error: DeliveryError) -> None:
        log.warning("no proof of delivery from %s: %s", self._destination.name, error)
        now = utc_now()
        for proof in proofs:
            delay_s = retry_delay_s(proof.looks + 1, first_s=self._policy.after_s, longest_s=LONGEST_WAIT_S)
            until = now + timedelta(seconds=delay_s)
            if not error.retry or until > proof.since + timedelta(seconds=self._give_up_after_s):
                self._conclude({proof: GiveUp(ProofState.NO_ANSWER, str(error))})
            else:
                self._write(partial(db.note_unproven, proof=proof, until=until, why=str(error)))

    def _conclude(self, verdicts: Mapping[Proof, Verdict], *, is_found: bool = False) -> None:
        for proof, verdict in verdicts.items():
            match verdict:
                case Proven():
                    self._write(partial(db.finish_proven, proof=proof, seen=is_found))
                case Wait(until):
                    self._write(partial(self._wait, proof=proof, until=until, is_found=is_found))
                case SendAgain(why):
                    log.warning("%s has lost %s: %s", self._destination.name, proof.sop_instance_uid, why)
                    self._write(partial(send_missing, proof=proof, why=why, enqueuer=self._enqueuer))
                case GiveUp(state, why):
                    self._write(partial(db.finish_unproven, proof=proof, state=state, why=why))

    def _wait(self, tx: Connection, proof: Proof, until: datetime, *, is_found: bool) -> bool:
        if is_found:
            return db.note_seen(tx, proof, until)
        if proof.lacks_sight:
            return db.note_unproven(tx, proof, until, "a query does not find it yet")
        return db.note_waiting(tx, proof, until)

    def _write(self, step: Callable[[Connection], bool]) -> None:
        if not commit(self._engine, step):
            log.info("proof of a delivery to %s came too late: it is sent anew", self._destination.name)
