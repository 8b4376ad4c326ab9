"""What the spool holds, as DICOMweb asks for it: received instances and our results alike, by their UIDs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, func, literal, or_, select, union_all

from dicom_node.db import tables as t

Rows = Sequence[Row[Any]]
_i, _j, _r, _s, _y = t.instance.c, t.job.c, t.result.c, t.series.c, t.study.c


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object in the spool. `job_id` is empty for what was received."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    series_id: str
    job_id: str


@dataclass(frozen=True, slots=True)
class StudyFilter:
    """What a search names; empty fields match everything. Texts may hold ``*`` and ``?`` (PS3.4 C.2.2.2.4)."""

    studies: tuple[str, ...] = ()
    patient_id: str = ""
    accession_number: str = ""
    study_date: str = ""
    modality: str = ""


def find_studies(tx: Connection, which: StudyFilter, limit: int, offset: int) -> Rows:
    """Find studies, newest first, with the number of their series and instances, results included."""
    of_study = _s.study_id == _y.id
    received = select(func.coalesce(func.sum(_s.instance_count), 0)).where(of_study).correlate(t.study)
    series = select(func.count()).select_from(t.series).where(of_study).correlate(t.study)
    made = select(t.result).join(t.job, _j.id == _r.job_id).join(t.series, _s.id == _j.series_id)
    objects = made.with_only_columns(func.count()).where(of_study).correlate(t.study)
    made_series = (
        made.with_only_columns(func.count(_r.series_instance_uid.distinct())).where(of_study).correlate(t.study)
    )
    counted = (
        (series.scalar_subquery() + made_series.scalar_subquery()).label("series"),
        (received.scalar_subquery() + objects.scalar_subquery()).label("instances"),
    )
    found = select(t.study, *counted).where(*_conditions(which))
    return tx.execute(found.order_by(_y.first_received_at.desc(), _y.id).limit(limit).offset(offset)).all()


def modalities(tx: Connection, study_id: str) -> list[str]:
    """Read the modalities of a study, results included."""
    found = set(tx.scalars(select(_s.modality).where(_s.study_id == study_id)))
    kinds = select(_r.kind).join(t.job, _j.id == _r.job_id).join(t.series, _s.id == _j.series_id)
    found |= {kind.upper() for kind in tx.scalars(kinds.where(_s.study_id == study_id))}
    return sorted(found - {""})


def first_object(tx: Connection, study_id: str) -> str:
    """Find the file of one received instance of a study; empty when there is none."""
    first = select(_i.path).join(t.series, _s.id == _i.series_id).where(_s.study_id == study_id)
    return tx.scalar(first.order_by(_i.id).limit(1)) or ""


def find_objects(
    tx: Connection, study: str = "", series: str = "", instance: str = "", limit: int = 1_000_000, offset: int = 0
) -> list[StoredObject]:
    """Find objects by their UIDs, received ones in the order they came, then what was made of them."""
    received = select(
        _i.sop_instance_uid,
        _i.sop_class_uid,
        _s.series_instance_uid,
        _y.study_instance_uid,
        _i.transfer_syntax_uid,
        _i.path,
        _i.size,
        _s.id.label("series_id"),
        literal("").label("job_id"),
        literal(0).label("made"),
        _i.id.label("n"),
    )
    received = received.join(t.series, _s.id == _i.series_id).join(t.study, _y.id == _s.study_id)
    made = select(
        _r.sop_instance_uid,
        _r.sop_class_uid,
        _r.series_instance_uid,
        _y.study_instance_uid,
        _r.transfer_syntax_uid,
        _r.path,
        _r.size,
        _s.id.label("series_id"),
        _j.id.label("job_id"),
        literal(1).label("made"),
        literal(0).label("n"),
    )
    made = (
        made.join(t.job, _j.id == _r.job_id).join(t.series, _s.id == _j.series_id).join(t.study, _y.id == _s.study_id)
    )
    names = [(study, _y.study_instance_uid, _y.study_instance_uid)]
    names += [(series, _s.series_instance_uid, _r.series_instance_uid)]
    names += [(instance, _i.sop_instance_uid, _r.sop_instance_uid)]
    for uid, of_received, of_made in names:
        if uid:
            received, made = received.where(of_received == uid), made.where(of_made == uid)
    both = union_all(received, made).subquery()
    asked = select(both).order_by(both.c.made, both.c.series_id, both.c.n, both.c.sop_instance_uid)
    rows = tx.execute(asked.limit(limit).offset(offset))
    found = {row.sop_instance_uid: row for row in reversed(rows.all())}  # what came back to us is listed once
    return [_object(row) for row in reversed(found.values())]


def describe_series(tx: Connection, series_ids: Sequence[str]) -> Mapping[str, Row[Any]]:
    """Read modality and description of series, by our id."""
    return {row.id: row for row in tx.execute(select(t.series).where(_s.id.in_(series_ids)))}


def _object(row: Row[Any]) -> StoredObject:
    names = StoredObject.__slots__
    return StoredObject(**{name: row._mapping[name] for name in names})


def _conditions(which: StudyFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if which.studies:
        conditions.append(_y.study_instance_uid.in_(which.studies))
    for text, column in ((which.patient_id, _y.patient_id), (which.accession_number, _y.accession_number)):
        if text and text != "*":
            conditions.append(_like(column, text))
    if which.study_date:
        first, dash, last = which.study_date.partition("-")
        if first:
            conditions.append(_y.study_date >= first)
        if last or not dash:
            conditions += [_y.study_date <= (last or first), _y.study_date != ""]
    if which.modality:
        has = exists().where(_s.study_id == _y.id, _s.modality == which.modality)
        makes = select(_r.id).join(t.job, _j.id == _r.job_id).join(t.series, _s.id == _j.series_id)
        made = makes.where(_s.study_id == _y.id, _r.kind == which.modality.lower()).correlate(t.study).exists()
        conditions.append(or_(has, made))
    return conditions


def _like(column: Any, text: str) -> ColumnElement[bool]:
    if "*" not in text and "?" not in text:
        return column == text  # type: ignore[no-any-return]
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")  # type: ignore[no-any-return]
