"""Report to peers who asked us to commit ourselves (PS3.4 J.3.3), on an association of our own.

What we commit ourselves to was looked at just before: its row is committed, its file is there, and holds what was
acknowledged, byte for byte.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

from pydicom.dataset import Dataset
from pynetdicom import build_context, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from sqlalchemy import Engine

from dicom_node.db import commitments as db
from dicom_node.db.engine import transaction, utc_now
from dicom_node.deliver.association import associated
from dicom_node.domain.delivery import DimseDestination
from dicom_node.domain.job import retry_delay_s
from dicom_node.domain.uids import AETitle
from dicom_node.errors import DeliveryError
from dicom_node.settings import Deliver, Peer
from dicom_node.spool import Spool

PROCESSING_FAILURE, NO_SUCH_INSTANCE, CLASS_INSTANCE_CONFLICT = 0x0110, 0x0112, 0x0119  # PS3.3 C.14.1.1
ALL_COMMITTED, SOME_FAILED = 1, 2  # Event Type ID
LEASE_S = 900.0
TIMEOUT_S = 30.0

log = logging.getLogger(__name__)


class Committer:
    """Answers requests for storage commitment; looks at every object first."""

    def __init__(self, engine: Engine, spool: Spool, peers: Mapping[str, Peer], patience: Deliver) -> None:
        self._engine = engine
        self._spool = spool
        self._peers = peers
        self._patience = patience

    def look(self) -> int:
        """Report on every request whose time has come; how many there were."""
        with transaction(self._engine) as tx:
            requests = db.claim_requests(tx, LEASE_S)
        for request in requests:
            self._answer(request)
        return len(requests)

    def _answer(self, request: db.Request) -> None:
        failed = self.failures(request)
        try:
            self._report(request, failed)
        except DeliveryError as error:
            self._put_off(request, str(error))
            return
        log.info(
            "%s was told of %d objects, %d of them not committed", request.calling_ae, len(request.objects), len(failed)
        )
        with transaction(self._engine) as tx:
            db.finish_request(tx, request, len(request.objects) - len(failed), len(failed))

    def failures(self, request: db.Request) -> dict[str, int]:
        """Look at every object of a request: those that we cannot commit ourselves to, each with the reason."""
        with transaction(self._engine) as tx:
            kept = db.find_kept(tx, [uid for _, uid in request.objects])
        found = {}
        for sop_class, uid in request.objects:
            one = kept.get(uid)
            if one is None:
                found[uid] = NO_SUCH_INSTANCE
            elif one.sop_class_uid != sop_class:
                found[uid] = CLASS_INSTANCE_CONFLICT
            elif not self._spool.has_digest(one.path, one.digest):
                log.error("the file of instance %s is missing or damaged: no commitment", uid)
                found[uid] = PROCESSING_FAILURE
        return found

    def _report(self, request: db.Request, failed: Mapping[str, int]) -> None:
        peer = self._peers.get(request.calling_ae)
        if peer is None or peer.port is None:
            raise DeliveryError(f"receive.peers has no host and port of {request.calling_ae}", retry=True)
        names = AETitle(request.calling_ae), AETitle(request.called_ae)
        there = DimseDestination(
            name=peer.ae_title,
            timeout_s=TIMEOUT_S,
            host=peer.host,
            port=peer.port,
            ae_title=names[0],
            calling_ae=names[1],
        )
        roles = [build_role(StorageCommitmentPushModel, scp_role=True)]
        with associated(there, [build_context(StorageCommitmentPushModel)], roles=roles) as conversation:
            event = SOME_FAILED if failed else ALL_COMMITTED
            answer = conversation.ask(
                lambda: conversation.assoc.send_n_event_report(
                    _information(request, failed), event, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
                )[0],
                "the report of storage commitment",
                TIMEOUT_S,
            )
        if answer.Status != 0x0000:
            raise DeliveryError(f"{peer.ae_title} answered the report with 0x{answer.Status:04X}", retry=True)

    def _put_off(self, request: db.Request, error: str) -> None:
        log.warning("no report of storage commitment to %s: %s", request.calling_ae, error)
        first, longest = self._patience.retry_first_s, self._patience.retry_longest_s
        due_at = utc_now() + timedelta(seconds=retry_delay_s(request.attempt, first_s=first, longest_s=longest))
        with transaction(self._engine) as tx:
            if due_at > request.asked_at + timedelta(seconds=self._patience.give_up_after_s):
                db.give_up_request(tx, request, error)
            else:
                db.put_off_request(tx, request, error, due_at)


def _information(request: db.Request, failed: Mapping[str, int]) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = request.transaction_uid
    committed = [_item(*one) for one in request.objects if one[1] not in failed]
    if committed:
        ds.ReferencedSOPSequence = committed
    if failed:
        ds.FailedSOPSequence = [_item(*one) for one in request.objects if one[1] in failed]
        for item in ds.FailedSOPSequence:
            item.FailureReason = failed[item.ReferencedSOPInstanceUID]
    return ds


def _item(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item
