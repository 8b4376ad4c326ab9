"""What statuses mean, in both directions: asked of the functions that decide it."""

from __future__ import annotations

from collections.abc import Iterable

from dicom_node.conformance.markdown import Row
from dicom_node.deliver import commitment, query
from dicom_node.deliver.status import judge
from dicom_node.domain import proof
from dicom_node.errors import DeliveryError, StoreError
from dicom_node.receive.dimse import SUCCESS

_AGAIN, _FAILED = "tried again, with growing waits", "failed, until `dicom-node resend`"


def store_provider() -> list[Row]:
    """List what we answer to C-STORE (PS3.4 B.2.3): success, and every error that carries a status."""
    errors = sorted(StoreError.__subclasses__(), key=lambda error: error.status)
    rows = [(_hex(SUCCESS), "no", "Stored: file synced and row committed, now or before with the same bytes.")]
    rows += [(_hex(error.status), "yes" if error.retry else "no", _first_line(error)) for error in errors]
    unforeseen = (_hex(StoreError.status), "yes", "What nobody foresaw; the log has it.")
    return [("Status", "Sending again may help", "When"), rows[0], unforeseen, *rows[1:]]


def store_user() -> list[Row]:
    """Ask of every status that there can be what it means for a delivery."""
    meanings: dict[str, list[int]] = {}
    for status in range(0x10000):
        meanings.setdefault(_judged(status), []).append(status)
    rows = [(meaning, _ranges(found)) for meaning, found in meanings.items() if meaning != _FAILED]
    lost = "no connection, rejection, abort, time-out"
    return [("What follows", "Status"), *rows, (_AGAIN, lost), (_FAILED, "any other; no accepted presentation context")]


def _judged(status: int) -> str:
    try:
        judge("", status)
    except DeliveryError as error:
        if error.retry:
            return _AGAIN
        return "failed; another kind of object goes in its place, where there is one" if error.is_refused else _FAILED
    return "delivered"


def commitment_requests() -> list[Row]:
    """List what the answer to N-ACTION means."""
    return [
        ("Status", "What follows"),
        (_hex(SUCCESS), "the report is waited for"),
        (_ranges(commitment.PERMANENT), "no proof is to be had from this destination"),
        ("any other, or none", "asked again, with growing waits"),
    ]


def commitment_failures() -> list[Row]:
    """List what a Failure Reason (0008,1197) means for an object (PS3.3 C.14.1.1)."""
    return [
        ("Failure Reason", "Meaning", "What follows"),
        *((_hex(reason), words, "missing there: sent again") for reason, words in proof.LOST.items()),
        *(
            (_hex(reason), words, "no proof is to be had; the delivery is marked")
            for reason, words in proof.FINAL.items()
        ),
        (_hex(proof.DUPLICATE_TRANSACTION_UID), "duplicate transaction UID", "asked again under another one"),
        ("any other", "", "missing there: sent again"),
    ]


def queries() -> list[Row]:
    """List what the last answer to C-FIND means."""
    return [
        ("Status", "What follows"),
        (_ranges(query.PENDING), "one match"),
        (_hex(SUCCESS), "all matches came: what is not among them is looked for again, later missing"),
        (_ranges(query.PERMANENT), "no proof is to be had from this destination"),
        ("any other, or none", "asked again, with growing waits"),
    ]


def _first_line(error: type[StoreError]) -> str:
    return (error.__doc__ or "").strip().splitlines()[0]


def _hex(status: int) -> str:
    return f"0x{status:04X}"


def _ranges(statuses: Iterable[int]) -> str:
    """Write runs of statuses short: ``0xA700-0xA7FF``."""
    runs: list[list[int]] = []
    for status in sorted(statuses):
        if runs and status == runs[-1][-1] + 1:
            runs[-1].append(status)
        else:
            runs.append([status])
    return ", ".join(_hex(run[0]) if len(run) == 1 else f"{_hex(run[0])}-{_hex(run[-1])}" for run in runs)
