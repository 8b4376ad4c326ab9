"""What the spool holds, as DICOMweb asks for it: received instances and our results alike, by their UIDs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, func, literal, select, tuple_, union_all

from dicom_node.db import tables as t

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


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """A study with what belongs to it, results included. `path`: the file of one received instance, or empty."""

    study_instance_uid: str
    patient_id: str
    accession_number: str
    study_date: str
    series: int
    instances: int
    modalities: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """A received series, or one that we made."""

    study_instance_uid: str
    series_instance_uid: str
    instances: int
    path: str


def find_studies(tx: Connection, which: StudyFilter, limit: int, offset: int) -> list[FoundStudy]:
    """Find studies, newest first: by study date where that is asked for, else by when they came."""
    conditions = _conditions(which, tx.dialect.name)
    if which.modality:
        ids: Any = _with_modality(which.modality, conditions, limit, offset)
    else:
        newest = (_y.study_date.desc(),) if which.study_date else ()
        found = select(_y.id).where(*conditions)
        ids = found.order_by(*newest, _y.first_received_at.desc(), _y.id.desc()).limit(limit).offset(offset)
    order = list(tx.scalars(ids))
    rows = {row.id: row for row in tx.execute(select(t.study).where(_y.id.in_(order)))}
    belongings = _belongings(tx, order)
    return [
        FoundStudy(row.study_instance_uid, row.patient_id, row.accession_number, row.study_date, *belongings[row.id])
        for row in (rows[one] for one in order)
    ]


def find_series(tx: Connection, study: str, series: str, modality: str, limit: int, offset: int) -> list[FoundSeries]:
    """Find series by UIDs and modality, empty ones match all; newest first, what was received before what was made."""
    other = t.series.alias()
    first = t.result.alias()
    received = select(
        _y.study_instance_uid, _s.series_instance_uid, _s.id.label("series_id"), literal("").label("job_id")
    )
    received = received.join(t.study, _y.id == _s.study_id).where(_s.instance_count > 0)
    made = select(_y.study_instance_uid, _r.series_instance_uid, _s.id.label("series_id"), _r.job_id)
    made = made.join(t.job, _j.id == _r.job_id).join(t.series, _s.id == _j.series_id).join(t.study)
    same = first.c.series_instance_uid == _r.series_instance_uid
    made = made.where(
        ~exists().where(same, first.c.job_id == _r.job_id, first.c.id < _r.id),
        ~exists().where(other.c.series_instance_uid == _r.series_instance_uid, other.c.instance_count > 0),
    )
    if study:
        received, made = (one.where(_y.study_instance_uid == study) for one in (received, made))
    if series:
        received, made = received.where(_s.series_instance_uid == series), made.where(_r.series_instance_uid == series)
    if modality:
        received, made = received.where(_s.modality == modality), made.where(_r.kind == modality.lower())
    found = list(tx.execute(received.order_by(_s.first_received_at.desc(), _s.id.desc()).limit(limit).offset(offset)))
    if len(found) < limit:
        skipped = offset and max(0, offset - _count(tx, received))
        made = made.order_by(_r.created_at.desc(), _r.id.desc()).limit(limit - len(found)).offset(skipped)
        found += tx.execute(made)
    contents = _contents(tx, found)
    names = [(row.job_id, row.series_instance_uid if row.job_id else row.series_id) for row in found]
    return [
        FoundSeries(row.study_instance_uid, row.series_instance_uid, *contents[name])
        for row, name in zip(found, names, strict=True)
    ]


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
    if not (study or series or instance):  # else what is found is little, and quicker sorted than found in order
        received = received.order_by(_i.series_id, _i.id).limit(limit + offset)
        made = made.order_by(_j.series_id, _r.sop_instance_uid).limit(limit + offset)
    both = union_all(*(select(one.subquery()) for one in (received, made))).subquery()
    asked = select(both).order_by(both.c.made, both.c.series_id, both.c.n, both.c.sop_instance_uid)
    rows = tx.execute(asked.limit(limit).offset(offset))
    found = {row.sop_instance_uid: row for row in reversed(rows.all())}  # what came back to us is listed once
    return [_object(row) for row in reversed(found.values())]


def _object(row: Row[Any]) -> StoredObject:
    names = StoredObject.__slots__
    return StoredObject(**{name: row._mapping[name] for name in names})


def _conditions(which: StudyFilter, dialect: str) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if which.studies:
        conditions.append(_y.study_instance_uid.in_(which.studies))
    for text, column in ((which.patient_id, _y.patient_id), (which.accession_number, _y.accession_number)):
        if text and text != "*":
            conditions.append(_like(column, text, dialect))
    if which.study_date:
        first, dash, last = which.study_date.partition("-")
        if first:
            conditions.append(_y.study_date >= first)
        if last or not dash:
            conditions += [_y.study_date <= (last or first), _y.study_date != ""]
    return conditions


def _with_modality(modality: str, conditions: Sequence[ColumnElement[bool]], limit: int, offset: int) -> Any:
    """Ids of studies with a received series of the modality, or a result of the kind that it names.

    Each study counts through the first such series or result, so that both are found in the order of an index.
    """
    s, r, j = t.series.alias(), t.result.alias(), t.job.alias()
    of_modality = s.c.study_id == _y.id, s.c.modality == modality
    before = tuple_(s.c.first_received_at, s.c.id) < tuple_(_s.first_received_at, _s.id)
    received = select(_y.id, _s.first_received_at.label("at"), _s.id.label("n")).join(t.series, _s.study_id == _y.id)
    received = received.where(_s.modality == modality, ~exists().where(*of_modality, before), *conditions)
    same_study = and_(j.c.id == r.c.job_id, s.c.id == j.c.series_id, s.c.study_id == _y.id)
    earlier = tuple_(r.c.created_at, r.c.id) < tuple_(_r.created_at, _r.id)
    made = select(_y.id, _r.created_at.label("at"), _r.id.label("n")).join(t.series, _s.study_id == _y.id)
    made = made.join(t.job, _j.series_id == _s.id).join(t.result, _r.job_id == _j.id)
    made = made.where(
        _r.kind == modality.lower(),
        ~exists().where(*of_modality),
        ~exists().where(same_study, r.c.kind == _r.kind, earlier),
        *conditions,
    )
    arms = (
        received.order_by(_s.first_received_at.desc(), _s.id.desc()).limit(limit + offset),
        made.order_by(_r.created_at.desc(), _r.id.desc()).limit(limit + offset),
    )
    both = union_all(*(select(one.subquery()) for one in arms)).subquery().c
    return select(both.id).order_by(both.at.desc(), both.n.desc()).limit(limit).offset(offset)


def _belongings(tx: Connection, studies: Sequence[str]) -> Mapping[str, tuple[int, int, tuple[str, ...], str]]:
    """Count series and instances of studies, results included; their modalities, and a file of each."""
    made = select(_s.study_id, _r.kind, func.count().label("objects"), func.min(_r.series_instance_uid).label("uid"))
    made = made.join(t.job, _j.series_id == _s.id).join(t.result, _r.job_id == _j.id)
    made = made.where(_s.study_id.in_(studies)).group_by(_s.study_id, _r.kind, _r.series_instance_uid)
    counts: dict[str, list[int]] = {one: [0, 0] for one in studies}
    kinds: dict[str, set[str]] = {one: set() for one in studies}
    uids: dict[str, set[str]] = {one: set() for one in studies}
    firsts: dict[str, str] = {}
    for row in tx.execute(select(_s.id, _s.study_id, _s.modality, _s.instance_count).where(_s.study_id.in_(studies))):
        counts[row.study_id][0] += 1
        counts[row.study_id][1] += row.instance_count
        kinds[row.study_id].add(row.modality)
        if row.instance_count:
            firsts.setdefault(row.study_id, row.id)
    for row in tx.execute(made):
        counts[row.study_id][1] += row.objects
        kinds[row.study_id].add(row.kind.upper())
        uids[row.study_id].add(row.uid)
    lowest = select(func.min(_i.id)).where(_i.series_id.in_(firsts.values())).group_by(_i.series_id)
    paths = {row.series_id: row.path for row in tx.execute(select(_i.series_id, _i.path).where(_i.id.in_(lowest)))}
    return {
        one: (
            counts[one][0] + len(uids[one]),
            counts[one][1],
            tuple(sorted(kinds[one] - {""})),
            paths.get(firsts.get(one, ""), ""),
        )
        for one in studies
    }


def _contents(tx: Connection, rows: Sequence[Row[Any]]) -> Mapping[tuple[str, str], tuple[int, str]]:
    """Count the objects of each series, with the file of the first."""
    received = {row.series_id for row in rows if not row.job_id}
    each = select(_i.series_id, func.count().label("n"), func.min(_i.id).label("first")).group_by(_i.series_id)
    counted = each.where(_i.series_id.in_(received)).subquery().c
    found = {
        ("", row.series_id): (row.n, row.path)
        for row in tx.execute(select(counted.series_id, counted.n, _i.path).join(t.instance, _i.id == counted.first))
    }
    objects = select(_r.job_id, _r.series_instance_uid, _r.path).where(_r.job_id.in_({row.job_id for row in rows}))
    for row in tx.execute(objects):
        one = row.job_id, row.series_instance_uid
        found[one] = found.get(one, (0, ""))[0] + 1, row.path
    return found


def _count(tx: Connection, query: Select[Any]) -> int:
    return int(tx.scalar(select(func.count()).select_from(query.subquery())) or 0)


def _like(column: Any, text: str, dialect: str) -> ColumnElement[bool]:
    """Match with wildcards, case-sensitive (PS3.4 C.2.2.2.4), as the indexes of the columns can."""
    if "*" not in text and "?" not in text:
        return column == text  # type: ignore[no-any-return]
    named = t.study.alias()  # apart from the rest: that index is asked first, whatever order the list has
    if dialect == "sqlite":
        matches = named.c[column.name].op("GLOB")(text.replace("[", "[[]"))
    else:
        escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        matches = named.c[column.name].like(escaped.replace("*", "%").replace("?", "_"), escape="\\")
    return _y.id.in_(select(named.c.id).where(matches))
