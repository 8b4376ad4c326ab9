"""A notification as an e-mail, handed to the hospital's mail server."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import format_datetime

from dicom_node.db.outbox import Notification
from dicom_node.errors import NotificationError
from dicom_node.settings import NotifyChannel


def send_mail(channel: NotifyChannel, one: Notification) -> None:
    """Hand a mail over.

    Raises
    ------
    NotificationError
        When the server did not take it for every recipient; whether another try can help is in `retry`.
    """
    try:
        with _server(channel) as server:
            if channel.user:
                server.login(channel.user, channel.password)
            refused = server.send_message(_message(channel, one))
    except smtplib.SMTPResponseException as error:
        retry = 400 <= error.smtp_code < 500
        text = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        raise NotificationError(f"{channel.host} answered {error.smtp_code} {text}", retry=retry) from error
    except smtplib.SMTPRecipientsRefused as error:
        raise NotificationError(f"{channel.host} refused every recipient", retry=_may_pass(error.recipients)) from error
    except (OSError, smtplib.SMTPException) as error:
        raise NotificationError(f"{channel.host} cannot be reached: {error}", retry=True) from error
    if refused:
        raise NotificationError(f"{channel.host} refused {', '.join(sorted(refused))}", retry=False)


def _server(channel: NotifyChannel) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=channel.ca)
    port = channel.port or {"tls": 465, "starttls": 587, "none": 25}[channel.tls]
    if channel.tls == "tls":
        return smtplib.SMTP_SSL(channel.host, port, timeout=channel.timeout_s, context=context)
    server = smtplib.SMTP(channel.host, port, timeout=channel.timeout_s)
    try:
        if channel.tls == "starttls":
            server.starttls(context=context)
    except BaseException:
        server.close()
        raise
    return server


def _message(channel: NotifyChannel, one: Notification) -> EmailMessage:
    message = EmailMessage()
    message["From"] = channel.sender
    message["To"] = ", ".join(channel.recipients)
    message["Subject"] = " ".join(one.subject.split())  # a line break would begin another header
    message["Date"] = format_datetime(one.created_at)
    message["Message-ID"] = f"<{one.id}@dicom-node>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(one.body["text"])
    return message


def _may_pass(recipients: dict[str, tuple[int, bytes]]) -> bool:
    return any(400 <= code < 500 for code, _ in recipients.values())
