"""People who may sign in, their sessions and tokens. Secrets never come here: only their digests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from dicom_node.db import tables as t
from dicom_node.db.audit import record
from dicom_node.db.engine import utc_now
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.domain.people import Account, Right, Role, Visitor
from dicom_node.errors import ConflictError, NotFoundError

_a, _s, _t = t.account.c, t.web_session.c, t.api_token.c
_ACTIVE = "active"


def add_account(tx: Connection, name: str, role: Role, password_hash: str, *, actor: str) -> Account:
    """Write a new account.

    Raises
    ------
    ConflictError
        When the name is taken.
    """
    if find_account(tx, name) is not None:
        raise ConflictError(f"there is an account {name} already")
    account = Account(str(uuid4()), name, role, password_hash, True)
    now = utc_now()
    tx.execute(
        insert(t.account).values(
            id=account.id,
            name=name,
            role=role.value,
            password_hash=password_hash,
            state=_ACTIVE,
            created_at=now,
            password_at=now,
        )
    )
    record(tx, AuditEvent(Event.ACCOUNT_ADDED, actor=actor, detail={"account": name, "role": role.value}))
    return account


def find_account(tx: Connection, name: str) -> Account | None:
    """Read an account by its name."""
    row = tx.execute(select(t.account).where(_a.name == name)).one_or_none()
    return _account(row) if row else None


def list_accounts(tx: Connection) -> Sequence[Row[Any]]:
    """Read all accounts by name, with the number of sessions that are open and tokens that are valid."""
    valid = (_t.account_id == _a.id, _t.revoked_at.is_(None), _unexpired(utc_now()))
    sessions = select(func.count()).select_from(t.web_session).where(_s.account_id == _a.id).scalar_subquery()
    tokens = select(func.count()).select_from(t.api_token).where(*valid).scalar_subquery()
    return tx.execute(select(t.account, sessions.label("sessions"), tokens.label("tokens")).order_by(_a.name)).all()


def change_account(
    tx: Connection,
    name: str,
    *,
    actor: str,
    role: Role | None = None,
    active: bool | None = None,
    password_hash: str | None = None,
    keep_session: str = "",
) -> None:
    """Change an account. A new password or a disabled account ends its sessions, but for `keep_session`.

    Raises
    ------
    NotFoundError
        When there is no such account.
    ConflictError
        When the node would be left without an active admin.
    """
    account = find_account(tx, name)
    if account is None:
        raise NotFoundError(f"there is no account {name}")
    values: dict[str, Any] = {}
    if role is not None:
        values["role"] = role.value
    if active is not None:
        values["state"] = _ACTIVE if active else "disabled"
    if password_hash is not None:
        values |= {"password_hash": password_hash, "password_at": utc_now()}
    tx.execute(update(t.account).where(_a.id == account.id).values(**values))
    if account.role is Role.ADMIN and account.active and not _has_admin(tx):
        raise ConflictError(f"{name} is the last active admin; make another one first")
    if password_hash is not None or active is False:
        tx.execute(delete(t.web_session).where(_s.account_id == account.id, _s.id != keep_session))
    told = {key: value for key, value in values.items() if key in ("role", "state")}
    told |= {"password": "changed"} if password_hash is not None else {}
    record(tx, AuditEvent(Event.ACCOUNT_CHANGED, actor=actor, detail={"account": name, **told}))


def keep_rehashed(tx: Connection, account_id: str, password_hash: str) -> None:
    """Keep the same password under a hash of today's parameters."""
    tx.execute(update(t.account).where(_a.id == account_id).values(password_hash=password_hash))


def sign_in_from_outside(tx: Connection, name: str, role: Role, subject: str, *, actor: str) -> Account:
    """Find or make the account of somebody whom an OpenID provider vouches for; its role is what the provider says now.

    Raises
    ------
    ConflictError
        When the name belongs to somebody else here, or the account is disabled.
    """
    row = tx.execute(select(t.account).where(_a.subject == subject)).one_or_none()
    if row is None:
        if find_account(tx, name) is not None:
            raise ConflictError(f"The name {name} belongs to another account here. Ask the node's administrator.")
        made = add_account(tx, name, role, "", actor=actor)
        tx.execute(update(t.account).where(_a.id == made.id).values(subject=subject))
        return made
    if row.state != _ACTIVE:
        raise ConflictError(f"The account {row.name} is disabled here. Ask the node's administrator.")
    if row.role != role.value:
        tx.execute(update(t.account).where(_a.id == row.id).values(role=role.value))
        record(tx, AuditEvent(Event.ACCOUNT_CHANGED, actor=actor, detail={"account": row.name, "role": role.value}))
    return Account(row.id, row.name, role, row.password_hash, True)


def open_session(
    tx: Connection, account: Account, digest: str, csrf: str, address: str, longest_s: float, by: str = ""
) -> None:
    """Begin a session, and forget those that are over. `by`: who vouched, when it was not a password of ours."""
    now = utc_now()
    tx.execute(delete(t.web_session).where(_s.created_at < now - timedelta(seconds=longest_s)))
    row = {"id": digest, "account_id": account.id, "csrf": csrf, "address": address}
    tx.execute(insert(t.web_session).values(**row, created_at=now, seen_at=now))
    tx.execute(update(t.account).where(_a.id == account.id).values(signed_in_at=now))
    told = {"address": address, **({"by": by} if by else {})}
    record(tx, AuditEvent(Event.LOGIN, actor=f"user {account.name}", detail=told))


