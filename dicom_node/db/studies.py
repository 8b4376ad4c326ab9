"""What of a study fits which role of a rule, and what waits for more.

Whoever decides about a study holds its row (`lock_study`) from before the first look to the commit: two series that are
closed at once, on two machines, then see each other, and of two sweeps one finds the wait gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, exists, insert, or_, select, update
from sqlalchemy.orm import aliased

from dicom_node.db import tables as t
from dicom_node.db.engine import insert_into
from dicom_node.domain.candidate import Candidate

Inputs = frozenset[tuple[str, str, int]]  # role, series, revision

_c, _n, _s, _w = t.series_role.c, t.job_input.c, t.series.c, t.study_wait.c


@dataclass(frozen=True, slots=True)
class StudyJob:
    """A job that a rule made of several series of a study."""

    id: str
    inputs: Inputs


def lock_study(tx: Connection, study_id: str) -> None:
    """Keep others from deciding about a study, but not from storing series of it."""
    tx.execute(select(t.study.c.id).where(t.study.c.id == study_id).with_for_update(key_share=True))


def lock_study_of(tx: Connection, series_id: str) -> None:
    """Keep others from deciding about the study of a series."""
    mine = select(_s.study_id).where(_s.id == series_id).scalar_subquery()
    tx.execute(select(t.study.c.id).where(t.study.c.id == mine).with_for_update(key_share=True))


def write_roles(tx: Connection, series_id: str, fits: Mapping[str, Sequence[Candidate]]) -> set[str]:
    """Write which roles of which rules a series fits as it is now, in place of what it fitted before.

    Returns
    -------
    set of str
        The rules that it fitted before.
    """
    before = set(tx.scalars(delete(t.series_role).where(_c.series_id == series_id).returning(_c.rule)))
    _insert_roles(tx, series_id, fits)
    return before


def add_roles(tx: Connection, series_id: str, fits: Mapping[str, Sequence[Candidate]]) -> list[str]:
    """Write the roles of rules that a series did not fit before, and leave the others; gives these rules."""
    before = set(tx.scalars(select(_c.rule).where(_c.series_id == series_id)))
    new = {rule: candidates for rule, candidates in fits.items() if rule not in before}
    _insert_roles(tx, series_id, new)
    return list(new)


def _insert_roles(tx: Connection, series_id: str, fits: Mapping[str, Sequence[Candidate]]) -> None:
    for rule, candidates in fits.items():
        for one in candidates:
            row = {
                "series_id": series_id,
                "rule": rule,
                "role": one.role,
                "series_revision": one.series_revision,
                "slices": list(one.slices),
                "slice_spacing_mm": one.slice_spacing_mm,
                "acquired_at": one.acquired_at,
                "priority": one.priority,
                "note": one.note,
                "refusal": one.refusal,
            }
            tx.execute(insert(t.series_role).values(row))


def read_candidates(tx: Connection, study_id: str, rule: str) -> list[Candidate]:
    """Read the complete series of a study that fit a role of a rule; those whose images were deleted are left out."""
    rows = tx.execute(
        select(t.series_role, _s.series_instance_uid)
        .join(t.series, _s.id == _c.series_id)
        .where(_s.study_id == study_id, _c.rule == rule, _s.images_deleted_at.is_(None))
        .order_by(_s.series_instance_uid, _c.role)
    )
    return [
        Candidate(
            series_id=row.series_id,
            series_instance_uid=row.series_instance_uid,
            series_revision=row.series_revision,
            role=row.role,
            slices=tuple(row.slices),
            slice_spacing_mm=row.slice_spacing_mm,
            acquired_at=row.acquired_at,
            priority=row.priority,
            note=row.note,
            refusal=row.refusal,
        )
        for row in rows
    ]


def tell_roles(tx: Connection, rule: str, said: Mapping[str, str | None]) -> None:
    """Keep what became of series that fit a role of a rule, by their id; None of one that a job uses.

    Of a series that no job uses, it is the reason why there is none.
    """
    for series_id, text in sorted(said.items()):
        tx.execute(update(t.series_role).where(_c.series_id == series_id, _c.rule == rule).values(said=text))
        each = select(_c.said).where(_c.series_id == series_id, _c.said.is_not(None)).order_by(_c.rule, _c.role)
        told = "; ".join(dict.fromkeys(text for text in tx.scalars(each) if text))
        used = tx.execute(select(t.job.c.id).where(_uses(series_id)).limit(1)).first()
        reason = None if used or not told else told
        tx.execute(update(t.series).where(_s.id == series_id).values(no_job_reason=reason))


def _uses(series_id: str) -> ColumnElement[bool]:
    """Whether a job works on a series as it is now, alone or among others, and no other has taken its place."""
    job, later = t.job.c, aliased(t.job)
    revision = select(_s.revision).where(_s.id == series_id).scalar_subquery()
    as_input = exists().where(_n.job_id == job.id, _n.series_id == series_id, _n.series_revision == revision)
    alone = (job.series_id == series_id) & (job.series_revision == revision)
    return or_(alone, as_input) & ~exists().where(later.c.supersedes == job.id)


def is_receiving(tx: Connection, study_id: str) -> bool:
    """Whether a series of the study is still being received."""
    return (
        tx.execute(select(_s.id).where(_s.study_id == study_id, _s.state == "receiving").limit(1)).first() is not None
    )


def rules_waiting(tx: Connection, study_id: str) -> set[str]:
    """List the rules for which a study waits."""
    return set(tx.scalars(select(_w.rule).where(_w.study_id == study_id)))


def wait_for_series(tx: Connection, study_id: str, rule: str, now: datetime, wait_s: float) -> datetime:
    """Have a study wait for series, or wait on from now. Gives the time when that is over."""
    until = now + timedelta(seconds=wait_s)
    row = {"study_id": study_id, "rule": rule, "since": now, "until": until, "wait_s": wait_s}
    on = insert_into(tx, t.study_wait).values(row)
    tx.execute(on.on_conflict_do_update(index_elements=["study_id", "rule"], set_={"until": until, "wait_s": wait_s}))
    return until


def end_wait(tx: Connection, study_id: str, rule: str) -> None:
    """Have a study wait no longer for a rule."""
    tx.execute(delete(t.study_wait).where(_w.study_id == study_id, _w.rule == rule))


def due_waits(tx: Connection, now: datetime) -> Sequence[Row[Any]]:
    """Find the waits that are over, the oldest first: study, rule, and how long was waited."""
    return tx.execute(select(t.study_wait).where(_w.until <= now).order_by(_w.until, _w.study_id, _w.rule)).all()


def is_over(tx: Connection, study_id: str, rule: str, now: datetime) -> bool:
    """Whether a wait is over that nobody has ended yet."""
    due = select(_w.rule).where(_w.study_id == study_id, _w.rule == rule, _w.until <= now)
    return tx.execute(due).first() is not None


def wait_for_series_anew(tx: Connection, now: datetime) -> int:
    """Have every study wait its whole time again from now on: the host's clock was set. How many do."""
    waits = tx.execute(select(t.study_wait)).all()
    for wait in waits:
        wait_for_series(tx, wait.study_id, wait.rule, now, wait.wait_s)
    return len(waits)


