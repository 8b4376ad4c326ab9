"""The maintaining process: what has to be done now and then, each thing in a thread of its own.

Several may run, on one machine or on many: each thing is done by one of them at a time.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from sqlalchemy import Engine

from dicom_node.db import chain
from dicom_node.db.engine import is_away, reading, transaction
from dicom_node.db.maintenance import refresh_statistics
from dicom_node.db.nodes import this_host
from dicom_node.db.sweeps import note_end
from dicom_node.engine import Enqueuer
from dicom_node.loop import run_every
from dicom_node.notify.dicom_audit import Reporter
from dicom_node.notify.notifier import Notifier
from dicom_node.notify.syslog import AuditSyslog
from dicom_node.notify.traces import Traces
from dicom_node.retain import Retention
from dicom_node.settings import Settings
from dicom_node.spool import Spool

TELL_HEAD_EVERY_S = 3600.0
WATCH_DISK_EVERY_S = 30.0
STATISTICS_EVERY_S = 24 * 3600.0

_log = logging.getLogger(__name__)


class Maintainer:
    """Chains the audit trail, sends it on, notifies, deletes what its time is over, refreshes statistics."""

    def __init__(self, settings: Settings, engine: Engine, enqueuer: Enqueuer, spool: Spool, slot: int) -> None:
        self._settings = settings
        self._engine = engine
        self._spool = spool
        self._holder = f"{this_host()}/maintain-{slot}/{os.getpid()}"
        self._retention = Retention(settings.retain, engine, enqueuer, spool, self._holder)

    def run(self, stop: threading.Event) -> None:
        """Do everything at its pace until `stop`."""
        audit = self._settings.audit
        loops: list[tuple[str, Callable[[], object], float]] = [
            ("chain", self.chain, audit.chain_every_s),
            ("head", self.tell_head, TELL_HEAD_EVERY_S),
            ("retention", self._retention.sweep, self._settings.retain.every_s),
            ("disk", self._retention.watch_disk, WATCH_DISK_EVERY_S),
            ("statistics", self.refresh_statistics, STATISTICS_EVERY_S),
        ]
        if audit.syslog:
            loops.append(("syslog", self._syslog().step, audit.chain_every_s))
        if self._settings.trace.endpoint:
            traces = Traces(self._engine, self._settings.trace, self._settings.node.name, this_host(), self._holder)
            loops.append(("traces", traces.step, self._settings.trace.every_s))
        if self._settings.notify.rules:
            names = (self._settings.node.name, self._holder)
            notifier = Notifier(self._engine, self._settings.notify, *names, self._spool)
            loops.append(("notify", notifier.step, audit.chain_every_s))
        threads = [
            threading.Thread(target=run_every, args=(_tolerant(step), seconds, stop), name=name, daemon=True)
            for name, step, seconds in loops
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        for thread in threads:
            thread.join(timeout=10)

    def chain(self) -> int:
        """Give every audit event that has no place in the chain its place; how many there were."""
        linked = 0
        while True:
            with transaction(self._engine) as tx:
                some = chain.extend(tx)
                if some < chain.AT_ONCE:
                    note_end(tx, "chain")
            linked += some
            if some < chain.AT_ONCE:
                return linked

    def tell_head(self) -> None:
        """Write the head of the chain where the database cannot change it."""
        with reading(self._engine) as tx:
            head = chain.head(tx)
        _log.info("audit chain: head %s", head)

    def refresh_statistics(self) -> None:
        """Let the database count what it has, so that it goes on choosing the right index."""
        with transaction(self._engine) as tx:
            refresh_statistics(tx)

    def _syslog(self) -> AuditSyslog:
        node = self._settings.node
        reporter = Reporter(node.name, node.institution, node.ae_title, this_host())
        return AuditSyslog(self._engine, self._settings.audit, reporter, self._holder)


def _tolerant(step: Callable[[], object]) -> Callable[[], None]:
    """Let a step pass over a database that is away, without a traceback each time."""

    def tried() -> None:
        try:
            step()
        except Exception as error:
            if not is_away(error):
                raise
            _log.warning("the database is away: %s", type(error).__name__)

    return tried
