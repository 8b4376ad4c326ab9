"""Result objects, destinations and deliveries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from dicom_node.domain.encoding import Encoding, encoded, is_plain, plain
from dicom_node.domain.model import OutputKind
from dicom_node.domain.proof import NO_PROOF, ProofPolicy
from dicom_node.domain.uids import AETitle


def kinds_for(made: Collection[OutputKind], wanted: Collection[OutputKind], seg: Encoding) -> list[OutputKind]:
    """Choose what goes to a destination, in order: one segmentation, one report, and the report points at that one.

    Parameters
    ----------
    made : collection of OutputKind
        What a job made.
    wanted : collection of OutputKind
        Kinds that the destination gets; empty means all. When none of them was made it gets the report, if there is
        one: no study stays silent.
    seg : Encoding
        How it wants segmentations; where none was made in that way, it gets the BINARY one.
    """
    chosen = {kind for kind in made if is_plain(kind) and (not wanted or kind in wanted)}
    chosen = chosen or ({OutputKind.SR} & set(made))
    if encoded(OutputKind.SEG, seg) in made:
        chosen = {encoded(kind, seg) if encoded(kind, seg) in made else kind for kind in chosen}
    return [kind for kind in OutputKind if kind in chosen]


def stands_aside(kind: OutputKind, status: int | None, *, is_refused: bool) -> bool:
    """Whether an object that a destination did not take was one way of several, so that no delivery failed.

    A peer may negotiate a SOP class and then find (0xA9xx, 0xCxxx) that it cannot read the object.
    """
    unread = status is not None and (status >> 8 == 0xA9 or status >> 12 == 0xC)
    return kind is not OutputKind.SEG and plain(kind) is OutputKind.SEG and (is_refused or unread)


def numbered(kind: OutputKind, number: int) -> str:
    """Name an object among the results of its job: its kind, and a number from the second of its kind on."""
    return kind.value if number == 1 else f"{kind.value}-{number}"


@dataclass(frozen=True, slots=True)
class ResultObject:
    """One stored SEG or SR. `path` is relative to the spool; the bytes are synced before the row exists.

    `number` tells several of one kind apart. `only_for` names the destinations that get it, whatever they want else;
    None for an object that goes to whoever wants its kind.
    """

    kind: OutputKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    sha256: str
    summary: dict[str, Any] = field(default_factory=dict)
    number: int = 1
    only_for: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """Its name among the results of its job: the kind, and a number from the second on."""
        return numbered(self.kind, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination(ABC):
    """Where results are sent to; each kind says where and how.

    `objects` are the kinds of objects it gets; empty means all that are made. `seg` is how it wants segmentations.
    `reject_superseded` has it reject what it was sent before, when a newer result takes its place.
    """

    kind: ClassVar[str]

    name: str
    timeout_s: float = 30.0
    proof: ProofPolicy = NO_PROOF
    objects: frozenset[OutputKind] = frozenset()
    seg: Encoding = Encoding.BINARY
    reject_superseded: bool = True

    @property
    @abstractmethod
    def where(self) -> str:
        """Where it is, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsClient:
    """How we speak TLS with a peer that we call.

    Attributes
    ----------
    ca : pathlib.Path, optional
        Certificates of those who may vouch for the peer, in PEM; None for those that the system trusts.
    certificate, key : pathlib.Path, optional
        Our own, in PEM.
    server_name : str
        The name that its certificate has to have; empty for the host that is called.
    minimum : str
        The oldest version: ``1.2`` or ``1.3``.
    accepts_any : bool
        Whether its certificate is not looked at.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""
    minimum: str = "1.2"
    accepts_any: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DimseDestination(Destination):
    """A PACS that takes objects by C-STORE, over TLS where `tls` says how.

    `user` and `passcode` are who we say we are (PS3.7 D.3.3.7); empty for nobody.
    """

    kind = "dimse"

    host: str
    port: int
    ae_title: AETitle
    calling_ae: AETitle
    tls: TlsClient | None = None
    user: str = ""
    passcode: str = field(default="", repr=False)

    @property
    def where(self) -> str:
        """AE title and address."""
        return f"{self.ae_title} at {self.host}:{self.port}{' (TLS)' if self.tls else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StowDestination(Destination):
    """A PACS that takes objects by STOW-RS (PS3.18 section 10.5).

    Attributes
    ----------
    url : str
        Of its DICOMweb service, without ``/studies``.
    username, password : str
        For basic authentication; empty for none.
    token : str
        A bearer token; `token_file` holds one that somebody renews, read for each request.
    ca : pathlib.Path, optional
        Certificates of those who may vouch for the server, in PEM; None for those that the system trusts.
    certificate, key : pathlib.Path, optional
        Our own, in PEM, for a server that asks for it.
    """

    kind = "stow"

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def where(self) -> str:
        """The URL."""
        return self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderDestination(Destination):
    """A folder into which objects are put as files: ``<study>/<series>/<instance>.dcm``."""

    kind = "folder"

    path: Path

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.path)


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
