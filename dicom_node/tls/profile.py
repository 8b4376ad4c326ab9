"""The profile that both sides keep: BCP 195, RFC 8996 and RFC 9325 (PS3.15 B.12).

TLS 1.2 at least, and never less: nothing is negotiated downwards. Of TLS 1.2 only the cipher suites that RFC 9325 4.2
recommends: ephemeral elliptic curves, AES-GCM. No compression, no renegotiation, no session tickets.
"""

from __future__ import annotations

import ssl
from pathlib import Path

SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "NO_SHARED_CIPHER": "it offers none of the cipher suites of BCP 195 (RFC 9325)",
    "UNSUPPORTED_PROTOCOL": "it speaks too old a TLS",
    "VERSION_TOO_LOW": "it speaks too old a TLS",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "WRONG_SSL_VERSION": "it does not speak TLS",
    "HTTP_REQUEST": "it speaks HTTP",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it does not speak the version of TLS that we want",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of ours",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it finds no cipher suite, or no certificate, that both sides take",
    "UNEXPECTED_EOF_WHILE_READING": "it left in the middle",
}
_DISTRUST = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED")


def keep_profile(context: ssl.SSLContext, minimum: str) -> None:
    """Have a context keep the profile.

    Parameters
    ----------
    minimum : str
        ``1.2`` or ``1.3``.
    """
    context.minimum_version = VERSIONS[minimum]
    context.set_ciphers(":".join(SUITES))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    # whoever is named in `ca` is trusted: an authority, or a device that vouches for nobody but itself
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def trust(context: ssl.SSLContext, ca: Path | None) -> None:
    """Say whose certificates are believed: those of a file in PEM, or those that the system trusts.

    Raises
    ------
    OSError
        If the file cannot be read, or holds no certificate (`ssl.SSLError` is one).
    """
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(ca)


def heed(context: ssl.SSLContext, crl: Path) -> None:
    """Have a context refuse certificates that their authority has revoked (RFC 5280).

    Parameters
    ----------
    crl : pathlib.Path
        Revocation lists in PEM, one of each authority that vouches for peers: without its list, or with one that is
        out of date, nothing that it vouches for is taken.
    """
    context.load_verify_locations(crl)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def why(error: OSError) -> str:
    """Say in words for an administrator why a handshake failed. `it` is the peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not taken: {error.verify_message}"
    if not isinstance(error, ssl.SSLError):
        return str(error.strerror or error)
    reason = error.reason or ""
    if any(word in reason for word in _DISTRUST):
        return f"it does not take our certificate ({reason.rpartition('ALERT_')[2].replace('_', ' ').lower()})"
    return _REASONS.get(reason) or reason.replace("_", " ").lower() or str(error)
