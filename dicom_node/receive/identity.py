"""What a caller has to show, beside its AE title and address: a certificate, a user."""

from __future__ import annotations

from dataclasses import dataclass
from hmac import compare_digest
from typing import TYPE_CHECKING

from pynetdicom.pdu_primitives import A_ASSOCIATE, UserIdentityNegotiation

from dicom_node.settings import Peer, Receive

if TYPE_CHECKING:  # it loads a library that only TLS needs
    from dicom_node.tls.certificate import Certificate

_BY_NAME, _BY_PASSCODE = 1, 2  # User Identity Type (PS3.7 table D.3-14)


@dataclass(frozen=True, slots=True)
class Shown:
    """What the connection says of its peer: whether it is one over TLS, and the certificate that was shown."""

    is_secure: bool = False
    certificate: Certificate | None = None


IN_CLEAR = Shown()


def shows_certificate(peer: Peer, shown: Shown) -> bool:
    """Whether a caller shows the certificate that its peer in the settings has, if that has one."""
    return not peer.certificate or (shown.certificate is not None and shown.certificate.is_called(peer.certificate))


def names_user(peer: Peer, request: A_ASSOCIATE, receive: Receive, shown: Shown) -> bool:
    """Whether it identifies itself as the user that it has to be (PS3.7 D.3.3.7): by name, or by name and passcode."""
    if not peer.user:
        return True
    if not (shown.is_secure or receive.passcodes_in_clear):
        return False
    passcode = peer.passcode.get_secret_value()
    types = (_BY_PASSCODE,) if passcode else (_BY_NAME, _BY_PASSCODE)
    return any(
        item.user_identity_type in types
        and compare_digest(item.primary_field or b"", peer.user.encode())
        and (not passcode or compare_digest(item.secondary_field or b"", passcode.encode()))
        for item in _identities(request)
    )


def what_is_missing(peers: list[Peer], request: A_ASSOCIATE, receive: Receive, shown: Shown) -> tuple[bool, str]:
    """Say what a caller does not show, whose AE title and address are right: whether it is the user, and the words."""
    calling = request.calling_ae_title
    if not any(shows_certificate(peer, shown) for peer in peers):
        has = shown.certificate.subject if shown.certificate else "none" if shown.is_secure else "no TLS"
        wanted = ", ".join(peer.certificate for peer in peers)
        return False, f"calling AE title {calling} has to show the certificate {wanted}; it has {has}"
    if not (shown.is_secure or receive.passcodes_in_clear):
        return True, f"calling AE title {calling} has to identify its user, and over TLS"
    return True, f"calling AE title {calling} does not identify its user, or not rightly"


def identity_taken(request: A_ASSOCIATE) -> list[UserIdentityNegotiation]:
    """Answer who wants to hear that its user was taken; with nothing in it for names and passcodes (D.3.3.7.2)."""
    if not any(item.positive_response_requested for item in _identities(request)):
        return []
    answer = UserIdentityNegotiation()
    answer.server_response = b""
    return [answer]


def _identities(request: A_ASSOCIATE) -> list[UserIdentityNegotiation]:
    return [item for item in request.user_information if isinstance(item, UserIdentityNegotiation)]
