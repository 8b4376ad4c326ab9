"""`dicom-node run`: the road of a series without a network, from files in a folder to result objects in another.

The stages are the node's own, each called once, on a database and a spool that are thrown away: received, assembled,
routed, worked on. Nothing dispatches and nothing is delivered.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from sqlalchemy import Connection, Engine

from dicom_node.assemble import Assembler
from dicom_node.catalog import Catalog, load_catalog
from dicom_node.db import tables as t
from dicom_node.db.engine import open_engine, transaction, utc_now
from dicom_node.db.instances import Sender
from dicom_node.db.listing import JobFilter, list_jobs, list_series
from dicom_node.domain.completeness import Source, Sources
from dicom_node.domain.rule import Condition, Operator, Rule
from dicom_node.errors import ConfigurationError, NotFoundError
from dicom_node.explain.words import images, registered
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.store.arrival import Arrival
from dicom_node.store.storage import SUCCESS, Storage
from dicom_node.work.worker import Worker

_CHUNK = 1024 * 1024
_MOST_OUTSTANDING = 32  # instances
_QUIET_S = 1e-6  # all files are here before the series is looked at: the shortest wait that the clock can tell
_META_STARTS = 132  # preamble and "DICM" (PS3.10 7.1)
_META_LENGTH = 12  # (0002,0000) UL: File Meta Information Group Length, itself 12 bytes long


@dataclass(frozen=True, slots=True)
class FolderRun:
    """What became of one series. `problem` is empty when it has results; `skipped`: the model is for other series.

    `sizes` are of what was found, `said` what is said of the whole scan or of single images.
    """

    series_instance_uid: str
    results: tuple[tuple[str, Path], ...] = ()
    sizes: dict[str, str] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    steps_s: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    skipped: bool = False


def run_folder(
    folder: Path,
    out: Path,
    *,
    model: str | None = None,
    device: str = "auto",
    models: Sequence[Path] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> list[FolderRun]:
    """Run a model on every series in a folder.

    Parameters
    ----------
    folder : pathlib.Path
        Searched with its subfolders; files that are no DICOM are passed over.
    out : pathlib.Path
        Made when needed. Gets ``seg.dcm`` and ``sr.dcm``, in a folder for each series when there are several.
    model : str, optional
        Needed when the node has several.
    device : str
        As ``work.device`` in the settings.
    models : sequence of pathlib.Path
        Folders with models beside the bundled ones.
    tell : callable
        Called with what is being done.

    Returns
    -------
    list of FolderRun
        One for each series, in the order of their first files.

    Raises
    ------
    ConfigurationError
        When the model is unknown or not named, or a bundle is wrong.
    NotFoundError
        When the folder holds no DICOM instance.
    """
    with tempfile.TemporaryDirectory(prefix="dicom-node-") as scratch:
        settings = _settings(Path(scratch), device, models)
        catalog = _catalog(settings, model)
        spool = Spool(settings.spool.path, settings.spool.reserve_mib)
        spool.prepare()
        with _database(settings) as engine:
            refused = _store(folder, spool, engine, tell)
            jobs = _Jobs()
            tell("looking at the series")
            Assembler(settings, catalog, engine, jobs, spool).sweep()
            _work(Worker(settings, catalog, engine, jobs, spool), jobs, tell)
            with transaction(engine) as tx:
                return _collect(tx, spool, out, refused)


class _Jobs:
    """What is to be worked on, in place of the job engine: here one process does everything, once."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def job(self, tx: Connection, job_id: str, attempt: int, *, priority: int = 10, delay_s: float = 0.0) -> None:
        """Take up a job."""
        self.ids.append(job_id)

    def report(self, tx: Connection, job_id: str, attempt: int, *, priority: int = 10, delay_s: float = 0.0) -> None:
        """Refuse: a rule without destinations has nobody to tell."""
        raise AssertionError(f"a report of job {job_id} in a run without destinations")

    def delivery(
        self, tx: Connection, delivery_id: str, destination: str, attempt: int, *, delay_s: float = 0.0
    ) -> None:
        """Refuse: a rule without destinations has no deliveries."""
        raise AssertionError(f"a delivery to {destination} in a run without destinations")


def _settings(scratch: Path, device: str, models: Sequence[Path]) -> Settings:
    (scratch / "rules").mkdir()
    return Settings.model_validate(
        {
            "file": scratch / "settings.toml",
            "database": {"url": f"sqlite:///{scratch / 'node.db'}"},
            "spool": {"path": scratch / "spool", "reserve_mib": 0},
            "assemble": {"quiet_s": _QUIET_S},
            "work": {"device": device, "max_attempts": 1},
            "rules": scratch / "rules",
            "models": tuple(folder.resolve() for folder in models),
        }
    )


def _catalog(settings: Settings, model: str | None) -> Catalog:
    """Keep one model, and make one rule that wants it for every series of its modality."""
    catalog = load_catalog(settings)
    known = ", ".join(sorted(catalog.models))
    if model is None and len(catalog.models) != 1:
        raise ConfigurationError(f"--model: name one of the models: {known or 'there is none'}")
    card = catalog.models.get(model or next(iter(catalog.models)))
    if card is None:
        raise ConfigurationError(f"--model: there is no model {model!r}; there is: {known or 'none'}")
    fits = Condition("Modality", Operator.ONE_OF, card.accepts.modality)
    return replace(catalog, rules=(Rule("run", card.name, (), (fits,)),), models={card.name: card})


