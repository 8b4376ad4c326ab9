"""When a retrieval may ask: hours of the day on the clock of this machine, across midnight or not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time


@dataclass(frozen=True, slots=True)
class Hours:
    """From one time of day to another; both the same is the whole day."""

    begin: time
    end: time

    @classmethod
    def read(cls, text: str) -> Hours:
        """Read ``22:00-06:00``.

        Raises
        ------
        ValueError
            If it is written otherwise.
        """
        first, dash, last = text.partition("-")
        try:
            begin, end = time.fromisoformat(first.strip()), time.fromisoformat(last.strip())
        except ValueError:
            dash = ""
        if not dash:
            raise ValueError(f"{text!r} is no span of hours; write 22:00-06:00")
        return cls(begin, end)

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M}"

    def hold(self, now: datetime) -> bool:
        """Whether a moment, on the local clock, lies in them."""
        at = now.time()
        if self.begin < self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end
