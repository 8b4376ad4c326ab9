"""HTTP requests to a DICOMweb service, with authentication; what went wrong, in plain words."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as TooLate
from urllib3.util import Timeout, make_headers

from dicom_node import __version__
from dicom_node.domain.delivery import StowDestination
from dicom_node.errors import DeliveryError

JSON = "application/dicom+json"
_PASSING = {401, 403, 404, 407, 408, 423, 425, 429}  # an administrator or time can change these; 5xx likewise
_ADVICE = {
    401: "; are user name, password or token right?",
    403: "; may this user store and search?",
    404: "; is the URL right?",
    413: "; the server allows no request of this size",
}


class Service:
    """The DICOMweb service of a destination."""

    def __init__(self, destination: StowDestination, pool: urllib3.PoolManager) -> None:
        self._destination = destination
        self._pool = pool

    def request(
        self,
        method: str,
        path: str,
        *,
        allowed_s: float,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Iterable[bytes] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request and read the whole answer, whatever its status.

        Parameters
        ----------
        allowed_s : float
            How long the answer may take.

        Raises
        ------
        DeliveryError
            When there is no answer, or a redirection.
        """
        name, url = self._destination.name, self._destination.url
        try:
            answer = self._pool.request(
                method,
                f"{url}{path}",
                fields=fields,
                headers={"Accept": JSON, "User-Agent": f"dicom-node/{__version__}", **self._who(), **(headers or {})},
                body=body,
                timeout=Timeout(connect=self._destination.timeout_s, read=allowed_s),
            )
        except SSLError as error:
            raise DeliveryError(f"no secure connection to {name}: {_words(error)}", retry=True) from error
        except NewConnectionError as error:  # which counts as one that is too late, too
            raise DeliveryError(f"no connection to {name} ({url}): {_words(error)}", retry=True) from error
        except TooLate as error:
            raise DeliveryError(f"{name} ({url}) did not answer in time", retry=True) from error
        except (HTTPError, OSError) as error:
            raise DeliveryError(f"no answer from {name} ({url}): {_words(error)}", retry=True) from error
        if 300 <= answer.status < 400:
            where = answer.headers.get("Location", "elsewhere")
            raise DeliveryError(f"{name} redirects to {where}: use that URL", retry=False, status=None)
        return answer

    def refused(self, answer: urllib3.BaseHTTPResponse, what: str) -> DeliveryError:
        """Say that the server refused something as a whole."""
        detail = answer.data[:200].decode("utf-8", "replace").split("\n")[0].strip()
        said = f": {detail}" if detail and not detail.startswith(("<", "{", "[")) else ""
        return DeliveryError(
            f"{self._destination.name} answered {what} with {answer.status} {answer.reason or ''}".rstrip()
            + said
            + _ADVICE.get(answer.status, ""),
            retry=answer.status in _PASSING or answer.status >= 500,
        )

    def _who(self) -> dict[str, str]:
        """Say who we are. A token in a file is read each time, since somebody renews it."""
        destination = self._destination
        if destination.username:
            return dict(make_headers(basic_auth=f"{destination.username}:{destination.password}"))
        token = destination.token
        if destination.token_file is not None:
            try:
                token = destination.token_file.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = f"{destination.name}: the token in {destination.token_file} cannot be read"
                raise DeliveryError(reason, retry=True) from error
        return {"Authorization": f"Bearer {token}"} if token else {}


@contextmanager
def service(destination: StowDestination) -> Iterator[Service]:
    """Open the service of a destination for the length of a block.

    Raises
    ------
    DeliveryError
        When a certificate of ours cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=destination.ca)  # TLS 1.2 at least, the server's name is checked
        if destination.certificate is not None:
            context.load_cert_chain(destination.certificate, destination.key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise DeliveryError(f"{destination.name}: a certificate cannot be used: {error}", retry=True) from error
    with urllib3.PoolManager(1, ssl_context=context, retries=False) as pool:
        yield Service(destination, pool)


def _no_password() -> str:
    raise ValueError("the key is encrypted; the node needs one that is not")


def _words(error: Exception) -> str:
    cause: Any = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return str(getattr(cause, "strerror", None) or cause)
