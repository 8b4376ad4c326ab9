"""A synthetic series, a model that marks boxes in it, and the results made of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from ai.contract import LabelMap, Prediction
from dicom_node.domain.finding import Code, Findings
from dicom_node.domain.job import Job, JobInstance
from dicom_node.domain.model import Accepts, ModelCard, SegmentCard
from dicom_node.results import Equipment, build_results
from dicom_node.spool import Spool
from dicom_node.volume import Volume
from dicom_node.work.findings import findings_from
from tests.ct import small_ct

ORGAN = Code("91723000", "SCT", "Anatomical Structure")
LUNG = Code("39607008", "SCT", "Lung")
LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")
BOTH = ("volume", "mean_attenuation")
CARD = ModelCard(
    name="lung_ct",
    version="0.1.0",
    title="Lung segmentation",
    manufacturer="dicom-node",
    summary="Both lungs.",
    training="Trained on 2 real and 200 synthetic scans; not for clinical use.",
    bundle=Path("lung_ct"),
    digest="ab" * 32,
    weights_digest="cd" * 32,
    timeout_s=60,
    accepts=Accepts(("CT",)),
    segments=(
        SegmentCard("left lung", "Left lung", ORGAN, LUNG, LEFT, None, (90, 140, 220), BOTH),
        SegmentCard("right lung", "Right lung", ORGAN, LUNG, RIGHT, None, (220, 140, 90), BOTH),
    ),
)
LEFT_BOX = np.s_[3:14, 10:41, 40:50]
RIGHT_BOX = np.s_[2:16, 12:40, 7:25]


@dataclass(frozen=True)
class Case:
    """One series and the job on it."""

    sources: list[Path]
    volume: Volume
    job: Job


@dataclass(frozen=True)
class Built:
    """What was written for a case."""

    findings: Findings
    files: Mapping[str, bytes]
    summaries: Mapping[str, dict[str, Any]]

    @property
    def seg(self) -> Dataset:
        return dcmread(BytesIO(self.files["seg"]))

    @property
    def sr(self) -> Dataset:
        return dcmread(BytesIO(self.files["sr"]))


def make_case(folder: Path, **options: Any) -> Case:
    """Write a series with `tests.ct.small_ct` and read it back, slices ascending along their normal."""
    sources = small_ct(folder, **options)
    return case_of([dcmread(path) for path in sources], sources)


def case_of(datasets: list[Dataset], sources: list[Path]) -> Case:
    cosines = np.array(datasets[0].ImageOrientationPatient, float)
    normal = np.cross(cosines[:3], cosines[3:])
    datasets = sorted(datasets, key=lambda ds: float(normal @ np.array(ds.ImagePositionPatient, float)))
    array = np.stack([ds.pixel_array.astype(np.float32) - 1024 for ds in datasets])
    positions = [np.array(ds.ImagePositionPatient, float) for ds in datasets]
    down, across = (float(mm) for mm in datasets[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = (positions[-1] - positions[0]) / max(len(positions) - 1, 1)
    affine[:3, 1], affine[:3, 2] = cosines[3:] * down, cosines[:3] * across
    affine[:3, 3] = positions[0]
    instances = tuple(
        JobInstance(ds.SOPInstanceUID, ds.SOPClassUID, ds.file_meta.TransferSyntaxUID, "", "", {}) for ds in datasets
    )
    for ds in datasets:
        del ds.PixelData
    volume = Volume(array=array, affine=affine, datasets=tuple(datasets))
    return Case(sources, volume, job_on(instances, datasets[0]))


def job_on(instances: tuple[JobInstance, ...], ds: Dataset) -> Job:
    return Job(
        id=str(UUID(int=7)),
        series_id=str(UUID(int=8)),
        study_instance_uid=ds.StudyInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        series_revision=1,
        model=CARD.name,
        model_version=CARD.version,
        rule="chest",
        destinations=("pacs",),
        priority=10,
        attempt=1,
        max_attempts=3,
        created_at=datetime(2025, 3, 1, 12, 30, 15, 123456, tzinfo=UTC),
        instances=instances,
    )


def boxes(case: Case, **marked: Any) -> dict[str, NDArray[np.bool_]]:
    """Masks by output name (``left_lung=np.s_[…]``); outputs that are not named stay empty."""
    masks = {}
    for segment in CARD.segments:
        masks[segment.output] = np.zeros(case.volume.array.shape, np.bool_)
        if (box := marked.get(segment.output.replace(" ", "_"))) is not None:
            masks[segment.output][box] = True
    return masks


def both_lungs(case: Case) -> dict[str, NDArray[np.bool_]]:
    return boxes(case, left_lung=LEFT_BOX, right_lung=RIGHT_BOX)


def predict(masks: Mapping[str, NDArray[np.bool_]]) -> Prediction:
    maps = tuple(LabelMap(mask.astype(np.uint8), {1: name}) for name, mask in masks.items())
    return Prediction(maps, {}, "cpu")


def build(case: Case, masks: Mapping[str, NDArray[np.bool_]], spool: Spool, card: ModelCard = CARD) -> Built:
    prediction = predict(masks)
    findings = findings_from(prediction, card, case.volume, case.job.id)
    equipment = Equipment("dicom-node", "0.1.0", "N-1", "General Hospital")
    results = build_results(case.job, card, case.volume, findings, prediction.mask, equipment, spool)
    files = {str(result.kind): spool.path(result.path).read_bytes() for result in results}
    return Built(findings, files, {str(result.kind): result.summary for result in results})


def card_with(**changes: Any) -> ModelCard:
    return replace(CARD, **changes)
