"""Whether we talk to a peer, and about what: AE titles, addresses, presentation contexts (PS3.8 section 7.1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    InstanceAvailabilityNotification,
    StorageCommitmentPushModel,
    Verification,
)

from dicom_node.domain.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.errors import ProtocolError
from dicom_node.receive.classes import is_other_service, storage_classes, transfer_syntaxes
from dicom_node.receive.identity import (
    IN_CLEAR,
    Shown,
    identity_taken,
    names_user,
    shows_certificate,
    what_is_missing,
)
from dicom_node.settings import DimseSettings, Peer, Settings

MAX_PDU = 128 * 1024
MOST_OPERATIONS = 16  # that one association may have under way
MOST_ITEMS = 10_000  # 128 contexts with every transfer syntax there is are 6,000
_FIXED = 74
_CONTEXT, _USER_INFORMATION = 0x20, 0x50
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
# Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21)
NOT_DICOM, NOT_CALLED, NOT_ALLOWED, TOO_MANY = (1, 1, 2), (1, 1, 7), (1, 1, 3), (2, 3, 2)
NOT_IDENTIFIED = (1, 2, 1)  # PS3.7 D.3.3.7.1


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why there is no association: the three numbers of the A-ASSOCIATE-RJ (PS3.8 table 9-21), and the words."""

    result: int
    source: int
    diagnostic: int
    reason: str


@dataclass(frozen=True, slots=True)
class Services:
    """What a peer may do, beside asking for an echo.

    `stores` says whether it may send objects, `reports` whether it may report on storage commitment, and
    `is_destination` whether it is known to be a destination: then it need not negotiate its role. `sop_classes` are
    those that it may send although they are no storage classes of the standard. `is_user` says whether it is let in as
    the user that it named (PS3.7 D.3.3.7), `commits` whether it may ask us to commit ourselves to what it sent, and
    `is_told_here` whether we may report on that where it asked.
    """

    stores: bool
    reports: bool = False
    is_destination: bool = False
    sop_classes: frozenset[str] = frozenset()
    is_user: bool = False
    commits: bool = False
    is_told_here: bool = False


def check_items(pdu: bytes) -> None:
    """Look whether an A-ASSOCIATE-RQ has sane items before pynetdicom spends time on it (PS3.8 9.3.2).

    Raises
    ------
    ProtocolError
        If items overrun one another, or there are too many.
    """
    if len(pdu) < _FIXED:
        raise ProtocolError("an A-ASSOCIATE-RQ that is too short")
    items = 0
    for kind, start, end in _each(pdu, _FIXED, len(pdu)):
        inner = start + 4 if kind == _CONTEXT else start
        items += 1
        if kind in (_CONTEXT, _USER_INFORMATION):
            items += sum(1 for _ in _each(pdu, inner, end))
        if items > MOST_ITEMS:
            raise ProtocolError("an A-ASSOCIATE-RQ with too many items")


