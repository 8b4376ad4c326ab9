"""What one who stores instances need not ask the database for again."""

from __future__ import annotations

from dataclasses import dataclass, field

_MOST = 10_000


@dataclass(slots=True)
class Settled:
    """Rows that somebody who stores has written or seen: for one thread at a time.

    To be cleared when a transaction is not committed: what it wrote is not there then, or what is in here has been
    deleted since.

    Attributes
    ----------
    series : dict
        Study and Series Instance UID -> id of the series.
    associations : set of str
        Their ids.
    again : set of (str, str)
        Ids of series that came again, and of the associations by which.
    """

    series: dict[tuple[str, str], str] = field(default_factory=dict)
    associations: set[str] = field(default_factory=set)
    again: set[tuple[str, str]] = field(default_factory=set)

    def clear(self) -> bool:
        """Forget everything; whether there was something."""
        there = bool(self.series or self.associations or self.again)
        self.series.clear()
        self.associations.clear()
        self.again.clear()
        return there

    def make_room(self) -> None:
        """Forget everything once it is much."""
        if len(self.series) + len(self.associations) + len(self.again) > _MOST:
            self.clear()
