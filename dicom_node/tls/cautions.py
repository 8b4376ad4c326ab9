"""What settings allow that somebody should know of: it works, and is less safe than it looks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from dicom_node.errors import ConfigurationError
from dicom_node.settings import DimseSettings, Settings, is_loopback
from dicom_node.tls import check_tls

SOON = timedelta(days=30)


def cautions(settings: Settings) -> Iterator[str]:
    """Say what an administrator should know of the ways in and out, one sentence for each."""
    receive = settings.receive
    is_mutual = receive.tls is not None and receive.tls.client_certificates == "required"
    if receive.accept_any_peer and not is_loopback(receive.address) and (receive.has_clear_text or not is_mutual):
        yield f"receive.accept_any_peer: whoever reaches {receive.address} may send, and shows no certificate"
    if receive.tls is not None and receive.has_clear_text and not is_loopback(receive.address):
        yield f"receive.clear_text: port {receive.port} speaks DICOM without TLS beside port {receive.tls.port} with it"
    if receive.passcodes_in_clear and any(peer.user for peer in receive.peers) and receive.has_clear_text:
        yield "receive.passcodes_in_clear: passcodes of peers cross the network in clear text"
    for name, destination in settings.destinations.items():
        if isinstance(destination, DimseSettings) and destination.passcode_in_clear and destination.tls is None:
            yield f"destinations.{name}.passcode_in_clear: its passcode crosses the network in clear text"
        if isinstance(destination, DimseSettings) and destination.tls and destination.tls.accept_any_certificate:
            yield f"destinations.{name}.tls.accept_any_certificate: results are encrypted, for whoever answers"
    for peer in receive.peers:
        if peer.tls and peer.tls.accept_any_certificate:
            yield f"receive.peers.tls.accept_any_certificate: reports to {peer.ae_title} are for whoever answers"
    if trouble := certificate_trouble(settings):
        yield trouble


def certificate_trouble(settings: Settings) -> str:
    """Say what is wrong with the files for TLS as they are now, or will be soon; empty where nothing is."""
    tls = settings.receive.tls
    if tls is None:
        return ""
    from dicom_node.tls.certificate import read_revocations  # it loads a library that only TLS needs
    from dicom_node.tls.server import first_to_expire

    try:
        check_tls(settings)
        first = first_to_expire(tls)
        lists = read_revocations(tls.crl) if tls.crl else []
    except ConfigurationError as error:
        return f"{error.problems[0]}; receivers that run go on with the files from before"
    except (OSError, ValueError):  # it went in this moment
        return "receive.tls: the files are being changed"
    now = datetime.now(UTC)
    if late := next((one for one in lists if one.until is not None and one.until <= now), None):
        return f"receive.tls.crl: the list of {late.issuer} is out of date: no certificate that it vouches for is taken"
    if first.not_after > now + SOON:
        return ""
    tense = "has ended on" if first.not_after <= now else "ends on"
    return f"receive.tls: the certificate of {first.subject} {tense} {first.not_after:%Y-%m-%d}: peers refuse it then"
