"""The report of a job that failed, top to bottom: whose images these are, what was asked of them, why there is none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pydicom import Dataset

from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.header import texts
from dicom_node.domain.job import FailedJob, Job, JobInstance
from dicom_node.domain.model import Accepts, ModelCard, OutputKind
from dicom_node.errors import GeometryError, ResultError, SpoolError
from dicom_node.results import Equipment, build_report
from dicom_node.spool import Spool
from dicom_node.volume import read_instance

_MOST_READ = 10  # instances whose header is tried before we believe that none can be read


def write_report(
    failed: FailedJob,
    cards: Mapping[str, ModelCard],
    equipment: Equipment,
    spool: Spool,
    forms: Collection[OutputKind] = (),
) -> tuple[ResultObject, ...]:
    """Write the report of a failed job, in the forms that are wanted beside SR. The worker records it.

    Raises
    ------
    ResultError
        If no valid report can be made of what was received.
    SpoolError
        If no file of it can be read now.
    """
    _refuse_strangers([*failed.job.instances, *(each for one in failed.job.inputs for each in one.instances)])
    header = _header(failed.job.instances, spool)
    return build_report(failed, _card(failed.job, cards), header, equipment, spool, forms)


def _refuse_strangers(instances: Sequence[JobInstance]) -> None:
    """A report is filed under one patient: of two in its images, neither may get it."""
    patients = {texts(instance.header, "PatientID") for instance in instances}
    if len(patients) > 1:
        raise ResultError(f"The images name {len(patients)} patients; a report can be filed under none of them.")


def _header(instances: Sequence[JobInstance], spool: Spool) -> Dataset:
    """Read the first header that can be read; those of images come first."""
    trouble: Exception = ResultError("No instance of the series is stored.")
    in_order = sorted(instances, key=lambda instance: not texts(instance.header, "Rows"))
    for instance in in_order[:_MOST_READ]:
        try:
            return read_instance(spool, instance)
        except (SpoolError, GeometryError) as error:
            trouble = error
    raise trouble


def _card(job: Job, cards: Mapping[str, ModelCard]) -> ModelCard:
    """Give the card of the model that was asked for: of another version, its name alone is certain."""
    card = cards.get(job.model)
    if card is not None and card.version == job.model_version:
        return card
    return ModelCard(
        name=job.model,
        version=job.model_version,
        title=card.title if card else job.model,
        manufacturer=card.manufacturer if card else "unknown",
        summary="",
        training="This node does not have the version that was asked for, and cannot say what it was trained on.",
        bundle=Path(),
        digest="",
        weights_digest="",
        timeout_s=0,
        accepts=Accepts(()),
        segments=(),
    )
