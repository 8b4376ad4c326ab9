"""The delivering process: one queue for each destination, so that a dead one holds up nobody else.

One attempt is one call of `deliver`: claim, send, write down what happened. It may die at any instruction; the engine
then gives the delivery to another process, which sends the same bytes under the same UID once more.
"""

from __future__ import annotations

import itertools
import logging
import threading
from datetime import timedelta

import sqlalchemy

from dicom_node.catalog import Catalog
from dicom_node.db.deliveries import (
    claim_delivery,
    finish_delivered,
    finish_failed,
    finish_retry,
    waiting_elsewhere,
)
from dicom_node.db.engine import commit, reading, utc_now
from dicom_node.db.profiles import read_profile
from dicom_node.db.proofs import close_unwanted
from dicom_node.deliver import SENDERS
from dicom_node.deliver.committer import Committer
from dicom_node.deliver.proof import Prover
from dicom_node.domain.delivery import Delivery, Destination, Sent
from dicom_node.domain.job import retry_delay_s
from dicom_node.domain.proof import Verify
from dicom_node.engine import Enqueuer, Executor, every, queue_of
from dicom_node.errors import DeliveryError, NodeError
from dicom_node.settings import Settings
from dicom_node.spool import Spool

log = logging.getLogger(__name__)


class Deliverer:
    """Sends stored result objects until told to stop."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        engine: sqlalchemy.Engine,
        enqueuer: Enqueuer,
        spool: Spool,
        slot: int,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._engine = engine
        self._enqueuer = enqueuer
        self._spool = spool
        self._slot = slot

    def run(self, stop: threading.Event) -> None:
        """Serve the queue of every destination until `stop`; what is being sent then may finish."""
        self._report_orphans()
        self._start_provers(stop)
        self._start_committer(stop)
        each = self._settings.deliver.per_destination
        Executor(
            self._settings,
            self._engine,
            role="deliver",
            slot=self._slot,
            queues={queue_of(name): each for name in self._catalog.destinations},
            on_delivery=self.deliver,
        ).run(stop)

    def deliver(self, delivery_id: str, executor_id: str) -> None:
        """Make one attempt of one delivery and write down how it ended."""
        delivery = self._claim(delivery_id, executor_id)
        if delivery is None:
            return
        outcome = self._attempt(delivery)
        if not commit(self._engine, lambda tx: self._finish(tx, delivery, outcome)):
            log.warning("delivery %s: attempt %d was taken over or canceled", delivery.id, delivery.attempt)

    def _claim(self, delivery_id: str, executor_id: str) -> Delivery | None:
        called = itertools.count()

        def claim(tx: sqlalchemy.Connection) -> Delivery | None:
            again = next(called) > 0  # the first claim may have been committed although its answer was lost
            return claim_delivery(tx, delivery_id, executor_id, self._enqueuer, again=again)

        return commit(self._engine, claim)

    def _attempt(self, delivery: Delivery) -> Sent | NodeError:
        destination = self._catalog.destinations.get(delivery.destination)
        if destination is None:
            return DeliveryError(f"the settings name no destination {delivery.destination}", retry=True)
        try:
            self._refuse_known(destination, delivery)
            sent = SENDERS[destination.kind].send(destination, self._spool.path(delivery.path), delivery)
        except NodeError as error:
            log.warning("delivery %s to %s: %s", delivery.id, delivery.destination, error)
            return error
        except Exception as error:  # nobody foresaw it: it may not stop the other deliveries, and may pass
            log.exception("delivery %s to %s failed unexpectedly", delivery.id, delivery.destination)
            return DeliveryError(f"unexpected {type(error).__name__} while sending; the log has more", retry=True)
        log.info(
            "delivered %s %s to %s: 0x%04X",
            delivery.kind,
            delivery.sop_instance_uid,
            delivery.destination,
            sent.status,
        )
        return sent

    def _refuse_known(self, destination: Destination, delivery: Delivery) -> None:
        """Send nothing that the destination said it would not take, so that what goes instead goes at once."""
        profile = commit(self._engine, lambda tx: read_profile(tx, destination.name))
        if profile is not None and profile.refuses(destination.where, delivery.sop_class_uid):
            raise DeliveryError(
                f"{destination.name} does not take {delivery.kind.upper()} ({delivery.sop_class_uid}), as it said on "
                f"{profile.probed_at:%Y-%m-%d}; if that has changed, `dicom-node probe {destination.name}`",
                retry=False,
                is_refused=True,
            )

    def _finish(self, tx: sqlalchemy.Connection, delivery: Delivery, outcome: Sent | NodeError) -> bool:
        if isinstance(outcome, Sent):
            policy = self._catalog.destinations[delivery.destination].proof
            return finish_delivered(tx, delivery, outcome, self._enqueuer, policy)
        if not outcome.retry:
            return finish_failed(tx, delivery, outcome, self._enqueuer)
        patience = self._settings.deliver
        delay_s = retry_delay_s(delivery.tries, first_s=patience.retry_first_s, longest_s=patience.retry_longest_s)
        if utc_now() + timedelta(seconds=delay_s) > delivery.asked_at + timedelta(seconds=patience.give_up_after_s):
            return finish_failed(tx, delivery, _gave_up(delivery, outcome), self._enqueuer)
        return finish_retry(tx, delivery, outcome, delay_s, self._enqueuer)

    def _start_provers(self, stop: threading.Event) -> None:
        """Have each destination prove what it took, in a thread of its own: a silent one holds up nobody else."""
        wanted = {d.name: d for d in self._catalog.destinations.values() if d.proof.verify is not Verify.NONE}
        commit(self._engine, lambda tx: close_unwanted(tx, list(wanted)))
        policy = self._settings.deliver
        for destination in wanted.values():
            find = SENDERS[destination.kind].find
            prover = Prover(self._engine, self._enqueuer, destination, find, policy.give_up_after_s)
            every(prover.look, policy.verify_sweep_s, stop)

    def _start_committer(self, stop: threading.Event) -> None:
        peers = {peer.ae_title: peer for peer in self._settings.receive.peers if peer.commitment}
        if peers:
            committer = Committer(self._engine, self._spool, peers, self._settings.deliver)
            every(committer.look, self._settings.deliver.verify_sweep_s, stop)

    def _report_orphans(self) -> None:
        with reading(self._engine) as tx:
            elsewhere = waiting_elsewhere(tx, list(self._catalog.destinations))
        for name, count in elsewhere.items():
            log.warning("%d deliveries wait for the destination %s, which the settings do not name", count, name)


def _gave_up(delivery: Delivery, last: NodeError) -> DeliveryError:
    return DeliveryError(
        f"gave up after {delivery.tries} tries since {delivery.asked_at:%Y-%m-%d %H:%M} UTC; the last: {last}",
        retry=False,
        status=getattr(last, "status", None),
    )