@contextmanager
def _database(settings: Settings) -> Iterator[Engine]:
    engine = open_engine(settings.database.url)
    try:
        t.metadata.create_all(engine)
        yield engine
    finally:
        engine.dispose()


def _store(folder: Path, spool: Spool, engine: Engine, tell: Callable[[str], None]) -> list[str]:
    """Store every instance as if it had been sent; return why some were not."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sender = Sender(str(uuid4()), "FILES", "AINODE", "127.0.0.1", "", utc_now())
    storage = Storage(spool, engine, Sources(Source(quiet_s=_QUIET_S, patience_s=_QUIET_S)))
    inbox = _Inbox()
    storage.start()
    try:
        for number, path in enumerate(files):
            tell(f"reading file {number + 1} of {len(files)}")
            if (arrival := _arrival(path, sender, inbox)) is not None:
                inbox.expect()
                _copy(path, arrival, storage)
                storage.finish(arrival)
    finally:
        storage.stop(timeout_s=60)
    if not inbox.stored:
        why = f" that can be read: {inbox.refused[0]}" if inbox.refused else ""
        raise NotFoundError(f"{folder} holds no DICOM instance{why}")
    return inbox.refused


class _Inbox:
    """Takes the answers, and holds the reading back while many are outstanding: the disk may be slower."""

    def __init__(self) -> None:
        self.stored = 0
        self.refused: list[str] = []
        self._room = threading.Semaphore(_MOST_OUTSTANDING)

    def expect(self) -> None:
        """Wait until another instance may be under way."""
        self._room.acquire()

    def take(self, sop_instance_uid: str, status: int, comment: str) -> None:
        """Take the answer for one instance."""
        if status == SUCCESS:
            self.stored += 1
        else:
            self.refused.append(f"{sop_instance_uid}: {comment}")
        self._room.release()


def _arrival(path: Path, sender: Sender, inbox: _Inbox) -> Arrival | None:
    try:
        meta = read_file_meta_info(path)
        sop_class, sop_instance = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
        syntax = str(meta.TransferSyntaxUID)
    except (InvalidDicomError, AttributeError, EOFError, OSError):
        return None  # no Part 10 file: a folder of images has a DICOMDIR, notes, thumbnails
    arrival = Arrival(sender, sop_class, sop_instance, syntax, partial(inbox.take, sop_instance))
    arrival.check_announced()
    return arrival


def _copy(path: Path, arrival: Arrival, storage: Storage) -> None:
    """Give over the data set: what follows the file meta information."""
    with path.open("rb") as file:
        head = file.read(_META_STARTS + _META_LENGTH)
        file.seek(len(head) + int.from_bytes(head[-4:], "little"))
        while piece := file.read(_CHUNK):
            storage.write(arrival, piece)


def _work(worker: Worker, jobs: _Jobs, tell: Callable[[str], None]) -> None:
    try:
        for number, job in enumerate(jobs.ids):
            tell(f"running the model, series {number + 1} of {len(jobs.ids)}")
            worker.work_on(job, "run")
    finally:
        worker.close()


def _collect(tx: Connection, spool: Spool, out: Path, refused: list[str]) -> list[FolderRun]:
    """Copy the results out of the spool and say of each series what became of it."""
    every_series = list_series(tx)
    jobs = {job["series_instance_uid"]: job for job in list_jobs(tx, JobFilter(limit=len(every_series)))}
    runs = []
    for series in every_series:
        uid = series.series_instance_uid
        job = jobs.get(uid)
        if job is None:
            runs.append(FolderRun(uid, problem=series.no_job_reason or "it was not looked at", skipped=True))
        elif job["state"] != "completed":
            runs.append(FolderRun(uid, problem="; ".join([job["error"] or "the model did not finish", *refused[:3]])))
        else:
            place = out if len(every_series) == 1 else out / uid
            runs.append(_copied(uid, job, spool, place))
    return runs


def _copied(uid: str, job: dict[str, Any], spool: Spool, place: Path) -> FolderRun:
    place.mkdir(parents=True, exist_ok=True)
    copied = []
    for result in job["results"]:
        target = place / f"{result['kind']}.dcm"
        shutil.copyfile(spool.path(result["path"]), target)
        copied.append((result["kind"], target))
    told = [segment for result in job["results"] for segment in result["summary"].get("segments", ())]
    sizes = {segment["label"]: _size(segment) for segment in told if segment["voxels"] or "volume_ml" in segment}
    summary: dict[str, Any] = next((result["summary"] for result in job["results"]), {})
    said = [f"{one['name']}: {one['value']}" for one in summary.get("qualities", ())]
    said += [f"{one['label']}: {one['where']}" for one in summary.get("points", ())]
    said += [registered(summary["registration"])] if "registration" in summary else []
    said += images(summary)
    return FolderRun(uid, tuple(copied), sizes, tuple(said), job["steps_s"])


def _size(segment: Mapping[str, Any]) -> str:
    """How large it is; of what was found in a single image the area where it is known, else the pixels."""
    if "volume_ml" in segment:
        return f"{segment['volume_ml']:,.1f} ml"
    return f"{segment['area_mm2']:,.1f} mm2" if segment["area_mm2"] else f"{segment['voxels']:,} pixels"
