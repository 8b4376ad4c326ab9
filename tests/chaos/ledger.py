"""What became of everything that was sent: the account that a run of chaos ends with."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine, select

from dicom_node.db import tables as t


@dataclass(frozen=True, slots=True)
class Tail:
    """How a file has to end: with these bytes, whatever stands before them."""

    length: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Tail:
        """That it ends with `data`."""
        return cls(len(data), hashlib.sha256(data).hexdigest())

    def is_of(self, file: Path) -> bool:
        """Whether a file ends so."""
        return file.is_file() and Tail.of(file.read_bytes()[-self.length :]) == self


@dataclass(slots=True)
class Ledger:
    """The account.

    Attributes
    ----------
    kills : collections.Counter
        kill -9 by role.
    pacs_away : int
        How often the PACS was stopped meanwhile.
    broken : int
        Associations that broke under their senders.
    sent, acknowledged, stored : int
        Instances: requests (again and again, where no answer came), those answered with 0x0000, and of these those
        with a row and a file that is what was sent.
    processed, delivered : int
        Series that were closed whole, or jobs that were completed; result objects that the PACS has.
    debris : int
        Files without a row: of instances that were never acknowledged; the node sweeps them.
    problems : list of str
        What must not be.
    """

    kills: Counter[str] = field(default_factory=Counter)
    pacs_away: int = 0
    broken: int = 0
    sent: int = 0
    acknowledged: int = 0
    stored: int = 0
    processed: int = 0
    delivered: int = 0
    debris: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kills = ", ".join(f"{role} {count}" for role, count in sorted(self.kills.items()))
        rows = {
            "kill -9": f"{self.kills.total()} ({kills})",
            "PACS away": self.pacs_away,
            "associations that broke": self.broken,
            "instances sent": self.sent,
            "acknowledged": self.acknowledged,
            "of these stored": self.stored,
            "lost": self.acknowledged - self.stored,
            "processed": self.processed,
            "delivered": self.delivered,
            "files without a row": self.debris,
            "what must not be": len(self.problems),
        }
        return "\n".join([*(f"{name:<24}{value}" for name, value in rows.items()), *self.problems])


def count_stored(ledger: Ledger, engine: Engine, spool: Path, acknowledged: Mapping[str, Tail]) -> None:
    """Compare what was acknowledged with the rows and with the files, and the rows with the files."""
    with engine.begin() as tx:
        rows = tx.execute(select(t.instance.c.sop_instance_uid, t.instance.c.path, t.instance.c.size)).all()
    found = {row.sop_instance_uid: row for row in rows}
    ledger.acknowledged = len(acknowledged)
    ledger.problems += [f"{len(rows) - len(found)} instances have two rows"] if len(rows) != len(found) else []
    for uid, tail in acknowledged.items():
        if uid not in found:
            ledger.problems.append(f"{uid} was acknowledged and has no row")
        elif not tail.is_of(spool / found[uid].path):
            ledger.problems.append(f"{uid} was acknowledged and its file is not what was sent")
        else:
            ledger.stored += 1
    for row in rows:
        file = spool / row.path
        if not file.is_file() or file.stat().st_size != row.size:
            ledger.problems.append(f"{row.sop_instance_uid} has a row and no whole file")
    kept = {str(path.relative_to(spool)) for path in (spool / "instances").rglob("*.dcm")}
    ledger.debris = len(kept - {row.path for row in rows})
