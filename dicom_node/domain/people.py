"""People and programs that ask over HTTP: what each may do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

SHORTEST_PASSWORD = 12  # characters; length is what counts (NIST SP 800-63B 5.1.1.2)
LONGEST_PASSWORD = 200
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


class Right(StrEnum):
    """What may be allowed. A token has some of them; a role has those below it, too."""

    VIEW = "view"  # pages, lists and images
    OPERATE = "operate"  # retry, cancel, resend, pause, ask a destination for an echo
    STORE = "store"  # send instances by STOW-RS
    ADMINISTER = "administer"  # people, tokens of others, the audit trail


class Role(StrEnum):
    """What a person is to the node."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rights(self) -> frozenset[Right]:
        """Everything that the role allows."""
        return _RIGHTS[self]


_RIGHTS = {
    Role.VIEWER: frozenset({Right.VIEW}),
    Role.OPERATOR: frozenset({Right.VIEW, Right.OPERATE, Right.STORE}),
    Role.ADMIN: frozenset(Right),
}


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may sign in. `password_hash` is argon2id's, with its parameters."""

    id: str
    name: str
    role: Role
    password_hash: str
    active: bool


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks at this moment.

    Attributes
    ----------
    rights : frozenset of Right
        Those of the account's role, and for a token only those that it was given.
    session : str
        Id of the session, empty for a token.
    csrf : str
        What every form of the session has to carry; empty for a token.
    token : str
        Name of the token, empty for a session.
    """

    account_id: str
    name: str
    role: Role
    rights: frozenset[Right]
    session: str = ""
    csrf: str = ""
    token: str = ""

    @property
    def actor(self) -> str:
        """As the audit trail names it, at most 64 characters."""
        return f"user {self.name}" + (f", token {self.token}"[:18] if self.token else "")

    def may(self, right: Right | str) -> bool:
        """Whether it is allowed."""
        return right in self.rights


def account_name(text: str) -> str:
    """Fold and check the name of an account.

    Raises
    ------
    ValueError
        Saying what a name may be.
    """
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 40 of a-z, 0-9, dot, dash and underscore, and starts with a letter or digit")
    return name


def check_password(password: str, name: str) -> None:
    """Refuse a password that is easily guessed.

    Raises
    ------
    ValueError
        Saying why.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ValueError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    if name in password.lower() or len(set(password)) < 5:
        raise ValueError("the password is too easily guessed: it repeats itself or the name")
