"""What is written down of who looked at what."""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import Any

from fastapi import Request

from dicom_node.admin.desk import desk_of
from dicom_node.admin.gate import visitor_of
from dicom_node.db.audit import record
from dicom_node.domain.audit import AuditEvent, Event

_SAME_FOR_S = 300.0
_MOST_KEPT = 10_000


class Lately:
    """What was written down in the last minutes: a stack of 300 images is one look, not 300."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._lock = Lock()

    def is_new(self, *what: str) -> bool:
        """Whether it was not there in the last five minutes; from now on it was."""
        now = time.monotonic()
        with self._lock:
            before = self._seen.pop(what, -_SAME_FOR_S)
            self._seen[what] = before if now - before < _SAME_FOR_S else now
            while len(self._seen) > _MOST_KEPT:
                self._seen.popitem(last=False)
        return now - before >= _SAME_FOR_S

    def forget(self, *what: str) -> None:
        """Take back that it was written down: it could not be."""
        with self._lock:
            self._seen.pop(what, None)


def viewed(
    request: Request, what: str, *, series_id: str | None = None, job_id: str | None = None, **told: Any
) -> None:
    """Write down that a page with patient data was opened.

    Parameters
    ----------
    what : str
        Which page, in a word.
    told
        UIDs and counts that say which patients it was about; never names.
    """
    event = AuditEvent(
        Event.VIEWED,
        series_id=series_id,
        job_id=job_id,
        actor=visitor_of(request).actor,
        detail={"page": what, **told},
    )
    with desk_of(request).writing() as tx:
        record(tx, event)


def given_out(
    request: Request, what: str, uid: str, *, series_id: str | None = None, job_id: str | None = None
) -> None:
    """Write down that images or objects were fetched; the same once in five minutes."""
    lately: Lately = request.app.state.lately
    actor = visitor_of(request).actor
    if lately.is_new(actor, what, uid):
        told = {"what": what, "uid": uid}
        try:
            with desk_of(request).writing() as tx:
                record(tx, AuditEvent(Event.SENT_OUT, series_id=series_id, job_id=job_id, actor=actor, detail=told))
        except BaseException:
            lately.forget(actor, what, uid)
            raise
