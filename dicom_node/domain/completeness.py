"""How long to wait for the rest of a series, by who sends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol

PATIENCE = 4  # quiet times for which instances are waited for that are known to be missing, where nothing else is said


class Caller(Protocol):
    """Who sends: an AE title, or an account over the web."""

    @property
    def calling_ae(self) -> str:
        """AE title of the sender."""

    @property
    def called_ae(self) -> str:
        """AE title that it called."""

    @property
    def account(self) -> str:
        """Account that it signed in with; empty for an AE title."""


@dataclass(frozen=True, slots=True)
class Source:
    """How series that some callers send are waited for.

    Attributes
    ----------
    name : str
        Its section in the settings; empty for what holds for all others.
    calling_ae, called_ae, accounts : tuple of str
        Patterns of whom it is for, with `*` and `?`; none is anybody.
    quiet_s : float
        A series of which nothing is known to be missing is complete when nothing came for so long.
    patience_s : float
        So long instances are waited for that are known to be missing.
    """

    name: str = ""
    calling_ae: tuple[str, ...] = ()
    called_ae: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    quiet_s: float = 30.0
    patience_s: float = PATIENCE * 30.0

    def is_of(self, caller: Caller) -> bool:
        """Whether it is for what this caller sends."""
        return (
            _fits(caller.calling_ae, self.calling_ae)
            and _fits(caller.called_ae, self.called_ae)
            and _fits(caller.account, self.accounts)
        )


@dataclass(frozen=True, slots=True)
class Sources:
    """Every source, in the order in which they are asked, and what holds where none fits."""

    others: Source = field(default_factory=Source)
    named: tuple[Source, ...] = ()

    def of(self, callers: Iterable[Caller]) -> Source:
        """Find the source of what several callers send of one series: the most patient of theirs."""
        return max((self._of(caller) for caller in callers), key=lambda source: (source.quiet_s, source.patience_s))

    def __getitem__(self, name: str) -> Source:
        """Find a source by its name; that of all others where there is none (any more)."""
        return next((source for source in self.named if source.name == name), self.others)

    def _of(self, caller: Caller) -> Source:
        return next((source for source in self.named if source.is_of(caller)), self.others)


def _fits(text: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)
