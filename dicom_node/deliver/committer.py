"""Report to peers who asked us to commit ourselves (PS3.4 J.3.3), on an association of our own.

Those that keep the association of their request open have had the report on that one: see receive/reporter.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

from pynetdicom import build_context, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from sqlalchemy import Engine

from dicom_node.catalog import tls_client
from dicom_node.db import commitments as db
from dicom_node.db.engine import transaction, utc_now
from dicom_node.deliver.association import associated
from dicom_node.domain.delivery import DimseDestination
from dicom_node.domain.job import retry_delay_s
from dicom_node.domain.uids import AETitle
from dicom_node.errors import DeliveryError
from dicom_node.settings import Deliver, Peer
from dicom_node.spool import Spool
from dicom_node.store.promise import failures, report_on

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
        failed = failures(request, self._engine, self._spool)
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

    def _report(self, request: db.Request, failed: Mapping[str, int]) -> None:
        there = self._where(request)
        event, information = report_on(request, failed)
        roles = [build_role(StorageCommitmentPushModel, scp_role=True)]
        with associated(there, [build_context(StorageCommitmentPushModel)], roles=roles) as conversation:
            answer = conversation.ask(
                lambda: conversation.assoc.send_n_event_report(
                    information, event, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
                )[0],
                "the report of storage commitment",
                TIMEOUT_S,
            )
        if answer.Status != 0x0000:
            raise DeliveryError(f"{there.name} answered the report with 0x{answer.Status:04X}", retry=True)

    def _where(self, request: db.Request) -> DimseDestination:
        name = request.calling_ae
        peer = self._peers.get(name)
        if peer is None or peer.port is None:
            raise DeliveryError(f"receive.peers has no host and port of {name}", retry=True)
        if peer.report_on == "same":
            raise DeliveryError(f"{name} takes reports on the association of its request alone, and left", retry=True)
        return DimseDestination(
            name=name,
            timeout_s=TIMEOUT_S,
            host=peer.host,
            port=peer.port,
            ae_title=AETitle(name),
            calling_ae=AETitle(request.called_ae),
            tls=tls_client(peer.tls) if peer.tls else None,
        )

    def _put_off(self, request: db.Request, error: str) -> None:
        log.warning("no report of storage commitment to %s: %s", request.calling_ae, error)
        first, longest = self._patience.retry_first_s, self._patience.retry_longest_s
        due_at = utc_now() + timedelta(seconds=retry_delay_s(request.attempt, first_s=first, longest_s=longest))
        with transaction(self._engine) as tx:
            if due_at > request.asked_at + timedelta(seconds=self._patience.give_up_after_s):
                db.give_up_request(tx, request, error)
            else:
                db.put_off_request(tx, request, error, due_at)
