"""What an answer to a stored object means: the statuses of C-STORE, which STOW-RS gives as failure reasons, too."""

from __future__ import annotations

from pynetdicom.status import STATUS_SUCCESS, STATUS_WARNING, code_to_category

from dicom_node.domain.delivery import Sent
from dicom_node.errors import DeliveryError

DUPLICATE_SOP_INSTANCE = 0x0111  # PS3.7 C.5.6
RESOURCE_LIMITATION = 0x0213  # PS3.7 C.5.17
SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 C.5.6


def judge(destination: str, status: int, comment: str = "") -> Sent:
    """Decide what a status means for the delivery (PS3.4 B.2.3, PS3.7 annex C).

    Raises
    ------
    DeliveryError
        When the destination did not take the object; `retry` says whether it may take it later.
    """
    if code_to_category(status) in (STATUS_SUCCESS, STATUS_WARNING):
        return Sent(status, comment)
    if status == DUPLICATE_SOP_INSTANCE:
        return Sent(status, comment or "the peer holds this SOP Instance UID already")
    says = f"{destination} answered 0x{status:04X}" + (f": {comment}" if comment else "")
    if status & 0xFF00 == 0xA700 or status == RESOURCE_LIMITATION:
        raise DeliveryError(f"{says} (out of resources)", retry=True, status=status)
    meaning = {0xA: "data set does not match SOP class", 0xC: "cannot understand"}.get(status >> 12, "refused")
    is_refused = status == SOP_CLASS_NOT_SUPPORTED
    raise DeliveryError(f"{says} ({meaning})", retry=False, status=status, is_refused=is_refused)