def study_jobs(tx: Connection, study_id: str, rule: str) -> list[StudyJob]:
    """Read the jobs that a rule made of several series of a study, the newest first."""
    job, later = t.job.alias("j"), aliased(t.job)
    replaced = exists().where(later.c.supersedes == job.c.id)
    rows = tx.execute(
        select(job.c.id, _n.role, _n.series_id, _n.series_revision)
        .join(t.job_input, _n.job_id == job.c.id)
        .join(t.series, _s.id == job.c.series_id)
        .where(_s.study_id == study_id, job.c.rule == rule)
        .order_by(replaced, job.c.created_at.desc(), job.c.run_no.desc(), job.c.id)
    ).all()
    found: dict[str, set[tuple[str, str, int]]] = {}
    for row in rows:
        found.setdefault(row.id, set()).add((row.role, row.series_id, row.series_revision))
    return [StudyJob(job_id, frozenset(inputs)) for job_id, inputs in found.items()]


def jobs_on_older(tx: Connection, series_id: str, revision: int) -> list[str]:
    """List the jobs of several series that work on an older revision of this one."""
    older = select(_n.job_id).where(_n.series_id == series_id, _n.series_revision < revision)
    return list(tx.scalars(older.order_by(_n.job_id)))


def last_run(tx: Connection, series_id: str, revision: int, model: str, version: str) -> int:
    """Give the number of the last run of a model on a revision of a series, alone or with others beside it; or 0."""
    j = t.job.c
    same = (j.series_id == series_id, j.series_revision == revision, j.model == model, j.model_version == version)
    return max(tx.scalars(select(j.run_no).where(*same)), default=0)
