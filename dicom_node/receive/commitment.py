"""Reports of storage commitment: a destination calls back to say what it commits itself to (PS3.4 J.3.3).

It does so on an association of its own, as the provider, and is answered once the report is committed to the database.
What follows from it is the deliverer's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode
from sqlalchemy import Engine

from dicom_node.db.engine import is_away
from dicom_node.db.proofs import note_report
from dicom_node.domain.proof import CommitmentReport
from dicom_node.errors import ProtocolError
from dicom_node.receive.dimse import SUCCESS, Command

PROCESSING_FAILURE, INVALID_ARGUMENT, RESOURCE_LIMITATION = 0x0110, 0x0115, 0x0213  # PS3.7 10.1.1.1.8
LONGEST_REPORT = 4 * 1024 * 1024  # some twenty thousand objects; we ask for a hundred at a time

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class EventReport:
    """One N-EVENT-REPORT while it arrives. `answer` is called once, with (command, status, comment)."""

    command: Command
    transfer_syntax: str
    calling_ae: str
    answer: Callable[[Command, int, str], None]
    data: bytearray = field(default_factory=bytearray)

    def append(self, fragment: memoryview) -> None:
        """Take more of the data set."""
        self.data += fragment
        if len(self.data) > LONGEST_REPORT:
            raise ProtocolError(f"a report of more than {LONGEST_REPORT} bytes")


def answer_report(report: EventReport, engine: Engine) -> None:
    """Note a report and answer it."""
    report.answer(report.command, *take_report(report, engine))


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
