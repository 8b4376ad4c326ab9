"""Result objects, destinations and deliveries."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from dicom_node.domain.model import OutputKind
from dicom_node.domain.proof import NO_PROOF, ProofPolicy
from dicom_node.domain.uids import AETitle


@dataclass(frozen=True, slots=True)
class ResultObject:
    """One stored SEG or SR. `path` is relative to the spool; the bytes are synced before the row exists."""

    kind: OutputKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    sha256: str
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Destination:
    """A PACS or archive that results are sent to."""

    name: str
    kind: str
    host: str
    port: int
    ae_title: AETitle
    calling_ae: AETitle
    timeout_s: float = 30.0
    proof: ProofPolicy = NO_PROOF


class DeliveryState(StrEnum):
    """Where one object stands with one destination."""

    WAITING = "waiting"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One ResultObject to one Destination, as a sender sees it.

    `attempt` counts from 1 and is the token without which nothing about the delivery can be written. `asked_at` is
    when the delivery was created or an operator last asked for it again: giving up counts from there, and `tries`
    counts the attempts since then, this one included.
    """

    id: str
    job_id: str
    destination: str
    kind: OutputKind
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: str
    sha256: str
    attempt: int
    created_at: datetime
    asked_at: datetime
    tries: int


@dataclass(frozen=True, slots=True)
class Sent:
    """What a destination answered when it took an object (0x0000, or a warning 0xBxxx: stored all the same)."""

    status: int
    comment: str = ""
