"""The closed list of what we record, in the words that `dicom-node explain` prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

NODE = "node"  # the actor of what nobody asked for


class Event(StrEnum):
    """Kinds of audit events. A test holds docs/operations.md to this list."""

    NODE_STARTED = "node started"
    NODE_STOPPED = "node stopped"
    NODE_DIED = "node died"
    ASSOCIATION_REJECTED = "association rejected"
    SOP_CLASS_REFUSED = "SOP class not named"
    TLS_FAILED = "no TLS with a peer"
    INSTANCE_REFUSED = "instance refused"
    INSTANCE_DUPLICATE_DIFFERS = "instance refused: same UID, other bytes"
    INSTANCES_STORED = "instances stored over the web"
    INSTANCES_IMPORTED = "instances imported"
    RETRIEVAL_STARTED = "retrieval started"
    RETRIEVAL_ITEM_FAILED = "retrieval of an item failed"
    RETRIEVAL_PAUSED = "retrieval paused"
    RETRIEVAL_RESUMED = "retrieval resumed"
    RETRIEVAL_ENDED = "retrieval ended"
    SERIES_STARTED = "series started"
    SERIES_REOPENED = "series reopened"
    SERIES_CAME_AGAIN = "series came again"
    SERIES_WAITS = "series waits for slices"
    SERIES_COMPLETE = "series complete"
    SERIES_REFUSED = "series refused"
    SERIES_ROUTED = "series routed"
    SERIES_UNMATCHED = "series matched no rule"
    STUDY_WAITS = "study waits for series"
    STUDY_LACKS = "series of a study missing"
    OWN_RESULT_RETURNED = "own result came back"
    JOB_SCHEDULED = "job scheduled"
    JOB_STARTED = "attempt started"
    JOB_COMPLETED = "job completed"
    OBJECTS_CHOSEN = "objects chosen"
    OUTDATED_REJECTED = "outdated objects rejected"
    OUTDATED_LEFT = "outdated objects left"
    JOB_RETRY = "attempt failed, will retry"
    JOB_FAILED = "job failed"
    JOB_CANCELED = "job canceled"
    JOB_SUPERSEDED = "job superseded"
    JOB_RECOVERED = "attempt lost with its worker"
    REPORT_MADE = "failure reported"
    REPORT_FAILED = "failure not reported"
    DELIVERY_STARTED = "delivery started"
    DELIVERY_DONE = "delivered"
    DELIVERY_RETRY = "delivery failed, will retry"
    DELIVERY_FAILED = "delivery failed"
    DELIVERY_REPLACED = "another object goes instead"
    COMMITMENT_ASKED = "storage commitment asked"
    DELIVERY_PROVEN = "delivery proven"
    DELIVERY_LOST = "lost by the destination, sent again"
    DELIVERY_UNPROVEN = "delivery not proven"
    COMMITMENT_GIVEN = "storage commitment reported"
    COMMITMENT_UNREPORTED = "storage commitment not reported"
    IMAGES_DELETED = "images deleted"
    RESULTS_DELETED = "results deleted"
    ROWS_DELETED = "rows deleted"
    NOTIFICATION_SENT = "notification sent"
    NOTIFICATION_FAILED = "notification failed"
    DATA_EXPORTED = "data exported"
    OPERATOR_RETRY = "operator asked for a retry"
    OPERATOR_CANCEL = "operator asked for a cancel"
    OPERATOR_RESEND = "operator asked for a resend"
    OPERATOR_ROUTE = "operator asked the rules again"
    RULES_CHANGED = "rules changed"
    RULES_REFUSED = "changed rules not taken"
    MODEL_PROMOTED = "model promoted"
    OPERATOR_RERUN = "operator asked for another model"
    QUEUE_PAUSED = "queue paused"
    QUEUE_RESUMED = "queue resumed"
    DESTINATION_ASKED = "destination asked for an echo"
    LOGIN = "signed in"
    LOGIN_FAILED = "sign-in failed"
    LOGOUT = "signed out"
    ACCESS_REFUSED = "access refused"
    ACCOUNT_ADDED = "account added"
    ACCOUNT_CHANGED = "account changed"
    TOKEN_ADDED = "token added"  # noqa: S105 - no secret
    TOKEN_REVOKED = "token revoked"  # noqa: S105
    VIEWED = "patient data viewed"
    SENT_OUT = "patient data given out"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that happened. `detail` holds UIDs, counts, reasons and our ids, never names or birth dates."""

    event: Event
    association_id: str | None = None
    series_id: str | None = None
    job_id: str | None = None
    delivery_id: str | None = None
    actor: str = NODE
    detail: dict[str, Any] = field(default_factory=dict)
    at: datetime | None = None
