"""Stage 6 of the spine: stored result objects go to their destinations.

A kind of destination is one module. All of its functions raise DeliveryError, and nothing else, when the destination
does not take an object or does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.deliver import dimse, folder, query, stow
from dicom_node.domain.delivery import Delivery, Sent
from dicom_node.domain.proof import Proof


@dataclass(frozen=True, slots=True)
class Sender:
    """How to talk to one kind of destination; each function takes a destination of that kind first.

    Attributes
    ----------
    send : callable
        Sends one stored object.
    find : callable
        Gives the SOP Instance UIDs of those of some objects that the destination has.
    echo : callable
        Gives the seconds that it took to answer.
    count : callable, optional
        Gives the number of instances of a series (by the UIDs of study and series) that the destination has.
    """

    send: Callable[[Any, Path, Delivery], Sent]
    find: Callable[[Any, Sequence[Proof]], set[str]]
    echo: Callable[[Any], float]
    count: Callable[[Any, str, str], int] | None = None


SENDERS: dict[str, Sender] = {
    "dimse": Sender(dimse.send, query.find, dimse.echo, query.count),
    "stow": Sender(stow.send, stow.find, stow.echo, stow.count),
    "folder": Sender(folder.send, folder.find, folder.echo),
}
