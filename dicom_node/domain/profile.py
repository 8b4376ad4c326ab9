"""What a destination can take, as it said when it was probed, and what it gets in place of what it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dicom_node.domain.model import OutputKind

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_PLAIN = (EXPLICIT, IMPLICIT)
_PIXELS = (*_PLAIN, "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90")
_STORAGE = "1.2.840.10008.5.1.4.1.1"
REJECTION_CLASS = f"{_STORAGE}.88.59"
_SINGLE = (OutputKind.SC, OutputKind.CAPTURES)
_SELECTIONS = (OutputKind.KOS, OutputKind.REJECTION)


@dataclass(frozen=True, slots=True)
class Offer:
    """A SOP class that we might send, in which transfer syntaxes.

    `kinds` are stored in it; domain/choice.py says what stands in for them, and `instead` what is left where nothing
    does.
    """

    sop_class_uid: str
    name: str
    syntaxes: tuple[str, ...]
    instead: str
    kinds: tuple[OutputKind, ...] = ()


_NOTHING = "nothing: it takes nothing that could stand in for it"
_NO_REPORT = "nothing: no report of ours can be filed there"
_NO_MARK = "nothing: superseded objects stay unmarked"
_PICTURES = (OutputKind.OVERLAY, OutputKind.KEY_IMAGES)
_ADDS = "nothing: it only supplements the others"

OFFERS = (
    Offer(f"{_STORAGE}.66.4", "segmentation (SEG)", _PIXELS, _NOTHING, (OutputKind.SEG,)),
    Offer(f"{_STORAGE}.66.7", "segmentation as a label map", _PIXELS, "the segmentation in its BINARY form"),
    Offer(f"{_STORAGE}.88.34", "report (Comprehensive 3D SR)", _PLAIN, _NO_REPORT, (OutputKind.SR,)),
    Offer(f"{_STORAGE}.88.33", "report for viewers (Comprehensive SR)", _PLAIN, _ADDS, (OutputKind.VIEWER_SR,)),
    Offer(f"{_STORAGE}.30", "parametric map (PM)", _PIXELS, _NOTHING, (OutputKind.PM,)),
    Offer(f"{_STORAGE}.7.3", "grey pictures (Multi-frame Grayscale Word SC)", _PIXELS, _NOTHING, (OutputKind.GREY,)),
    Offer(
        f"{_STORAGE}.7", "picture (SC)", _PIXELS, "nothing: SEG and SR have to do", (OutputKind.SC, OutputKind.CAPTURES)
    ),
    Offer(f"{_STORAGE}.7.4", "pictures in one object (Multi-frame True Color SC)", _PIXELS, _NOTHING, _PICTURES),
    Offer(f"{_STORAGE}.11.1", "presentation state (GSPS)", _PLAIN, _ADDS, (OutputKind.GSPS,)),
    Offer(REJECTION_CLASS, "key object selection (KOS)", _PLAIN, _NO_MARK, _SELECTIONS),
    Offer(f"{_STORAGE}.104.1", "report as a PDF", _PLAIN, _ADDS, (OutputKind.PDF,)),
    Offer(
        f"{_STORAGE}.66.1", "registration by a matrix (Spatial Registration)", _PLAIN, _ADDS, (OutputKind.REGISTRATION,)
    ),
    Offer(
        f"{_STORAGE}.66.3",
        "registration by a field (Deformable Spatial Registration)",
        _PLAIN,
        _ADDS,
        (OutputKind.DEFORMATION,),
    ),
    Offer(f"{_STORAGE}.481.3", "contours (RT Structure Set)", _PLAIN, _ADDS, (OutputKind.RTSTRUCT,)),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What one destination said.

    Attributes
    ----------
    where : str
        Which peer it was; a profile of another one under the same name is worth nothing.
    accepted : mapping of str to tuple of str, or None
        Accepted transfer syntaxes by SOP class; None where nothing is negotiated beforehand (STOW-RS, folders).
    echo_ms : tuple of float
        How long it took to answer, several times.
    commitment, query : str
        Why storage commitment and queries do not work; empty where they do, ``"-"`` where there is no such service.
    report : str
        How a report of storage commitment comes, as far as it can be told.
    """

    where: str
    probed_at: datetime
    accepted: Mapping[str, tuple[str, ...]] | None
    echo_ms: tuple[float, ...]
    commitment: str
    query: str
    report: str = ""

    def refuses(self, where: str, sop_class_uid: str) -> bool:
        """Whether this peer said that it takes no object of a SOP class; what it was not asked about it may take."""
        if self.where != where or self.accepted is None:
            return False
        return sop_class_uid in self.accepted and not self.accepted[sop_class_uid]

    @property
    def takes(self) -> tuple[Offer, ...]:
        """What it said that it takes, of what we might send."""
        return tuple(offer for offer in OFFERS if (self.accepted or {}).get(offer.sop_class_uid))

    @property
    def leaves(self) -> tuple[Offer, ...]:
        """What it said that it does not take."""
        return tuple(offer for offer in OFFERS if self.refuses(self.where, offer.sop_class_uid))

    @property
    def verify(self) -> str:
        """The most that can be proven there: a value of `verify` in the settings."""
        if self.query == "":
            return "both" if self.commitment == "" else "query"
        return "commitment" if self.commitment == "" else "none"
