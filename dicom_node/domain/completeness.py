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
    ask : str
        Destination that is asked how many instances there are; empty for none.
    ask_after_s : float
        A series has been quiet for so long when it is asked about.
    runs_incomplete : bool
        Whether what instances are missing of is analysed all the same, when patience ends.
    """

    name: str = ""
    calling_ae: tuple[str, ...] = ()
    called_ae: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    quiet_s: float = 30.0
    patience_s: float = PATIENCE * 30.0
    ask: str = ""
    ask_after_s: float = 5.0
    runs_incomplete: bool = False

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

    def asking(self, name: str) -> tuple[Source, ...]:
        """Give the sources whose series somebody is asked about."""
        return tuple(source for source in (self.others, *self.named) if source.ask == name)

    def __getitem__(self, name: str) -> Source:
        """Find a source by its name; that of all others where there is none (any more)."""
        return next((source for source in self.named if source.name == name), self.others)

    def _of(self, caller: Caller) -> Source:
        return next((source for source in self.named if source.is_of(caller)), self.others)


def why_closed(received: int, announced: int | None, told_count: int | None, told: str | None, quiet_s: float) -> str:
    """Say why a series counts as complete.

    Parameters
    ----------
    announced : int, optional
        Number of Series Related Instances (0020,1209), where a header told.
    told_count, told : int and str, optional
        What somebody else told, and who.
    """
    if told and told_count is not None and told_count == received >= (announced or 0):
        return f"all {received} instances are here: {told}"
    if announced is not None and received == announced >= (told_count or 0):
        return f"all {announced} announced instances arrived"
    quiet = f"quiet for {quiet_s:.0f} s"
    if lacking := why_lacking(received, announced, told_count, told):
        return f"{quiet}, {lacking}"
    return f"{quiet}; {told}" if told else quiet


def why_lacking(received: int, announced: int | None, told_count: int | None, told: str | None) -> str | None:
    """Say how many instances of a series arrived, where some are known to be missing; None where not."""
    expected = max(announced or 0, told_count or 0)
    if received >= expected:
        return None
    by = f" ({told})" if told and told_count == expected else ""
    return f"{received} of {expected} instances arrived{by}"


def _fits(text: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)
