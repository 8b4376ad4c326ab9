"""Reports of storage commitment on the association of the request (PS3.4 J.3.3), while the peer keeps that open.

The request is claimed in the database first. If this process dies, or the peer leaves, the deliverer reports on an
association of its own: at once when the peer has left, and after a lease when nobody can say so any more.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Thread

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.db import commitments as db
from dicom_node.db.engine import transaction, utc_now
from dicom_node.receive.dimse import SUCCESS
from dicom_node.spool import Spool
from dicom_node.store.promise import failures, report_on

AFTER_S = 0.5  # a peer that leaves does so at once; our own asks for commitment and waits for two seconds
HOLD_S = 60.0  # within which a peer that stays has fallen silent
LEASE_S = 900.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """What to tell a peer of one request."""

    request: db.Request
    event_type: int
    information: Dataset
    failed: int

    def encoded(self, transfer_syntax: str) -> bytes:
        """Encode the event information."""
        return encode(self.information, transfer_syntax == "1.2.840.10008.1.2", True) or b""


class Reporter:
    """Looks at the objects of requests in a thread of its own: there may be gigabytes of them."""

    def __init__(self, engine: Engine, spool: Spool) -> None:
        self._engine = engine
        self._spool = spool
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = Thread(target=self._run, name="report", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Do what is left, and end the thread."""
        self._tasks.put(None)
        self._thread.join(timeout_s)

    def prepare(self, calling_ae: str, transaction_uid: str, ready: Callable[[Report | None], None]) -> None:
        """Make the report on a request; `ready` is called with it, or with None when that is another's business now."""
        self._tasks.put(partial(self._prepare, calling_ae, transaction_uid, ready))

    def settle(self, report: Report, status: int | None) -> None:
        """Note what a peer answered, or None when it left instead."""
        self._tasks.put(partial(self._settle, report, status))

    def leave(self, calling_ae: str, transaction_uid: str) -> None:
        """Note that a peer left before it could be told of a request."""
        self._tasks.put(partial(self._leave, calling_ae, transaction_uid))

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except SQLAlchemyError as error:
                logger.warning("a report of storage commitment is left to the deliverer: %s", type(error).__name__)
            except Exception:  # one request must not cost the others theirs
                logger.exception("a report of storage commitment is left to the deliverer")

    def _prepare(self, calling_ae: str, transaction_uid: str, ready: Callable[[Report | None], None]) -> None:
        report = None
        try:
            with transaction(self._engine) as tx:
                request = db.claim_first(tx, calling_ae, transaction_uid, LEASE_S)
            if request is not None:
                failed = failures(request, self._engine, self._spool)
                report = Report(request, *report_on(request, failed), len(failed))
        finally:
            ready(report)

    def _settle(self, report: Report, status: int | None) -> None:
        request = report.request
        with transaction(self._engine) as tx:
            if status == SUCCESS:
                db.finish_request(tx, request, len(request.objects) - report.failed, report.failed)
            else:
                said = "left" if status is None else f"answered the report with 0x{status:04X}"
                db.put_off_request(tx, request, f"{request.calling_ae} {said}", utc_now())

    def _leave(self, calling_ae: str, transaction_uid: str) -> None:
        with transaction(self._engine) as tx:
            db.hurry_request(tx, calling_ae, transaction_uid)
