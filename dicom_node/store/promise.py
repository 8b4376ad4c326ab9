"""What we commit ourselves to when a peer asks (PS3.4 annex J), and how that is reported.

Every object is looked at just before: its row is committed, its file is there, and holds what was acknowledged, byte
for byte.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pydicom.dataset import Dataset
from sqlalchemy import Engine

from dicom_node.db.commitments import Request, find_kept
from dicom_node.db.engine import reading
from dicom_node.spool import Spool

PROCESSING_FAILURE, NO_SUCH_INSTANCE, CLASS_INSTANCE_CONFLICT = 0x0110, 0x0112, 0x0119  # PS3.3 C.14.1.1
ALL_COMMITTED, SOME_FAILED = 1, 2  # Event Type ID

log = logging.getLogger(__name__)


def failures(request: Request, engine: Engine, spool: Spool) -> dict[str, int]:
    """Look at every object of a request.

    Returns
    -------
    dict of str to int
        Those that we cannot commit ourselves to, by SOP Instance UID, each with its Failure Reason.
    """
    with reading(engine) as tx:
        kept = find_kept(tx, [uid for _, uid in request.objects])
    found = {}
    for sop_class, uid in request.objects:
        one = kept.get(uid)
        if one is None:
            found[uid] = NO_SUCH_INSTANCE
        elif one.sop_class_uid != sop_class:
            found[uid] = CLASS_INSTANCE_CONFLICT
        elif not spool.has_digest(one.path, one.digest):
            log.error("the file of instance %s is missing or damaged: no commitment", uid)
            found[uid] = PROCESSING_FAILURE
    return found


def report_on(request: Request, failed: Mapping[str, int]) -> tuple[int, Dataset]:
    """Make the report on a request (PS3.4 table J.3-2): Event Type ID and event information."""
    ds = Dataset()
    ds.TransactionUID = request.transaction_uid
    committed = [_item(*one) for one in request.objects if one[1] not in failed]
    if committed:
        ds.ReferencedSOPSequence = committed
    if failed:
        ds.FailedSOPSequence = [_item(*one) for one in request.objects if one[1] in failed]
        for item in ds.FailedSOPSequence:
            item.FailureReason = failed[item.ReferencedSOPInstanceUID]
    return SOME_FAILED if failed else ALL_COMMITTED, ds


def _item(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item
