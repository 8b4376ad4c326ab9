"""What destinations said when they were probed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from dicom_node.db import tables as t
from dicom_node.domain.profile import Profile

_p = t.destination_profile


def write_profile(tx: Connection, destination: str, profile: Profile) -> None:
    """Keep what a destination said, in place of what it said before."""
    said = {
        "accepted": None if profile.accepted is None else {uid: list(s) for uid, s in profile.accepted.items()},
        "echo_ms": list(profile.echo_ms),
        "commitment": profile.commitment,
        "query": profile.query,
        "report": profile.report,
    }
    tx.execute(delete(_p).where(_p.c.destination == destination))
    row = {"destination": destination, "peer": profile.where[:200], "probed_at": profile.probed_at, "profile": said}
    tx.execute(insert(_p).values(**row))


def read_profile(tx: Connection, destination: str) -> Profile | None:
    """Read what a destination said last; None where it was never probed."""
    row = tx.execute(select(_p).where(_p.c.destination == destination)).one_or_none()
    return _profile(row) if row else None


def read_profiles(tx: Connection) -> dict[str, Profile]:
    """Read what every destination said that was probed."""
    return {row.destination: _profile(row) for row in tx.execute(select(_p))}


def _profile(row: Row[Any]) -> Profile:
    said = row.profile
    accepted = said["accepted"]
    return Profile(
        where=row.peer,
        probed_at=row.probed_at,
        accepted=None if accepted is None else {uid: tuple(syntaxes) for uid, syntaxes in accepted.items()},
        echo_ms=tuple(said["echo_ms"]),
        commitment=said["commitment"],
        query=said["query"],
        report=said["report"],
    )
