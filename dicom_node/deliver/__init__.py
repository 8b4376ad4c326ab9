"""Stage 6 of the spine: stored result objects go to their destinations.

A kind of destination is one module with a `send` function; it raises DeliveryError, and nothing else, when the
destination did not take the object.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dicom_node.deliver import dimse
from dicom_node.domain.delivery import Delivery, Destination, Sent

Sender = Callable[[Destination, Path, Delivery], Sent]

SENDERS: dict[str, Sender] = {"dimse": dimse.send}
