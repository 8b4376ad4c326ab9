"""Make the results of a job once more, from what the database and the spool hold of it, and compare every byte.

UIDs, dates and times of results derive from the job, so that the same model on the same images gives the same files.
What may differ in good faith is said: another version of this program, other settings of the node, another device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset, dcmread
from sqlalchemy import Connection, Engine

from dicom_node.catalog import Catalog
from dicom_node.db.engine import transaction
from dicom_node.db.interventions import find_job
from dicom_node.db.jobs import read_job
from dicom_node.db.results import result_digests
from dicom_node.domain.encoding import Encoding, encoded, is_plain
from dicom_node.domain.job import Job, JobState, Succeeded
from dicom_node.domain.model import OutputKind
from dicom_node.errors import ConflictError, ModelFailed, SpoolError
from dicom_node.results import equipment_of
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.work.attempt import WorkNode, run_attempt
from dicom_node.work.process import process_of


@dataclass(frozen=True, slots=True)
class Remade:
    """One object, made again.

    Attributes
    ----------
    name : str
        Its name among the results of the job.
    file : pathlib.Path, optional
        The new one; None when it was not made again.
    is_same : bool
        Whether it has the SHA-256 of the one that was sent.
    differs_in : tuple of str
        Keywords of the attributes that differ, where the old file is still here to be compared; no values.
    """

    name: str
    file: Path | None
    is_same: bool
    differs_in: tuple[str, ...] = ()


def reproduce(
    engine: Engine, settings: Settings, catalog: Catalog, spool: Spool, job: str, out: Path
) -> tuple[Remade, ...]:
    """Run the model of a completed job again on the same images, and compare what it makes with what was made.

    Nothing is written to database or spool, and nothing is sent.

    Parameters
    ----------
    job : str
        Its id, or the first characters of it.
    out : pathlib.Path
        Folder for what is made, ``results/<job>/``.

    Raises
    ------
    NotFoundError
        When there is no such job.
    ConflictError
        When it has no results, when its images were deleted, or when the model is another one by now.
    ModelFailed, NotEligible, SpoolError, GeometryError
        As the first time.
    """
    with transaction(engine) as tx:
        done, digest, made = _read(tx, job)
    card = catalog.models.get(done.model)
    if card is None or card.digest != digest:
        here = f"here it is {card.digest[:12]}" if card else "it is not here"
        ran = f"{done.model} {done.model_version}, digest {digest[:12]}"
        raise ConflictError(f"job {done.id[:8]} ran {ran}; {here}: put that bundle back")
    again = Spool(out, 0)
    again.prepare()
    kinds = {OutputKind.of(name) for name in made}
    encodings = {each.value: each for each in Encoding if encoded(OutputKind.SEG, each) in kinds}
    with process_of(card, settings.work) as model:
        node = WorkNode(
            {card.name: card},
            spool,
            equipment_of(settings.node),
            lambda _: model,
            lambda: False,
            encodings,
            frozenset(filter(is_plain, kinds)),
            frozenset(filter(is_plain, kinds)),
            out=again,
        )
        outcome = run_attempt(_sent_as(done, encodings), node)
    if not isinstance(outcome, Succeeded):
        raise getattr(outcome, "error", ModelFailed("The model gave no answer."))
    files = {result.name: (again.path(result.path), result.sha256) for result in outcome.results}
    return tuple(_compare(name, digest, files, spool, done.id) for name, digest in made.items())


def _read(tx: Connection, text: str) -> tuple[Job, str, dict[str, str]]:
    row = find_job(tx, text)
    if row.state != JobState.COMPLETED:
        raise ConflictError(f"job {row.id[:8]} is {row.state}: it made nothing that could be made again")
    done, digest = read_job(tx, row.id)
    if len(done.instances) < len(row.slices):
        missing = len(row.slices) - len(done.instances)
        raise ConflictError(f"{missing} of the {len(row.slices)} images of job {done.id[:8]} were deleted")
    return done, digest, result_digests(tx, row.id)


def _sent_as(job: Job, encodings: Mapping[str, Encoding]) -> Job:
    """Give the job, wanted in the encodings that it was made in: destinations may want others by now."""
    return replace(job, destinations=tuple(encodings))


def _compare(name: str, digest: str, files: dict[str, tuple[Path, str]], spool: Spool, job_id: str) -> Remade:
    if name not in files:
        return Remade(name, None, False)
    file, new = files[name]
    if new == digest:
        return Remade(name, file, True)
    try:
        old = spool.path(f"results/{job_id}/{name}.dcm")
    except SpoolError:
        return Remade(name, file, False)
    return Remade(name, file, False, tuple(_differing(dcmread(old), dcmread(file))))


def _differing(old: Dataset, new: Dataset) -> Iterator[str]:
    for tag in sorted({*old.keys(), *new.keys()}):
        if old.get(tag) != new.get(tag):
            found = old.get(tag) or new.get(tag)
            yield found.keyword or str(found.tag) if found is not None else str(tag)
