"""What a certificate says: whom it names, until when it holds. Certificates of peers, and our own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

FINGERPRINT = "sha256:"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known of a certificate.

    Attributes
    ----------
    subject : str
        Distinguished name (RFC 4514): ``CN=ct1,O=Hospital``.
    names : tuple of str
        Subject Alternative Names (DNS, address, URI, e-mail) and common names, in lower case.
    sha256 : str
        Fingerprint, in lower case without colons.
    not_after : datetime.datetime
        Until when it holds.
    is_elliptic : bool
        Whether its key is one of an elliptic curve (ECDSA), not RSA.
    """

    subject: str
    names: tuple[str, ...]
    sha256: str
    not_after: datetime
    is_elliptic: bool

    def is_called(self, wanted: str) -> bool:
        """Whether it is the certificate that the settings ask for.

        Parameters
        ----------
        wanted : str
            ``sha256:`` and a fingerprint, a distinguished name (there is a ``=`` in it), or one of the names.
        """
        if wanted.lower().startswith(FINGERPRINT):
            return bare_fingerprint(wanted) == self.sha256
        if "=" in wanted:
            return _parts(wanted) == _parts(self.subject)
        return wanted.lower() in self.names

    def serves(self, host: str) -> bool:
        """Whether a client that asks for `host` is served by it; a ``*`` stands for one label (RFC 9525 6.3)."""
        host = host.lower()
        return host in self.names or f"*.{host.partition('.')[2]}" in self.names


def read_certificate(der: bytes) -> Certificate:
    """Read one certificate.

    Raises
    ------
    ValueError
        If it is none.
    """
    return _describe(x509.load_der_x509_certificate(der))


def read_certificates(file: Path) -> list[Certificate]:
    """Read every certificate of a PEM file, in their order.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, or holds no certificate.
    """
    return [_describe(one) for one in x509.load_pem_x509_certificates(file.read_bytes())]


@dataclass(frozen=True, slots=True)
class Revocations:
    """A list of the certificates that an authority has revoked. `until`: when the next is due; None where it is silent.

    A list that is out of date counts as none.
    """

    issuer: str
    count: int
    until: datetime | None


def read_revocations(file: Path) -> list[Revocations]:
    """Read every revocation list of a PEM file.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, or holds no list.
    """
    end = b"-----END X509 CRL-----"
    blocks = [block + end for block in file.read_bytes().split(end) if b"BEGIN X509 CRL" in block]
    if not blocks:
        raise ValueError("no revocation list")
    lists = [x509.load_pem_x509_crl(block[block.index(b"-----BEGIN") :]) for block in blocks]
    return [Revocations(one.issuer.rfc4514_string(), len(one), one.next_update_utc) for one in lists]


def bare_fingerprint(text: str) -> str:
    """Write a fingerprint as `openssl x509 -fingerprint` prints it, or with our prefix, without either's ornaments."""
    return text.strip().lower().removeprefix(FINGERPRINT).replace(":", "")


def _describe(one: x509.Certificate) -> Certificate:
    return Certificate(
        subject=one.subject.rfc4514_string(),
        names=tuple(dict.fromkeys(name.lower() for name in _names(one))),
        sha256=hashlib.sha256(one.public_bytes(Encoding.DER)).hexdigest(),
        not_after=one.not_valid_after_utc,
        is_elliptic=isinstance(one.public_key(), EllipticCurvePublicKey),
    )


def _names(one: x509.Certificate) -> Iterator[str]:
    try:
        others = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        others = x509.SubjectAlternativeName([])
    for other in others:
        if isinstance(other, (x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name, x509.IPAddress)):
            yield str(other.value)
    for attribute in one.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        yield str(attribute.value)


def _parts(name: str) -> list[str]:
    """Take a distinguished name apart, so that blanks after commas and the case of keys do not matter."""
    parts = (part.strip() for part in re.split(r"(?<!\\),", name))
    return [f"{key.strip().upper()}={value.strip()}" for key, _, value in (part.partition("=") for part in parts)]
