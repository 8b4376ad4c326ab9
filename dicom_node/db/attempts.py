"""Sign-ins that are under way at the hospital's OpenID provider. Each is taken once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, delete, func, insert, select

from dicom_node.db import tables as t
from dicom_node.db.engine import utc_now

LONGEST_S = 600
MOST = 10_000
_l = t.login_attempt.c


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sign-in: digests of its state and of the browser's cookie, and what the token has to fit."""

    state: str
    browser: str
    nonce: str
    verifier: str
    target: str


def begin(tx: Connection, attempt: Attempt) -> bool:
    """Remember an attempt; False when too many are under way. Those that are over are forgotten."""
    now = utc_now()
    tx.execute(delete(t.login_attempt).where(_l.at < now - timedelta(seconds=LONGEST_S)))
    if (tx.scalar(select(func.count()).select_from(t.login_attempt)) or 0) >= MOST:
        return False
    row = {"state": attempt.state, "browser": attempt.browser, "nonce": attempt.nonce, "verifier": attempt.verifier}
    tx.execute(insert(t.login_attempt).values(**row, target=attempt.target[:2000], at=now))
    return True


def take(tx: Connection, state: str, browser: str) -> Attempt | None:
    """Take an attempt, so that nobody can take it again; None when it is not there, is over or is another browser's."""
    young = _l.at > utc_now() - timedelta(seconds=LONGEST_S)
    mine = delete(t.login_attempt).where(_l.state == state, _l.browser == browser, young)
    row = tx.execute(mine.returning(_l.state, _l.browser, _l.nonce, _l.verifier, _l.target)).one_or_none()
    return Attempt(*row) if row else None
