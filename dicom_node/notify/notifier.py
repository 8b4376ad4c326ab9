"""Follows the audit trail, writes what is to be told into the outbox, and sends it.

Both under one lease, so one process does it for all. What an event makes to be told is written in the transaction that
notes it as taken: none is lost and none is written twice. Sending is at least once: a process that dies after the
receiver took a notification and before it is noted sends it again, under the same id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Engine

from dicom_node.db import outbox
from dicom_node.db.audit import read_chained
from dicom_node.db.chain import head
from dicom_node.db.engine import reading, transaction, utc_now
from dicom_node.db.outbox import Notification
from dicom_node.db.sweeps import advance, held, note_end, start_at
from dicom_node.domain.job import retry_delay_s
from dicom_node.errors import NotificationError
from dicom_node.notify.mail import send_mail
from dicom_node.notify.occasions import in_words, of_backlog, of_event
from dicom_node.notify.webhook import send_webhook
from dicom_node.settings import Notify, NotifyChannel
from dicom_node.spool import Spool

SWEEP = "notify"
AT_ONCE = 50
LEASE_S = 600.0
FIRST_RETRY_S, LONGEST_RETRY_S = 30.0, 3600.0
GIVE_UP_AFTER = timedelta(days=2)

SENDERS: dict[str, Callable[[NotifyChannel, Notification], None]] = {"webhook": send_webhook, "mail": send_mail}

_log = logging.getLogger(__name__)


class Notifier:
    """Tells whom the settings name. What happened before they first named anybody is not told."""

    def __init__(self, engine: Engine, settings: Notify, node: str, holder: str, spool: Spool) -> None:
        self._engine = engine
        self._spool = spool
        self._settings = settings
        self._node = node
        self._holder = holder
        with transaction(engine) as tx:
            start_at(tx, SWEEP, head(tx).no)

    def step(self) -> None:
        """Write what is new, then send what is due."""
        with held(self._engine, SWEEP, self._holder, LEASE_S) as position:
            if position is None:
                return
            while (position := self._write_some(position)) is not None:
                pass
            with transaction(self._engine) as tx:
                for new in of_backlog(tx, utc_now(), self._settings.rules, self._node):
                    outbox.put(tx, new)
            with reading(self._engine) as tx:
                waiting = outbox.due(tx, utc_now(), AT_ONCE)
            for one in waiting:
                self._send(one)
            with transaction(self._engine) as tx:
                note_end(tx, SWEEP)

    def _write_some(self, position: int) -> int | None:
        with reading(self._engine) as tx:
            rows = read_chained(tx, position, AT_ONCE)
            noted = [one for row in rows if (one := of_event(tx, row, self._settings.rules)) is not None]
        if not rows:
            return None
        told = [new for one in noted for new in in_words(one, self._node, self._spool)]  # reports are files
        last: int = rows[-1].chain_no
        with transaction(self._engine) as tx:
            if not advance(tx, SWEEP, self._holder, last):
                return None
            for new in told:
                outbox.put(tx, new)
        return last

    def _send(self, one: Notification) -> None:
        error = self._try(one)
        if error is None:
            with transaction(self._engine) as tx:
                outbox.sent(tx, one)
            return
        _log.warning("notification %s to %s: %s", one.id, one.channel, error)
        again = error.retry and utc_now() - one.created_at < GIVE_UP_AFTER
        delay_s = retry_delay_s(one.attempt, first_s=FIRST_RETRY_S, longest_s=LONGEST_RETRY_S) if again else None
        with transaction(self._engine) as tx:
            outbox.not_sent(tx, one, str(error), delay_s)

    def _try(self, one: Notification) -> NotificationError | None:
        channel = self._settings.channels.get(one.channel)
        if channel is None:
            return NotificationError(f"the settings name no channel {one.channel}", retry=False)
        try:
            SENDERS[channel.kind](channel, one)
        except NotificationError as error:
            return error
        except Exception as error:  # noqa: BLE001 - nobody foresaw it: it may not stop the others, and may pass
            _log.exception("notification %s to %s failed unexpectedly", one.id, one.channel)
            return NotificationError(f"unexpected {type(error).__name__}; the log has more", retry=True)
        return None
