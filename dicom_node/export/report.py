"""Write the zip: rows, story, settings and, where wanted, headers or pixels, all through one de-identification."""

from __future__ import annotations

import json
import secrets
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

import pydicom
import sqlalchemy
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.errors import InvalidDicomError
from sqlalchemy import Connection, Engine, Row

from dicom_node import __version__
from dicom_node.db import story
from dicom_node.db.audit import record
from dicom_node.db.engine import reading, transaction
from dicom_node.db.instances import paths_of_series
from dicom_node.db.story import SeriesRows
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.errors import ExportError, NotFoundError, SpoolError
from dicom_node.explain import Story, tell
from dicom_node.export.deidentify import UNSPEAKING, Dates, Deidentifier, Keep
from dicom_node.settings import Settings
from dicom_node.spool import Spool

_SERIES = (
    *("modality", "state", "revision", "instance_count", "expected_count", "close_reason", "verdict"),
    *("refusal", "no_job_reason"),
)
_JOB = (
    *("id", "series_revision", "rule", "model", "model_version", "run_no", "priority", "state"),
    *("attempt", "max_attempts", "created_at", "started_at", "finished_at", "next_attempt_at"),
    *("error", "failure", "report", "supersedes"),
)
_ATTEMPT = ("job_id", "n", "model_digest", "started_at", "ended_at", "outcome", "error", "steps_s", "memory_mib")
_RESULT = ("job_id", "kind", "sop_class_uid", "sop_instance_uid", "size", "summary", "created_at", "deleted_at")
_DELIVERY = (
    *("id", "job_id", "destination", "kind", "state", "attempt"),
    *("created_at", "finished_at", "last_status", "last_error"),
)
_DELIVERY_ATTEMPT = ("delivery_id", "n", "started_at", "ended_at", "outcome", "status", "error")
_EVENT = ("id", "at", "event", "job_id", "delivery_id", "detail")
_ELSEWHERE = frozenset(("study", "from", "to", "address", "actor", "executor"))  # who and where, in details of events
_SECRET = frozenset(
    (
        *("password", "secret", "user", "url", "syslog", "host", "address", "peers"),
        *("sender", "recipients", "institution", "serial"),
    )
)

_README = """\
A report of dicom-node for those who look for a fault. Made with `dicom-node export --deidentify`.

manifest.json     what was asked for, versions, what is inside
story.txt         what happened to each series, in seconds from its first instance
rows.json         the rows behind it
settings.json     the settings, without secrets, names of hosts and people
series-N/         the headers (or, where asked for, the images) of each series, de-identified
results-N/        the segmentations that were made, where asked for

De-identified by the Basic Application Level Confidentiality Profile (DICOM PS3.15 annex E): everything that is not on a
list of what may stay is removed. Who looks closely at many images of a person may know the person all the same: hand on
pixels only to those who may have them.
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an export is to hold beside rows and story."""

    headers: bool = True
    pixels: bool = False
    results: bool = False
    keep: frozenset[Keep] = frozenset()
    dates: Dates = Dates.REMOVED


@dataclass(frozen=True, slots=True)
class _Known:
    """All that the database knows of one series."""

    rows: SeriesRows
    paths: list[str]
    told: Story


def export_report(
    engine: Engine, text: str, out: Path, settings: Settings, spool: Spool, wanted: Wanted, *, actor: str
) -> dict[str, int]:
    """Write what is known of what a person names into a zip, and an audit event that it was done.

    Parameters
    ----------
    text : str
        As `explain` takes it.
    out : pathlib.Path
        The file; one that is there is replaced.

    Returns
    -------
    dict of str to int
        How many series, jobs and DICOM files are in it.

    Raises
    ------
    NotFoundError
        When nothing answers to `text`.
    ExportError
        When something of the patient would be in it all the same; nothing is written then.
    """
    with reading(engine) as tx:
        known = [_know(tx, series_id) for series_id in story.find_series(tx, text.strip())] if text.strip() else []
    if not known:
        raise NotFoundError(f"nothing is known of {text!r}")
    cleaner = Deidentifier(secrets.token_bytes(32), wanted.keep, wanted.dates)
    for one in known:
        series = one.rows.series
        cleaner.forbid(series.patient_id, series.accession_number, series.series_description)
        for arrival in one.rows.arrivals:
            cleaner.hide(arrival.calling_ae or "", arrival.peer_address or "")
        cleaner.hide(*(attempt.executor_id.split("/")[0] for attempt in one.rows.attempts))
    scratch = out.with_name(f".{out.name}.part")
    try:
        with scratch.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            count = 0
            for name, data in _files(known, spool, cleaner, wanted):
                archive.writestr(name, data)
                count += 1
            for name, content in _texts(known, settings, cleaner, wanted, engine.dialect.name).items():
                if cleaner.leaks(content):
                    raise ExportError(f"{name} would hold something of the patient; nothing was written")
                archive.writestr(name, content)
        done = {"series": len(known), "jobs": sum(len(one.rows.jobs) for one in known), "files": count}
        options = {"pixels": wanted.pixels, "retained": sorted(wanted.keep), "dates": wanted.dates.value}
        with transaction(engine) as tx:
            of = known[0].rows.series.id if len(known) == 1 else None
            record(tx, AuditEvent(Event.DATA_EXPORTED, series_id=of, actor=actor, detail={**done, **options}))
        scratch.rename(out)
    finally:
        scratch.unlink(missing_ok=True)
    return done


