"""What peers ask of us beside storing: to commit ourselves to objects (PS3.4 annex J), and to hear what is available.

Each is answered once it is committed to the database.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from sqlalchemy import Connection

from dicom_node.db.announcements import note_announcement
from dicom_node.db.commitments import note_request
from dicom_node.domain.uids import is_uid

MOST_OBJECTS = 20_000


def take_request(tx: Connection, ds: Dataset, calling_ae: str, called_ae: str, hold_s: float) -> str:
    """Write down what a peer asks us to commit ourselves to (PS3.4 J.3.2); its Transaction UID.

    Raises
    ------
    ValueError
        When it is no such request.
    """
    transaction = str(ds.TransactionUID)
    objects = [(str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID)) for one in ds.ReferencedSOPSequence]
    _check([transaction, *(uid for pair in objects for uid in pair)], len(objects))
    note_request(tx, calling_ae, called_ae, transaction, objects, hold_s)
    return transaction


def take_announcement(tx: Connection, ds: Dataset, calling_ae: str) -> None:
    """Write down which instances are available (PS3.4 annex R); those that are not, do not count.

    Raises
    ------
    ValueError
        When it announces nothing.
    """
    series: dict[str, list[str]] = {}
    for one in ds.ReferencedSeriesSequence:
        named = [i for i in one.ReferencedSOPSequence if str(i.get("InstanceAvailability", "")) != "UNAVAILABLE"]
        series.setdefault(str(one.SeriesInstanceUID), []).extend(str(i.ReferencedSOPInstanceUID) for i in named)
    uids = [uid for instances in series.values() for uid in instances]
    _check([*series, *uids], len(uids))
    note_announcement(tx, calling_ae, series)


def _check(uids: Sequence[str], objects: int) -> None:
    if not 0 < objects <= MOST_OBJECTS or not all(map(is_uid, uids)):
        raise ValueError("no objects, too many, or no usable UIDs")
