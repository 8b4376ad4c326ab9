"""Passwords and secrets: argon2id for what people choose, SHA-256 for what we draw by lot."""

from __future__ import annotations

import hashlib
import secrets
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

TOKEN_PREFIX = "dn_"  # noqa: S105 - how a token begins, so that scanners of leaked secrets know it

_HASHER = PasswordHasher()  # RFC 9106, the low-memory choice: 3 passes over 64 MiB
_AT_ONCE = BoundedSemaphore(2)  # each takes those 64 MiB: a burst of sign-ins must not take the machine's memory
_NOBODY = _HASHER.hash(secrets.token_hex(16))


def hash_password(password: str) -> str:
    """Hash a password for keeping."""
    with _AT_ONCE:
        return _HASHER.hash(password)


def verify_password(password_hash: str | None, password: str) -> bool:
    """Whether the password is the one; None, for a name that nobody has, takes as long and is False."""
    with _AT_ONCE:
        try:
            return _HASHER.verify(password_hash or _NOBODY, password) and password_hash is not None
        except (VerificationError, InvalidHashError):
            return False


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with weaker parameters than today's."""
    return _HASHER.check_needs_rehash(password_hash)


def draw_secret() -> str:
    """Draw 256 bits by lot."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a secret that was drawn by lot: nobody can guess 256 bits, so one round is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()