def find_session(tx: Connection, digest: str, idle_s: float, longest_s: float) -> tuple[Visitor, datetime] | None:
    """Find who holds a session that is not over, and when it was last seen."""
    now = utc_now()
    alive = (
        _s.id == digest,
        _s.seen_at > now - timedelta(seconds=idle_s),
        _s.created_at > now - timedelta(seconds=longest_s),
        _a.state == _ACTIVE,
    )
    columns = (_a.id, _a.name, _a.role, _s.csrf, _s.seen_at)
    row = tx.execute(select(*columns).join(t.account, _a.id == _s.account_id).where(*alive)).one_or_none()
    if row is None:
        return None
    role = Role(row.role)
    return Visitor(row.id, row.name, role, role.rights, session=digest, csrf=row.csrf), row.seen_at


def touch_session(tx: Connection, digest: str) -> None:
    """Say that the session is in use."""
    tx.execute(update(t.web_session).where(_s.id == digest).values(seen_at=utc_now()))


def close_session(tx: Connection, visitor: Visitor) -> None:
    """End a session."""
    tx.execute(delete(t.web_session).where(_s.id == visitor.session))
    record(tx, AuditEvent(Event.LOGOUT, actor=visitor.actor))


def add_token(
    tx: Connection, account_id: str, name: str, digest: str, rights: Sequence[Right], expires_at: datetime | None,
    *, actor: str,
) -> str:  # fmt: skip
    """Write a token; its id."""
    token = str(uuid4())
    row = {"id": token, "account_id": account_id, "name": name, "digest": digest, "expires_at": expires_at}
    tx.execute(insert(t.api_token).values(**row, rights=[r.value for r in rights], created_at=utc_now()))
    told = {"token": token, "rights": [r.value for r in rights], "expires": expires_at and expires_at.isoformat()}
    record(tx, AuditEvent(Event.TOKEN_ADDED, actor=actor, detail=told))
    return token


def list_tokens(tx: Connection, account_id: str = "") -> Sequence[Row[Any]]:
    """Read the tokens of one account, or of all, newest first, with the names of their owners."""
    mine = [_t.account_id == account_id] if account_id else []
    owned = select(t.api_token, _a.name.label("owner")).join(t.account, _a.id == _t.account_id)
    return tx.execute(owned.where(*mine).order_by(_t.created_at.desc())).all()


def find_token(tx: Connection, digest: str) -> tuple[Visitor, str, datetime | None] | None:
    """Find who a valid token speaks for; with the token's id and when it was last used."""
    columns = (_t.id, _t.account_id, _t.name, _t.rights, _t.used_at, _a.name.label("owner"), _a.role)
    valid = (_t.digest == digest, _t.revoked_at.is_(None), _unexpired(utc_now()), _a.state == _ACTIVE)
    row = tx.execute(select(*columns).join(t.account, _a.id == _t.account_id).where(*valid)).one_or_none()
    if row is None:
        return None
    role = Role(row.role)
    rights = role.rights & {Right(r) for r in row.rights if r in {*Right}}
    return Visitor(row.account_id, row.owner, role, rights, token=row.name), row.id, row.used_at


def touch_token(tx: Connection, token_id: str) -> None:
    """Say that the token is in use."""
    tx.execute(update(t.api_token).where(_t.id == token_id).values(used_at=utc_now()))


def revoke_token(tx: Connection, token_id: str, *, actor: str, account_id: str = "") -> None:
    """Make a token worthless; with `account_id` only if it is that account's.

    Raises
    ------
    NotFoundError
        When there is no such token that is still valid.
    """
    mine = [_t.account_id == account_id] if account_id else []
    revoked = update(t.api_token).where(_t.id == token_id, _t.revoked_at.is_(None), *mine).values(revoked_at=utc_now())
    if tx.execute(revoked).rowcount != 1:
        raise NotFoundError("there is no such token")
    record(tx, AuditEvent(Event.TOKEN_REVOKED, actor=actor, detail={"token": token_id}))


def count_failures(tx: Connection, name: str, address: str, within_s: float) -> tuple[int, int, int]:
    """Count sign-ins that failed lately: of this name from this address, of this name, from this address."""
    f = t.login_failure.c
    lately = f.at > utc_now() - timedelta(seconds=within_s)
    rows = tx.execute(select(f.name, f.address).where(lately, or_(f.name == name, f.address == address))).all()
    both = sum(r.name == name and r.address == address for r in rows)
    return both, sum(r.name == name for r in rows), sum(r.address == address for r in rows)


def record_failure(tx: Connection, name: str, address: str, account: str, forget_after_s: float) -> None:
    """Write down a sign-in that failed; `account` is the name if there is such an account, else empty."""
    now = utc_now()
    tx.execute(delete(t.login_failure).where(t.login_failure.c.at < now - timedelta(seconds=forget_after_s)))
    tx.execute(insert(t.login_failure).values(at=now, name=name, address=address))
    told = {"address": address, "account": account or "unknown"}
    record(tx, AuditEvent(Event.LOGIN_FAILED, actor="nobody", detail=told))


def _unexpired(now: datetime) -> Any:
    return or_(_t.expires_at.is_(None), _t.expires_at > now)


def _has_admin(tx: Connection) -> bool:
    admins = select(_a.id).where(_a.role == Role.ADMIN.value, _a.state == _ACTIVE)
    return tx.execute(admins.limit(1)).first() is not None


def _account(row: Row[Any]) -> Account:
    return Account(row.id, row.name, Role(row.role), row.password_hash, row.state == _ACTIVE)
