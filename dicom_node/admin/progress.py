"""How far a running job is: by the clock, against what its model usually takes here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from dicom_node.db import overview
from dicom_node.db.engine import utc_now
from dicom_node.domain.job import JobState

_MOST = 0.98  # by the clock alone nothing is ever done


@dataclass(frozen=True, slots=True)
class Progress:
    """`share` is 0 to 1, and `left_s` what is left; both None when the model has no history yet."""

    ran_s: float
    share: float | None
    left_s: float | None


def progress_of(tx: Connection, jobs: Sequence[dict[str, Any]]) -> dict[str, Progress]:
    """Estimate the progress of those jobs that run, by job id."""
    running = [job for job in jobs if job["state"] == JobState.IN_PROGRESS]
    if not running:
        return {}
    since = overview.running_since(tx, [job["id"] for job in running])
    usual = {model: overview.usual_s(tx, model) for model in {job["model"] for job in running}}
    now = utc_now()
    return {
        job["id"]: _estimate((now - since[job["id"]]).total_seconds(), usual[job["model"]])
        for job in running
        if job["id"] in since
    }


def _estimate(ran_s: float, usual_s: float | None) -> Progress:
    if not usual_s:
        return Progress(ran_s, None, None)
    share = ran_s / usual_s
    # what takes longer than usual slows down towards the end instead of standing still there
    return Progress(ran_s, min(_MOST, share if share < 0.9 else 1 - 0.1 * 0.9 / share), max(0.0, usual_s - ran_s))
