"""Find out what a destination can take, and how it can prove what it took. Nothing is stored there."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import UTC, datetime
from uuid import uuid4

from pynetdicom import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.deliver import SENDERS, query
from dicom_node.deliver.association import associated
from dicom_node.deliver.commitment import ask_commitment
from dicom_node.domain.delivery import Destination, DimseDestination
from dicom_node.domain.profile import OFFERS, Profile
from dicom_node.domain.proof import CommitmentReport, Proof, Verify
from dicom_node.domain.uids import uuid_uid
from dicom_node.errors import DeliveryError

ECHOES = 5
NO_SUCH_SERVICE = "-"


def probe(destination: Destination) -> Profile:
    """Ask a destination about everything that we might send it.

    A PACS is offered each SOP class in each transfer syntax, is asked for an echo, for an object that nobody has, and
    to commit itself to it: it refuses that, and shows by it that it would answer. Nothing is stored.

    Raises
    ------
    DeliveryError
        When it does not answer at all.
    """
    now = datetime.now(UTC)
    if not isinstance(destination, DimseDestination):
        took_ms = tuple(SENDERS[destination.kind].echo(destination) * 1000 for _ in range(ECHOES))
        return Profile(destination.where, now, None, took_ms, NO_SUCH_SERVICE, "")
    accepted, echo_ms = _negotiate(destination)
    commitment, report = _try_commitment(destination)
    return Profile(destination.where, now, accepted, echo_ms, commitment, _try_query(destination), report)


def _negotiate(destination: DimseDestination) -> tuple[dict[str, tuple[str, ...]], tuple[float, ...]]:
    """Propose every pair in a context of its own, so that the peer answers for each."""
    pairs = [(offer.sop_class_uid, syntax) for offer in OFFERS for syntax in offer.syntaxes]
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in pairs]
    accepted: dict[str, list[str]] = defaultdict(list)
    echo_ms = []
    with associated(destination, [*contexts, build_context(Verification)]) as conversation:
        for cx in conversation.assoc.accepted_contexts:
            accepted[str(cx.abstract_syntax)].append(str(cx.transfer_syntax[0]))
        for _ in range(ECHOES if accepted.pop(str(Verification), None) else 0):
            started = time.monotonic()
            answer = conversation.ask(conversation.assoc.send_c_echo, "C-ECHO", destination.timeout_s)
            if answer.Status == 0x0000:
                echo_ms.append((time.monotonic() - started) * 1000)
    return {offer.sop_class_uid: tuple(accepted[offer.sop_class_uid]) for offer in OFFERS}, tuple(echo_ms)


def _try_query(destination: DimseDestination) -> str:
    try:
        query.find(destination, [_nobody_has_it()])
    except DeliveryError as error:
        return str(error)
    return ""


def _try_commitment(destination: DimseDestination) -> tuple[str, str]:
    try:
        came = ask_commitment(destination, uuid_uid(uuid4()), [_nobody_has_it()], _ignore)
    except DeliveryError as error:
        return str(error), ""
    if came:
        return "", "its report comes on the same association"
    return "", "its report comes later, on an association to our listener: it has to know our AE title, host and port"


def _ignore(report: CommitmentReport) -> None:
    """Take note of nothing: the report is on an object that does not exist."""


def _nobody_has_it() -> Proof:
    instance, series, study = (uuid_uid(uuid4()) for _ in range(3))
    sop_class = OFFERS[0].sop_class_uid
    return Proof("", 1, sop_class, instance, series, study, "", "", Verify.BOTH, datetime.now(UTC))
