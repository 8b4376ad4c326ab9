"""What destinations hold of the jobs whose place a new one takes, and which of them are to reject it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dicom_node.domain.delivery import Destination
from dicom_node.domain.job import Document
from dicom_node.domain.profile import REJECTION_CLASS, Profile


@dataclass(frozen=True, slots=True)
class Outdated:
    """Objects of earlier jobs, and the destinations that hold these and no others.

    `why_left` says why nobody asks these destinations to reject them; empty where they are asked.
    """

    destinations: tuple[str, ...]
    objects: tuple[Document, ...]
    why_left: str = ""


def why_left(destination: Destination | None, profile: Profile | None) -> str:
    """Say why a destination is not asked to reject what is outdated; empty when it is."""
    if destination is None:
        return "the settings do not name it any more"
    if not destination.reject_superseded:
        return "as its settings say"
    if profile is not None and profile.refuses(destination.where, REJECTION_CLASS):
        return f"it takes no key object selection, as it said on {profile.probed_at:%Y-%m-%d}"
    return ""


def grouped(held: Mapping[str, Collection[Document]], left: Mapping[str, str]) -> tuple[Outdated, ...]:
    """Put destinations together that hold the same: one document then tells them all.

    Parameters
    ----------
    held : mapping of str to collection of Document
        What each destination holds.
    left : mapping of str to str
        Why a destination is not asked; missing or empty when it is.
    """
    groups: dict[tuple[frozenset[Document], str], list[str]] = {}
    for name in sorted(held):
        if held[name]:
            groups.setdefault((frozenset(held[name]), left.get(name, "")), []).append(name)
    return tuple(
        Outdated(tuple(names), tuple(sorted(objects, key=lambda each: each.sop_instance_uid)), why)
        for (objects, why), names in groups.items()
    )
