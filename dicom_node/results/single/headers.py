"""The headers of single images, made fit to be written into a result: no place in the patient, for they have none."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import config
from pydicom.dataset import Dataset

from dicom_node.domain.job import Job, JobInstance
from dicom_node.domain.model import ModelCard
from dicom_node.results.header import Equipment, Origin
from dicom_node.results.source import lossy_flags, patient_and_study, scanner_of

_IMAGE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns")
_IF_ANY = ("PixelSpacing", "ImagerPixelSpacing", "ImageLaterality", "PatientOrientation", "FrameOfReferenceUID")


def origin_of_images(
    job: Job, card: ModelCard, headers: Sequence[Dataset], instances: Sequence[JobInstance], equipment: Equipment
) -> Origin:
    """Tell where results on single images come from.

    Parameters
    ----------
    headers : sequence of pydicom.Dataset
        As received, in the order of the images.
    instances : sequence of JobInstance
        Their rows.
    """
    patient = patient_and_study(headers[0])
    with config.disable_value_validation():
        shared = scanner_of(patient)
        slices = [_header(header, shared, instance) for header, instance in zip(headers, instances, strict=True)]
    return Origin(job, card, equipment, patient, tuple(slices))


def _header(header: Dataset, shared: Dataset, instance: JobInstance) -> Dataset:
    copy = lossy_flags([header], [instance])
    copy.update(shared)
    for keyword in _IMAGE:
        setattr(copy, keyword, header[keyword].value)
    for keyword in _IF_ANY:
        if header.get(keyword):
            setattr(copy, keyword, header[keyword].value)
    return copy