def _each(pdu: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of each item between two positions."""
    while position < end:
        if position + 4 > end:
            raise ProtocolError("an A-ASSOCIATE-RQ that ends inside an item")
        start = position + 4
        position = start + int.from_bytes(pdu[position + 2 : start], "big")
        if position > end:
            raise ProtocolError("an item of an A-ASSOCIATE-RQ that is longer than its place")
        yield pdu[start - 4], start, position


def refuse(request: A_ASSOCIATE, address: str, settings: Settings, shown: Shown = IN_CLEAR) -> Rejection | None:
    """Decide by AE titles, address and what is shown whether a peer may associate.

    Parameters
    ----------
    request : A_ASSOCIATE
        What the peer asks for.
    address : str
        Its IP address.
    shown : Shown
        What its connection says of it.

    Returns
    -------
    Rejection or None
        None when it may.
    """
    if request.application_context_name != APPLICATION_CONTEXT:
        return Rejection(*NOT_DICOM, "the application context is not DICOM's")
    calling, called = request.calling_ae_title, request.called_ae_title
    receive = settings.receive
    ours = receive.called_ae or (settings.node.ae_title,)
    if called not in ours:
        return Rejection(*NOT_CALLED, f"called AE title {called} is not ours ({', '.join(ours)})")
    allowed = services(request, address, settings, shown)
    if allowed.stores or allowed.reports:
        return None
    if here := [peer for peer in receive.peers if peer.ae_title == calling and _comes_from(peer, address)]:
        is_user, reason = what_is_missing(here, request, receive, shown)
        return Rejection(*(NOT_IDENTIFIED if is_user else NOT_ALLOWED), reason)
    if any(peer.ae_title == calling for peer in receive.peers):
        return Rejection(*NOT_ALLOWED, f"calling AE title {calling} may not send from {address}")
    return Rejection(*NOT_ALLOWED, f"calling AE title {calling} is not in receive.peers")


def services(
    request: A_ASSOCIATE,
    address: str,
    settings: Settings,
    shown: Shown = IN_CLEAR,
    sop_classes: frozenset[str] = frozenset(),
) -> Services:
    """Say what a peer may do: the named peers send, and those whom we ask for storage commitment report on it."""
    receive, calling = settings.receive, request.calling_ae_title
    known = (peer for peer in receive.peers if peer.ae_title == calling and _comes_from(peer, address))
    proven = [p for p in known if shows_certificate(p, shown) and names_user(p, request, receive, shown)]
    stores = receive.accept_any_peer or bool(proven)
    asked = [d for d in settings.destinations.values() if isinstance(d, DimseSettings) and d.verify.by_commitment]
    # whom we call over TLS shall not be impersonated without it
    is_destination = any(d.ae_title == calling and (d.tls is None or shown.is_secure) for d in asked)
    commits = any(peer.commitment for peer in proven)
    is_told_here = any(peer.commitment and peer.report_on != "new" for peer in proven)
    is_user = any(peer.user for peer in proven)
    reports = bool(asked) and (stores or is_destination)
    return Services(stores, reports, is_destination, sop_classes, is_user, commits, is_told_here)


def _comes_from(peer: Peer, address: str) -> bool:
    return not peer.address or _within(address, peer.address)


def negotiate(
    request: A_ASSOCIATE, allowed: Services
) -> tuple[list[PresentationContext], list[SCP_SCU_RoleSelectionNegotiation]]:
    """Answer every proposed presentation context, and every role (PS3.7 D.3.3.4) that matters to us.

    Storage classes, and those that somebody has named, are taken in any transfer syntax. Of several in one context the
    first that we know is taken: the peer's order is its preference, and what it sends is stored as it is. Storage
    commitment is taken from the provider alone, who has to say that it is one unless we know it as a destination.
    """
    roles = {i.sop_class_uid: (i.scu_role, i.scp_role) for i in _items(request, SCP_SCU_RoleSelectionNegotiation)}
    answers: list[PresentationContext] = []
    agreed: list[SCP_SCU_RoleSelectionNegotiation] = []
    for proposed in request.presentation_context_definition_list:
        ours = _ours(proposed, roles, allowed)
        contexts, said = negotiate_as_acceptor([proposed], ours, roles)
        answers += contexts
        agreed = [role for role in said if role.sop_class_uid == StorageCommitmentPushModel] or agreed
    return answers, agreed


def _ours(
    proposed: PresentationContext, roles: dict[UID, tuple[bool, bool]], allowed: Services
) -> list[PresentationContext]:
    """Our side of one proposed context; empty where we do not take part."""
    abstract_syntax = proposed.abstract_syntax
    if abstract_syntax is None:
        return []
    if abstract_syntax == StorageCommitmentPushModel:
        is_provider = roles.get(abstract_syntax, (True, False))[1]
        if not (allowed.reports and (is_provider or allowed.is_destination)) and (is_provider or not allowed.commits):
            return []
        reports = build_context(abstract_syntax, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        if abstract_syntax in roles:
            reports.scu_role, reports.scp_role = not is_provider, is_provider
        return [reports]
    if abstract_syntax == InstanceAvailabilityNotification:
        ours = build_context(abstract_syntax, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        return [ours] if allowed.stores else []
    if abstract_syntax != Verification and not (allowed.stores and _is_stored(abstract_syntax, allowed)):
        return []
    syntaxes = [s for s in proposed.transfer_syntax if s in transfer_syntaxes()]
    # with none in common, any of ours makes the answer say that it was for the transfer syntaxes
    return [build_context(abstract_syntax, [*(syntaxes or transfer_syntaxes())])]


def _is_stored(abstract_syntax: UID, allowed: Services) -> bool:
    return abstract_syntax in storage_classes() or abstract_syntax in allowed.sop_classes


def unnamed_classes(request: A_ASSOCIATE, allowed: Services) -> list[str]:
    """List what a peer that may store wants to send and may not: private classes that nobody has named."""
    if not allowed.stores:
        return []
    asked = dict.fromkeys(cx.abstract_syntax for cx in request.presentation_context_definition_list)
    return [str(uid) for uid in asked if uid and not _is_stored(uid, allowed) and not is_other_service(uid)]


def window(request: A_ASSOCIATE) -> int | None:
    """How many requests a peer may send before the first is answered (PS3.7 D.3.3.3); None when it did not ask."""
    for item in _items(request, AsynchronousOperationsWindowNegotiation):
        return min(item.maximum_number_operations_invoked or MOST_OPERATIONS, MOST_OPERATIONS)
    return None


def acceptance(
    request: A_ASSOCIATE,
    contexts: list[PresentationContext],
    roles: list[SCP_SCU_RoleSelectionNegotiation],
    *,
    is_user: bool = False,
) -> A_ASSOCIATE:
    """Build the A-ASSOCIATE response that accepts; `is_user` says whether the peer was let in as the user it named."""
    answer = A_ASSOCIATE()
    answer.application_context_name = UID(APPLICATION_CONTEXT)
    answer.calling_ae_title = request.calling_ae_title
    answer.called_ae_title = request.called_ae_title
    answer.result, answer.result_source = 0x00, 0x01
    answer.presentation_context_definition_results_list = contexts
    length = MaximumLengthNotification()
    length.maximum_length_received = MAX_PDU
    class_uid = ImplementationClassUIDNotification()
    class_uid.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    answer.user_information = [length, class_uid, *_agreed_window(request), *roles, version]
    answer.user_information += identity_taken(request) if is_user else []
    return answer


def _agreed_window(request: A_ASSOCIATE) -> list[AsynchronousOperationsWindowNegotiation]:
    """Answer with as many as we take at once; we ourselves ask nothing of a peer that called us."""
    operations = window(request)
    if operations is None:
        return []
    agreed = AsynchronousOperationsWindowNegotiation()
    agreed.maximum_number_operations_invoked, agreed.maximum_number_operations_performed = operations, 1
    return [agreed]


def implementation_of(request: A_ASSOCIATE) -> str:
    """Name the peer's software, as it calls itself (PS3.7 D.3.3.2)."""
    named = (ImplementationVersionNameNotification, "implementation_version_name")
    identified = (ImplementationClassUIDNotification, "implementation_class_uid")
    parts = [str(getattr(item, name)) for kind, name in (named, identified) for item in _items(request, kind)]
    return " ".join(part for part in parts if part not in ("", "None"))


def peer_max_pdu(request: A_ASSOCIATE) -> int:
    """Largest P-DATA-TF that the peer takes; 0 where it sets no limit (PS3.8 D.1)."""
    return next((item.maximum_length_received or 0 for item in _items(request, MaximumLengthNotification)), 0)


def _items(request: A_ASSOCIATE, kind: type) -> Iterable:  # type: ignore[type-arg]
    return (item for item in request.user_information if isinstance(item, kind))


def _within(address: str, network: str) -> bool:
    ip = ipaddress.ip_address(address.removeprefix("::ffff:"))  # IPv4 on a socket that takes both
    return ip in ipaddress.ip_network(network, strict=False)