def _know(tx: Connection, series_id: str) -> _Known:
    rows = story.read_series(tx, series_id)
    return _Known(rows, paths_of_series(tx, series_id), tell(tx, rows))


def _files(known: list[_Known], spool: Spool, cleaner: Deidentifier, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """De-identify the objects; before the first one, learn from all of them whose they are."""
    for path in (path for one in known for path in one.paths):
        if (ds := _read(spool, path, pixels=False)) is not None:
            cleaner.learn(ds)
    for number, one in enumerate(known, 1):
        for n, path in enumerate(one.paths if wanted.headers or wanted.pixels else (), 1):
            if (ds := _read(spool, path, pixels=wanted.pixels)) is not None:
                yield f"series-{number}/{n:04d}.dcm", _proved(cleaner.dataset(ds, pixels=wanted.pixels), cleaner)
        for result in one.rows.results if wanted.results else ():
            ds = _read(spool, result.path, pixels=True) if result.kind == "seg" else None
            if ds is not None:
                cleaned = cleaner.dataset(ds, pixels=True)
                yield f"results-{number}/{result.job_id[:8]}-seg.dcm", _proved(cleaned, cleaner)


def _read(spool: Spool, path: str, *, pixels: bool) -> Dataset | None:
    try:
        return dcmread(spool.path(path), stop_before_pixels=not pixels)
    except SpoolError:
        return None  # retention took it; the rows say so
    except InvalidDicomError as error:
        raise ExportError(f"{path} cannot be read, and so not be cleaned: {error}") from error


def _proved(ds: Dataset, cleaner: Deidentifier) -> bytes:
    """Write a data set, and look at what was written as its reader will."""
    stream = BytesIO()
    dcmwrite(stream, ds, enforce_file_format=True)
    again = dcmread(BytesIO(stream.getvalue()), stop_before_pixels=True)
    for element in again.iterall():
        if element.VR not in UNSPEAKING and cleaner.leaks(str(element.value or "")):
            raise ExportError(f"{element.keyword} would hold something of the patient; nothing was written")
    return stream.getvalue()


def _texts(
    known: list[_Known], settings: Settings, cleaner: Deidentifier, wanted: Wanted, database: str
) -> dict[str, str]:
    manifest = {
        "dicom_node": __version__,
        "python": sys.version.split()[0],
        "pydicom": pydicom.__version__,
        "sqlalchemy": sqlalchemy.__version__,
        "database": database,
        "profile": "Basic Application Level Confidentiality Profile (PS3.15 E.2)",
        "retained": sorted(wanted.keep),
        "dates": wanted.dates,
    }
    return {
        "README.txt": _README,
        "manifest.json": _json(manifest),
        "story.txt": cleaner.text("\n\n".join(_story(one, cleaner) for one in known) + "\n"),
        "rows.json": _json([_rows(one.rows, cleaner, wanted) for one in known]),
        "settings.json": _json(_redacted(settings.model_dump(mode="json"))),
    }


def _story(known: _Known, cleaner: Deidentifier) -> str:
    """Tell what happened, in seconds from the first instance."""
    series = known.rows.series
    lines = [f"{(line.at - series.first_received_at).total_seconds():12.3f}  {line.text}" for line in known.told.lines]
    return "\n".join([f"series {cleaner.uid(series.series_instance_uid)}", *lines, known.told.answer])


def _rows(rows: SeriesRows, cleaner: Deidentifier, wanted: Wanted) -> dict[str, Any]:
    start = rows.series.first_received_at

    def pick(row: Row[Any], names: tuple[str, ...]) -> dict[str, Any]:
        return {name: _value(row._mapping[name], start, cleaner, wanted) for name in names}

    return {
        "series": {"series_instance_uid": cleaner.uid(rows.series.series_instance_uid), **pick(rows.series, _SERIES)},
        "arrivals": [
            {"instances": one.instances, "transfer_syntax_uid": one.transfer_syntax_uid, "end_reason": one.end_reason}
            for one in rows.arrivals
        ],
        "jobs": [pick(row, _JOB) for row in rows.jobs],
        "attempts": [pick(row, _ATTEMPT) for row in rows.attempts],
        "results": [pick(row, _RESULT) for row in rows.results],
        "deliveries": [pick(row, _DELIVERY) for row in rows.deliveries],
        "delivery_attempts": [pick(row, _DELIVERY_ATTEMPT) for row in rows.delivery_attempts],
        "events": [pick(row, _EVENT) for row in rows.events],
    }


def _value(value: Any, start: datetime, cleaner: Deidentifier, wanted: Wanted) -> Any:
    """Clean a value of a row, however deep: times become seconds, texts are searched, who and where go."""
    if isinstance(value, datetime):
        return value.isoformat() if wanted.dates is Dates.FULL else round((value - start).total_seconds(), 3)
    if isinstance(value, str):
        return cleaner.text(value)
    if isinstance(value, dict):
        return {key: _value(one, start, cleaner, wanted) for key, one in value.items() if key not in _ELSEWHERE}
    if isinstance(value, (list, tuple)):
        return [_value(one, start, cleaner, wanted) for one in value]
    return value


def _redacted(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _redacted(one, name) for name, one in value.items()}
    if key in _SECRET and value:
        return "(removed)"
    if isinstance(value, list):
        return [_redacted(one, key) for one in value]
    return PurePath(value).name if isinstance(value, str) and value.startswith("/") else value


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
