"""Our side of a TLS connection that we open."""

from __future__ import annotations

import ssl

from dicom_node.domain.delivery import TlsClient
from dicom_node.errors import ConfigurationError
from dicom_node.tls.profile import keep_profile, trust, why


def client_context(tls: TlsClient) -> ssl.SSLContext:
    """Make a context of the files as they are now, so that renewed ones count from the next connection.

    Raises
    ------
    ConfigurationError
        If a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    keep_profile(context, tls.minimum)
    try:
        if tls.accepts_any:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            trust(context, tls.ca)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except OSError as error:
        files = ", ".join(str(path) for path in (tls.ca, tls.certificate, tls.key) if path is not None)
        raise ConfigurationError(f"the files for TLS cannot be used ({files}): {why(error)}") from None
    return context
