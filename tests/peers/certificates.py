"""An authority of our own, and certificates that it vouches for."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, each in a file."""

    certificate: Path
    key: Path

    def as_setting(self) -> dict[str, str]:
        """As the settings take it."""
        return {"certificate": str(self.certificate), "key": str(self.key)}

    @property
    def sha256(self) -> str:
        """Its fingerprint, as OpenSSL prints it."""
        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).fingerprint(SHA256()).hex(":").upper()


class Authority:
    """Vouches for others. `file` is its own certificate."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        made = _begin(self._name, self._name, self._key, timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.file.write_bytes(made.sign(self._key, SHA256()).public_bytes(Encoding.PEM))

    def issue(
        self, name: str, *hosts: str, rsa_key: bool = False, ends_in: timedelta = timedelta(days=1), file: str = ""
    ) -> Identity:
        """Make a certificate for `name` (a common name), with `hosts` as alternative names."""
        key: Key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Hospital"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        made = _begin(subject, self._name, key, ends_in)
        if hosts:
            made = made.add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
        identity = Identity(self._folder / f"{file or name}.pem", self._folder / f"{file or name}.key")
        identity.certificate.write_bytes(made.sign(self._key, SHA256()).public_bytes(Encoding.PEM))
        identity.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        identity.key.chmod(0o600)
        return identity

    def revoke(self, *revoked: Identity, ended: bool = False) -> Path:
        """Write the list of the certificates that it has revoked; `ended` makes it one that is out of date."""
        now = datetime.now(UTC)
        made = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        made = made.last_update(now - timedelta(days=2)).next_update(now + timedelta(days=-1 if ended else 1))
        for one in revoked:
            number = x509.load_pem_x509_certificate(one.certificate.read_bytes()).serial_number
            gone = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now - timedelta(days=1))
            made = made.add_revoked_certificate(gone.build())
        file = self._folder / "revoked.pem"
        file.write_bytes(made.sign(self._key, SHA256()).public_bytes(Encoding.PEM))
        return file


def _begin(subject: x509.Name, issuer: x509.Name, key: Key, ends_in: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + ends_in) - timedelta(days=1))
        .not_valid_after(now + ends_in)
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
