"""Stage 6 of the spine: stored result objects go to their destinations.

A kind of destination is one module with a `send` function, and one with a `find` function that says which objects the
destination has. Both raise DeliveryError, and nothing else, when it does not take or does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dicom_node.deliver import dimse, query
from dicom_node.domain.delivery import Delivery, Destination, Sent
from dicom_node.domain.proof import Proof

Sender = Callable[[Destination, Path, Delivery], Sent]

SENDERS: dict[str, Sender] = {"dimse": dimse.send}

Finder = Callable[[Destination, Sequence[Proof]], set[str]]

FINDERS: dict[str, Finder] = {"dimse": query.find}
