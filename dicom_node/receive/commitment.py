"""Requests that are no objects to be stored: answered once what they say is committed to the database.

A destination calls back to say what it commits itself to (N-EVENT-REPORT, PS3.4 J.3.3), on an association of its own,
as the provider. A peer asks us to commit ourselves (N-ACTION, PS3.4 J.3.2), or announces what is available (N-CREATE,
PS3.4 annex R). What follows from a commitment, ours or theirs, is the deliverer's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from uuid import uuid4

from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    InstanceAvailabilityNotification,
    StorageCommitmentPushModel,
)
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.db.engine import is_away
from dicom_node.db.proofs import note_report
from dicom_node.domain.proof import CommitmentReport
from dicom_node.domain.uids import uuid_uid
from dicom_node.errors import ProtocolError
from dicom_node.receive.dimse import N_ACTION_RQ, N_CREATE_RQ, N_EVENT_REPORT_RQ, SUCCESS, Command
from dicom_node.receive.request import take_announcement, take_request

PROCESSING_FAILURE, INVALID_ARGUMENT, RESOURCE_LIMITATION = 0x0110, 0x0115, 0x0213  # PS3.7 10.1.1.1.8
LONGEST_REPORT = 4 * 1024 * 1024  # some twenty thousand objects; we ask for a hundred at a time

AVAILABILITY = str(InstanceAvailabilityNotification)
# The requests that are taken, by command and SOP class
REQUESTS = {
    (N_EVENT_REPORT_RQ, str(StorageCommitmentPushModel)),
    (N_ACTION_RQ, str(StorageCommitmentPushModel)),
    (N_CREATE_RQ, AVAILABILITY),
}

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class EventReport:
    """One such request while it arrives. `answer` is called once, with (command, status, comment).

    `hold_s` says how long a request for commitment is to be left to this association, and `transaction_uid` which one
    it was, once it is noted.
    """

    command: Command
    transfer_syntax: str
    calling_ae: str
    answer: Callable[[Command, int, str], None]
    data: bytearray = field(default_factory=bytearray)
    called_ae: str = ""
    hold_s: float = 0.0
    transaction_uid: str = ""

    def append(self, fragment: memoryview) -> None:
        """Take more of the data set."""
        self.data += fragment
        if len(self.data) > LONGEST_REPORT:
            raise ProtocolError(f"a report of more than {LONGEST_REPORT} bytes")


def answer_report(report: EventReport, engine: Engine) -> None:
    """Note a report or another request, and answer it."""
    if report.command.field == N_EVENT_REPORT_RQ:
        report.answer(report.command, *take_report(report, engine))
        return
    command = report.command
    if not command.sop_instance_uid:  # of N-CREATE: then the provider names it (PS3.7 10.1.5.1.4)
        command = replace(command, sop_instance_uid=uuid_uid(uuid4()))
    report.answer(command, *take_other(report, engine))


def take_other(report: EventReport, engine: Engine) -> tuple[int, str]:
    """Note a request for storage commitment, or what is available.

    Returns
    -------
    (int, str)
        The status, and a comment.
    """
    try:
        ds = _read(report)
        with engine.begin() as tx:
            if report.command.field == N_ACTION_RQ:
                report.transaction_uid = take_request(tx, ds, report.calling_ae, report.called_ae, report.hold_s)
            else:
                take_announcement(tx, ds, report.calling_ae)
    except SQLAlchemyError as error:
        if is_away(error):
            return RESOURCE_LIMITATION, "the database does not answer"
        logger.exception("a request of %s cannot be noted", report.calling_ae)
        return PROCESSING_FAILURE, "processing failure"
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever the malformed element happens to trip over
        logger.warning("a request of %s cannot be read (%s)", report.calling_ae, type(error).__name__)
        return INVALID_ARGUMENT, "the request cannot be read"
    return SUCCESS, ""


def take_report(report: EventReport, engine: Engine) -> tuple[int, str]:
    """Note a report.

    Returns
    -------
    (int, str)
        The status, and a comment. A report on something that nobody asked for (any more) is answered with success:
        hearing of an error its sender would only repeat it.
    """
    try:
        said = CommitmentReport.of(_read(report))
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever the malformed element happens to trip over
        logger.warning("a report of %s cannot be read (%s)", report.calling_ae, type(error).__name__)
        return INVALID_ARGUMENT, "the event information cannot be read"
    try:
        with engine.begin() as tx:
            told = note_report(tx, said)
    except Exception as error:
        if is_away(error):
            return RESOURCE_LIMITATION, "the database does not answer"
        logger.exception("a report of %s cannot be noted", report.calling_ae)
        return PROCESSING_FAILURE, "processing failure"
    if told is None:
        logger.warning("%s reports on a transaction that is not ours: %s", report.calling_ae, said.transaction_uid[:64])
    else:
        counts = len(said.committed), len(said.failed)
        logger.info("%s commits itself to %d objects, and not to %d", report.calling_ae, *counts)
    return SUCCESS, ""


def _read(report: EventReport) -> Dataset:
    is_implicit = report.transfer_syntax == "1.2.840.10008.1.2"
    return decode(BytesIO(report.data), is_implicit, True)
