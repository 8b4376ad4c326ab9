"""A notification as a signed HTTP POST, in the form of Standard Webhooks (standardwebhooks.com, version 1)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import ssl
from datetime import UTC, datetime
from urllib.parse import SplitResult, urlsplit

from dicom_node.db.outbox import Notification
from dicom_node.errors import NotificationError
from dicom_node.settings import NotifyChannel

_SECRET = "whsec_"  # noqa: S105 - the prefix of one


def send_webhook(channel: NotifyChannel, one: Notification, at: datetime | None = None) -> None:
    """POST a notification; the receiver has to answer with 2xx.

    Redirects are not followed: what is signed goes to whom the settings name.

    Raises
    ------
    NotificationError
        When it was not taken; whether another try can help is in `retry`.
    """
    url = urlsplit(channel.url)
    body, headers = signed(channel.secret, one, at or datetime.now(UTC))
    connection = _connection(channel, url)
    try:
        connection.request("POST", (url.path or "/") + (f"?{url.query}" if url.query else ""), body, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise NotificationError(f"{url.hostname} cannot be reached: {error}", retry=True) from error
    finally:
        connection.close()
    if not 200 <= status < 300:
        retry = status >= 500 or status in (408, 409, 425, 429)
        raise NotificationError(f"{url.hostname} answered with HTTP status {status}", retry=retry)


def _connection(channel: NotifyChannel, url: SplitResult) -> http.client.HTTPConnection:
    assert url.hostname is not None
    if url.scheme == "http":
        return http.client.HTTPConnection(url.hostname, url.port, timeout=channel.timeout_s)
    context = ssl.create_default_context(cafile=channel.ca)
    return http.client.HTTPSConnection(url.hostname, url.port, timeout=channel.timeout_s, context=context)


def signed(secret: str, one: Notification, at: datetime) -> tuple[bytes, dict[str, str]]:
    """Write body and headers. The id is the same at each try, so that a receiver knows what it has already."""
    payload = {
        "type": f"dicom-node.{one.body['on'].replace(' ', '_')}",
        "timestamp": one.created_at.isoformat(timespec="milliseconds"),
        "data": {"subject": one.subject, **one.body},
    }
    body = json.dumps(payload, ensure_ascii=False).encode()
    stamp = str(int(at.timestamp()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "dicom-node",
        "webhook-id": one.id,
        "webhook-timestamp": stamp,
    }
    if secret:
        digest = hmac.new(_key(secret), f"{one.id}.{stamp}.".encode() + body, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return body, headers


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_SECRET)) if secret.startswith(_SECRET) else secret.encode()
