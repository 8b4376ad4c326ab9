"""Ask a PACS to commit itself to objects (Storage Commitment Push Model, PS3.4 annex J), as its user.

The report may come on the same association, for which we wait a moment, or on a new one to our own listener, any time
later: that is receive/commitment.py's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from threading import Event

from pydicom.dataset import Dataset
from pynetdicom import build_context, evt
from pynetdicom.dimse_messages import N_EVENT_REPORT_RSP
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]  # made at import

from dicom_node.deliver.association import associated
from dicom_node.domain.delivery import DimseDestination
from dicom_node.domain.proof import CommitmentReport, Proof
from dicom_node.errors import DeliveryError

SERVICE = str(StorageCommitmentPushModel)
INSTANCE = "1.2.840.10008.1.20.1.1"  # the well-known SOP instance (PS3.4 J.3.5)
LINGER_S = 2.0  # a peer that reports on the same association does it at once, or not at all
_REQUEST = 1  # Action Type ID (PS3.4 J.3.2)
PERMANENT = {0x0118, 0x0122, 0x0123, 0x0211}  # no such class, not supported, no such action, unrecognised

logger = logging.getLogger(__name__)


def ask_commitment(
    destination: DimseDestination,
    transaction_uid: str,
    proofs: Sequence[Proof],
    on_report: Callable[[CommitmentReport], object],
) -> bool:
    """Ask a destination to commit itself to what it took.

    Parameters
    ----------
    transaction_uid : str
        By which the report can be told; never used before.
    proofs : sequence of Proof
        Which objects; at most `db.proofs.MOST_AT_ONCE`.
    on_report : callable
        Called in another thread with a report that comes on the same association, before it is answered.

    Returns
    -------
    bool
        Whether the report came already.

    Raises
    ------
    DeliveryError
        When the peer cannot be asked, or refuses; `retry` says whether it may be asked later.
    """
    answered = Event()

    def take(event: evt.Event) -> tuple[int, None]:
        on_report(CommitmentReport.of(event.event_information))
        return 0x0000, None

    def sent(event: evt.Event) -> None:
        if isinstance(event.message, N_EVENT_REPORT_RSP):
            answered.set()

    handlers: list[evt.EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, take), (evt.EVT_DIMSE_SENT, sent)]
    with associated(destination, [build_context(StorageCommitmentPushModel)], handlers) as conversation:
        answer = conversation.ask(
            lambda: conversation.assoc.send_n_action(
                _information(transaction_uid, proofs), _REQUEST, StorageCommitmentPushModel, INSTANCE
            )[0],
            "the request for storage commitment",
            destination.timeout_s,
        )
        _check(destination, answer)
        return answered.wait(LINGER_S)


def _information(transaction_uid: str, proofs: Sequence[Proof]) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = []
    for proof in proofs:
        item = Dataset()
        item.ReferencedSOPClassUID = proof.sop_class_uid
        item.ReferencedSOPInstanceUID = proof.sop_instance_uid
        ds.ReferencedSOPSequence.append(item)
    return ds


def _check(destination: DimseDestination, answer: Dataset) -> None:
    status: int = answer.Status
    if status == 0x0000:
        return
    comment = f": {answer.ErrorComment}" if answer.get("ErrorComment") else ""
    raise DeliveryError(
        f"{destination.name} answered the request for storage commitment with 0x{status:04X}{comment}",
        retry=status not in PERMANENT,
        status=status,
    )
