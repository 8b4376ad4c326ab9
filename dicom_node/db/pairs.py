"""Jobs of two models on the same images, to be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, select

from dicom_node.db import tables as t
from dicom_node.domain.job import JobState
from dicom_node.domain.model import OutputKind


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model said of a series.

    Attributes
    ----------
    seg : str, optional
        Where its segmentation lies in the spool; None: it marked nothing.
    segments : list of dict
        Each with ``label``, ``number``, ``volume_ml`` and, of what was detected, ``score``.
    registers : bool
        Whether it says how one series lies on another.
    maps : tuple of str
        Where its parametric maps lie in the spool, of a model that answers with images.
    """

    job_id: str
    version: str
    seg: str | None
    segments: list[dict[str, Any]]
    registers: bool = False
    maps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """What two models said of the same series; `apart` says why not of the same images of it, where that is so."""

    series_id: str
    accession_number: str
    images: dict[str, str]
    first: Answer
    second: Answer
    apart: str = ""


def read_pairs(tx: Connection, first: str, second: str, since: datetime | None, limit: int) -> Iterator[Pair]:
    """Read the newest series that both models completed, each with its latest run on the latest revision.

    Yields
    ------
    Pair
        Series whose results are still here. `images` are files in the spool by SOP Instance UID; empty once they
        were deleted.
    """
    a, b = t.job.alias("a"), t.job.alias("b")
    done = JobState.COMPLETED.value
    same = and_(b.c.series_id == a.c.series_id, b.c.series_revision == a.c.series_revision)
    both = (a.c.model == first, a.c.state == done, b.c.model == second, b.c.state == done)
    slices = a.c.slices.label("these"), b.c.slices.label("those")
    query = (
        select(a.c.series_id, a.c.id.label("first"), b.c.id.label("second"), t.study.c.accession_number, *slices)
        .join_from(a, b, same)
        .join(t.series, and_(t.series.c.id == a.c.series_id, t.series.c.revision == a.c.series_revision))
        .join(t.study, t.study.c.id == t.series.c.study_id)
        .where(*both)
        .order_by(a.c.created_at.desc(), a.c.run_no.desc(), b.c.run_no.desc(), a.c.id, b.c.id)
    )
    if since is not None:
        query = query.where(a.c.created_at >= since)
    seen: set[str] = set()
    for row in tx.execute(query):
        if row.series_id in seen:
            continue
        if len(seen) == limit:
            return
        seen.add(row.series_id)
        one, other = _answer(tx, row.first), _answer(tx, row.second)
        if one and other:
            images, apart = _images(tx, row.series_id), _apart(row.these, row.those)
            if not apart and (one.registers or other.registers):
                apart = "not compared: they say how one series lies on another, and only what is marked is compared"
            yield Pair(row.series_id, row.accession_number, images, one, other, apart)


def studies_apart(tx: Connection, first: str, second: str, since: datetime | None) -> int:
    """Count the studies of which two models completed series, but not one that both did."""
    j, done = t.job.c, JobState.COMPLETED.value
    query = select(t.series.c.study_id, j.model, j.series_id).join(t.series, t.series.c.id == j.series_id)
    query = query.where(j.state == done, j.model.in_((first, second)))
    if since is not None:
        query = query.where(j.created_at >= since)
    of_study: dict[str, dict[str, set[str]]] = {}
    for row in tx.execute(query):
        of_study.setdefault(row.study_id, {first: set(), second: set()})[row.model].add(row.series_id)
    return sum(bool(seen[first] and seen[second]) and not seen[first] & seen[second] for seen in of_study.values())


def _apart(these: Sequence[str], those: Sequence[str]) -> str:
    """Say of two lists of slices of one series that they are different images; empty where they are the same."""
    if {*these} == {*those}:
        return ""
    common = len({*these} & {*those})
    shared = f"{common} in both" if common else "none in both"
    return f"not compared: they worked on different images of it, {len(these)} and {len(those)}, {shared}"


def _answer(tx: Connection, job_id: str) -> Answer | None:
    """Read what a job made; None once retention deleted it."""
    r = t.result.c
    rows = tx.execute(
        select(t.job.c.model_version, r.kind, r.path, r.summary)
        .join_from(t.job, t.result, and_(r.job_id == t.job.c.id, r.deleted_at.is_(None)), isouter=True)
        .where(t.job.c.id == job_id)
        .order_by(r.kind)
    ).all()
    if rows[0].kind is None:
        return None
    marked = next((row for row in rows if row.kind == OutputKind.SEG), None)
    segments: list[dict[str, Any]] = next(
        (row.summary["segments"] for row in rows if row.summary and "segments" in row.summary), []
    )
    registers = any("registration" in (row.summary or {}) for row in rows)
    maps = tuple(row.path for row in rows if "maps" in (row.summary or {}) and OutputKind.of(row.kind) is OutputKind.PM)
    return Answer(job_id, rows[0].model_version, marked.path if marked else None, segments, registers, maps)


def _images(tx: Connection, series_id: str) -> dict[str, str]:
    i = t.instance.c
    return {row[0]: row[1] for row in tx.execute(select(i.sop_instance_uid, i.path).where(i.series_id == series_id))}
