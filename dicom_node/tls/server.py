"""Our side of a TLS connection that a peer opens: which certificate it is shown, and whose it has to show."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from dicom_node.errors import ConfigurationError
from dicom_node.settings import KeyPair, ReceiveTls
from dicom_node.tls.certificate import Certificate, read_certificates, read_revocations
from dicom_node.tls.profile import heed, keep_profile, trust

_WANTED = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


def server_context(tls: ReceiveTls) -> ssl.SSLContext:
    """Make a context of the files that the settings name, as they are now.

    Of several certificates a peer is shown the one for the name that it asks for (SNI), and among those the one of the
    kind of key that it can use; without a name, or with one that is on none of them, the first of each kind.

    Raises
    ------
    ConfigurationError
        With a line for each file that cannot be used.
    """
    pairs, problems = _read(tls)
    if problems:
        raise ConfigurationError(problems)
    context = _context(tls, [pair for pair, _ in pairs])
    if len(pairs) > 1:
        by_name = {
            name: _context(tls, [pair for pair, one in pairs if one.serves(name)])
            for name in {name for _, one in pairs for name in one.names}
        }

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            if name is not None and (chosen := _named(name, by_name)) is not None:
                connection.context = chosen

        context.sni_callback = choose
    return context


def first_to_expire(tls: ReceiveTls) -> Certificate:
    """Find the certificate of ours that ends first.

    Raises
    ------
    OSError, ValueError
        If one cannot be read.
    """
    return min((read_certificates(pair.certificate)[0] for pair in tls.certificates), key=_end)


def files_of(tls: ReceiveTls) -> list[Path]:
    """List every file that a context is made of."""
    named = [path for pair in tls.certificates for path in (pair.certificate, pair.key)]
    return [path for path in (*named, tls.ca, tls.crl) if path is not None]


def _end(certificate: Certificate) -> datetime:
    return certificate.not_after


def _read(tls: ReceiveTls) -> tuple[list[tuple[KeyPair, Certificate]], list[str]]:
    pairs: list[tuple[KeyPair, Certificate]] = []
    problems: list[str] = []
    for pair in tls.certificates:
        key = pair.key or pair.certificate
        try:
            certificate = read_certificates(pair.certificate)[0]
            if key.stat().st_mode & stat.S_IROTH:
                problems.append(f"the key {key} can be read by everybody on this machine: chmod o-r")
                continue
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair)
        except (OSError, ValueError) as error:
            problems.append(_cannot(f"{pair.certificate} with the key in {key}", error))
        else:
            pairs.append((pair, certificate))
    if tls.ca is not None:
        try:
            trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls.ca)
        except OSError as error:
            problems.append(_cannot(f"{tls.ca}, the certificates that may vouch for peers,", error))
    if tls.crl is not None:
        try:
            read_revocations(tls.crl)
        except (OSError, ValueError) as error:
            problems.append(_cannot(f"{tls.crl}, the certificates that were revoked,", error))
    return pairs, problems


def _cannot(what: str, error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        mismatch = "KEY_VALUES_MISMATCH" in (error.reason or "")
        return f"{what} cannot be used: {'the key belongs to another certificate' if mismatch else error.reason}"
    if isinstance(error, OSError):
        return f"{error.filename or what} cannot be read: {error.strerror}"
    return f"{what} cannot be used: it holds no {'revocation list' if 'revoked' in what else 'certificate'} in PEM"


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    context.load_cert_chain(pair.certificate, pair.key, password=_no_password)


def _no_password() -> str:
    """Answer instead of OpenSSL's question on the terminal: nobody sits before a service."""
    return ""


def _context(tls: ReceiveTls, pairs: Sequence[KeyPair]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    keep_profile(context, tls.minimum)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    for pair in reversed(pairs):  # the last of each kind of key stays
        _load(context, pair)
    context.verify_mode = _WANTED[tls.client_certificates]
    if tls.ca is not None:
        trust(context, tls.ca)
    if tls.crl is not None:
        heed(context, tls.crl)
    return context


def _named(name: str, by_name: dict[str, ssl.SSLContext]) -> ssl.SSLContext | None:
    name = name.lower()
    return by_name.get(name) or by_name.get(f"*.{name.partition('.')[2]}")
