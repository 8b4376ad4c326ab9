"""Requests that may come twice: the second gets the answer of the first, and nothing is done again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, delete, select, update

from dicom_node.db import tables as t
from dicom_node.db.engine import insert_into, utc_now
from dicom_node.errors import ConflictError

KEPT = timedelta(hours=24)
_k = t.idempotency_key.c


def begin(tx: Connection, account_id: str, key: str, request: str) -> Any | None:
    """Take a key. Whoever comes second waits here until the first has committed or given up.

    Parameters
    ----------
    request : str
        Digest of what is asked for.

    Returns
    -------
    object or None
        What was answered before; None if it is asked for the first time, and `finish` has to be called.

    Raises
    ------
    ConflictError
        When the key was used for another request.
    """
    now = utc_now()
    tx.execute(delete(t.idempotency_key).where(_k.at < now - KEPT))
    row = {"account_id": account_id, "key": key, "request": request, "at": now}
    if tx.execute(insert_into(tx, t.idempotency_key).values(row).on_conflict_do_nothing()).rowcount == 1:
        return None
    found = tx.execute(select(_k.request, _k.answer).where(_k.account_id == account_id, _k.key == key)).one()
    if found.request != request:
        raise ConflictError("this Idempotency-Key was used for another request in the last 24 hours")
    return found.answer


def finish(tx: Connection, account_id: str, key: str, answer: Any) -> None:
    """Keep what is answered, in the transaction that did it."""
    tx.execute(update(t.idempotency_key).where(_k.account_id == account_id, _k.key == key).values(answer=answer))
