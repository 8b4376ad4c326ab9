"""DICOM over TLS (PS3.15 annex B): one profile for both sides, our certificates, and what those of peers say."""

from __future__ import annotations

from dicom_node.errors import ConfigurationError
from dicom_node.settings import Settings


def check_tls(settings: Settings) -> None:
    """Refuse settings whose files for TLS cannot be used.

    Raises
    ------
    ConfigurationError
        Naming file, key and reason.
    """
    if settings.receive.tls is None:
        return
    from dicom_node.tls.server import server_context  # it loads a library that only TLS needs

    try:
        server_context(settings.receive.tls)
    except ConfigurationError as error:
        raise ConfigurationError([f"{settings.file}: receive.tls: {problem}" for problem in error.problems]) from None
