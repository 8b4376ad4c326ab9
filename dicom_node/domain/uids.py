"""Identifiers: application entity titles, UIDs as received, and the UIDs that we derive."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NewType
from uuid import NAMESPACE_OID, UUID, uuid5

SOPInstanceUID = NewType("SOPInstanceUID", str)

IMPLEMENTATION_CLASS_UID = "2.25.207216372411583498426236712384723871232"
IMPLEMENTATION_VERSION_NAME = "DICOM_NODE_0_1"  # PS3.7 D.3.3.2: 1 to 16 characters

_NAMESPACE = uuid5(NAMESPACE_OID, IMPLEMENTATION_CLASS_UID)
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class AETitle(str):
    """An application entity title: 1 to 16 characters, no backslash or control character (PS3.5 6.2, VR AE).

    Leading and trailing spaces do not count and are dropped.

    Raises
    ------
    ValueError
        Saying which rule the text breaks.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> AETitle:
        """Check and trim `text`."""
        title = text.strip(" ")
        if not title:
            raise ValueError("an AE title needs at least one character that is not a space")
        if len(title) > 16:
            raise ValueError(f"an AE title has at most 16 characters (PS3.5 6.2); {title!r} has {len(title)}")
        if any(c == "\\" or not " " <= c <= "~" for c in title):
            raise ValueError(f"an AE title holds printable ASCII without backslash; {title!r} does not")
        return super().__new__(cls, title)


def is_uid(text: str) -> bool:
    """Whether `text` can be a UID: digits and dots, at most 64 characters (PS3.5 9.1).

    Leading zeros in a component break the standard, yet real devices send them; they are harmless and admitted.
    """
    return 0 < len(text) <= 64 and _UID.fullmatch(text) is not None


def job_id(series_id: str, revision: int, model: str, model_version: str, run_no: int) -> str:
    """Identify the job by what it is: two racing closers of one series name the same job."""
    return str(uuid5(_NAMESPACE, f"job|{series_id}|{revision}|{model}|{model_version}|{run_no}"))


def study_job_id(rule: str, model: str, model_version: str, inputs: Iterable[tuple[str, str, int]], before: int) -> str:
    """Identify a job on several series by what it is: two that decide about one study at once name the same job.

    Parameters
    ----------
    inputs : iterable of (str, str, int)
        Role, series (our id of it) and revision.
    before : int
        How many jobs of the rule on just these were there before: it comes back to them after others.
    """
    named = "|".join(f"{role}={series_id}/{revision}" for role, series_id, revision in sorted(inputs))
    return str(uuid5(_NAMESPACE, f"study job|{rule}|{model}|{model_version}|{named}|{before}"))


def result_id(job: str, kind: str) -> str:
    """Row id of the result of one kind that a job makes: one, whichever attempt made it."""
    return str(uuid5(UUID(job), kind))


def delivery_id(result: str, destination: str) -> str:
    """Row id of the delivery of one result (by its row id) to one destination (by its name)."""
    return str(uuid5(UUID(result), destination))


def result_uid(job: str, part: str) -> str:
    """UID of one thing a job makes, the same at every attempt: no retry leaves a twin.

    Parameters
    ----------
    job : str
        The job's id.
    part : str
        What is named, e.g. ``"seg"``, ``"seg/series"``, ``"track/left lung"``.

    Returns
    -------
    str
        A UID under 2.25 (PS3.5 B.2), at most 44 characters.
    """
    return uuid_uid(uuid5(UUID(job), part))


def device_uid(digest: str) -> str:
    """Device UID of a model: a new value whenever one byte of the bundle changes (IHE AIR 6.5.3.1)."""
    return uuid_uid(uuid5(_NAMESPACE, f"model|{digest}"))


def uuid_uid(value: UUID) -> str:
    """The UID of a UUID (PS3.5 B.2)."""
    return f"2.25.{value.int}"
