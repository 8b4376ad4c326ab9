"""Which series of a study fills which role of a rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dicom_node.domain.rule import Preference, Role


@dataclass(frozen=True, slots=True)
class Candidate:
    """A complete series that fits a role.

    Attributes
    ----------
    slices : tuple of str
        SOP Instance UIDs of its volume, in order; none where it is refused.
    acquired_at : str
        Date and time as DICOM writes them, one behind the other; empty where the images do not say it.
    priority : int
        What the order asks for (`domain.job.Priority`).
    note : str, optional
        What a reader of a result has to know of the series: that it is not whole.
    refusal : str, optional
        Why it is no volume; then it fills nothing.
    """

    series_id: str
    series_instance_uid: str
    series_revision: int
    role: str
    slices: tuple[str, ...]
    slice_spacing_mm: float | None
    acquired_at: str
    priority: int
    note: str | None = None
    refusal: str | None = None


def choose(roles: Sequence[Role], candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """Choose a series for each role, each for one at most.

    A role that is written earlier chooses first, by what it prefers, and gives way only where a later one would have no
    series at all. What is chosen depends on the candidates alone, not on the order in which they came.

    Returns
    -------
    dict of str to Candidate
        In the order of `roles`; a role for which none is left is not in it.
    """
    ranked = {role.name: sorted(_usable(role, candidates), key=lambda one: _rank(role, one)) for role in roles}
    chosen: dict[str, Candidate] = {}
    for role in roles:
        _fill(role.name, ranked, chosen, set())
    return {role.name: chosen[role.name] for role in roles if role.name in chosen}


def _fill(role: str, ranked: dict[str, list[Candidate]], chosen: dict[str, Candidate], tried: set[str]) -> bool:
    """Give a role the first series that is free; else one whose role can take another."""
    holders = {one.series_id: name for name, one in chosen.items()}
    for one in ranked[role]:
        if one.series_id not in holders:
            chosen[role] = one
            return True
    for one in ranked[role]:
        if one.series_id not in tried:
            tried.add(one.series_id)
            if _fill(holders[one.series_id], ranked, chosen, tried):
                chosen[role] = one
                return True
    return False


def _usable(role: Role, candidates: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.role == role.name and one.refusal is None]


def _rank(role: Role, one: Candidate) -> tuple[Any, ...]:
    at = (
        one.acquired_at.replace(".", "").ljust(20, "0") if one.acquired_at else ""
    )  # with fractions of a second or none
    by = {
        Preference.THINNEST: round(one.slice_spacing_mm, 2) if one.slice_spacing_mm else math.inf,
        Preference.MOST_SLICES: -len(one.slices),
        Preference.NEWEST: (not at, [-ord(letter) for letter in at]),
        Preference.OLDEST: (not at, at),
    }
    return (*(by[each] for each in role.prefer), one.series_instance_uid)
