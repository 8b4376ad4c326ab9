"""A synthetic series, a model that marks boxes in it, and the results made of both."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from ai.contract import Detection, LabelMap, Prediction, Registration
from ai.measure.region import box_of
from dicom_node.domain.encoding import Encoding
from dicom_node.domain.finding import Axes, Code, Findings, Measurement, Quality, Segment
from dicom_node.domain.job import Job, JobInstance
from dicom_node.domain.model import Accepts, DetectionCard, ModelCard, OutputKind, SegmentCard
from dicom_node.domain.uids import result_uid
from dicom_node.results import BUILDERS, Equipment, build_results
from dicom_node.results.analysis import Analysis
from dicom_node.results.header import Origin
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
MORPHOLOGY = Code("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE = Code("27925004", "SCT", "Nodule")
LESION = Code("52988006", "SCT", "Lesion")
# The same outputs as things of which no anatomy is expected: boxes stay where they are when the patient is turned.
NO_ORGANS = replace(CARD, segments=tuple(replace(each, type=LESION, laterality=None) for each in CARD.segments))
OF_OTHERS = {OutputKind.REGISTRATION, OutputKind.DEFORMATION, OutputKind.GREY}
ALL = tuple(kind for kind in BUILDERS if kind not in OF_OTHERS)  # every kind that a model which marks things gives
NODULES = DetectionCard(
    "nodule", "Nodule", "Nodule detection", MORPHOLOGY, NODULE, LUNG, within=("left lung", "right lung")
)
LUNG_RADS = Code("LUNGRADS2022", "99DICOMNODE", "Lung-RADS 2022 category")
PART_SOLID = Code("PARTSOLID", "99DICOMNODE", "Part-solid")
EQUIPMENT = Equipment("dicom-node", "0.1.0", "N-1", "General Hospital")
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

    @property
    def viewer_sr(self) -> Dataset:
        return dcmread(BytesIO(self.files["viewer_sr"]))

    @property
    def pm(self) -> Dataset:
        return dcmread(BytesIO(self.files["pm"]))

    @property
    def sc(self) -> Dataset:
        return dcmread(BytesIO(self.files["sc"]))


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


def nodules(case: Case) -> tuple[Prediction, Findings]:
    """Both lungs, a part-solid nodule in the left one and a small one at the wall of the right, as a model says it."""
    masks = both_lungs(case)
    instances = np.zeros(case.volume.array.shape, np.uint8)
    instances[8:12, 28:34, 42:48] = 1
    instances[5:7, 20:23, 25:28] = 2
    saliency = np.zeros(instances.shape, np.uint8)
    saliency[7:13, 26:36, 40:50] = 90
    saliency[9:11, 29:33, 43:47] = 255
    saliency[5:7, 20:23, 25:28] = 120
    found = (Detection("nodule", 0.93), Detection("nodule", 0.41))
    prediction = replace(predict(masks), detections=found, instances=instances, saliency=saliency)
    lungs = findings_from(prediction, CARD, case.volume, case.job.id)
    first = Segment(
        number=3,
        laterality=LEFT,
        measurements=(
            *_size("Long Axis", "103339001", 8.42),
            *_size("Short Axis", "103340004", 6.06),
            Measurement(Code("118565006", "SCT", "Volume"), 810.0, Code("mm3", "UCUM", "cubic millimeter")),
            *(_attenuation(*each) for each in (("Mean", "373098007", 31.2), ("Minimum", "255605001", -40.0))),
        ),
        qualities=(
            Quality(Code("ATTENUATION", "99DICOMNODE", "Attenuation type"), PART_SOLID, "probability 0.71"),
            Quality(LUNG_RADS, Code("4A", "99DICOMNODE", "4A"), "part-solid, 8.4 mm, solid part 6.1 mm"),
        ),
        **_nodule(1, case, instances),
    )
    sizes = (*_size("Long Axis", "103339001", 4.2), *_size("Short Axis", "103340004", 3.1))
    second = Segment(number=4, laterality=RIGHT, measurements=sizes, **_nodule(2, case, instances))
    highest = Quality(LUNG_RADS, Code("4A", "99DICOMNODE", "4A"), "the highest of 2 nodules")
    return prediction, Findings((*lungs.segments, first, second), (highest,))


def _nodule(number: int, case: Case, instances: NDArray[np.uint8]) -> dict[str, Any]:
    voxels = int(np.count_nonzero(instances == number))
    return {
        "output": f"nodule/{number}",
        "label": f"Nodule {number}",
        "category": MORPHOLOGY,
        "type": NODULE,
        "region": LUNG,
        "color_rgb": (255, 200, 60),
        "tracking_id": f"Nodule {number}",
        "tracking_uid": result_uid(case.job.id, f"track/nodule/{number}"),
        "voxels": voxels,
        "volume_ml": round(voxels * 2.5 * 1.5 * 1.5 / 1000, 3),
        "score": 0.93 if number == 1 else 0.41,
        "axes": _axes(case, (9, 30.5, 44.5), 8.42, 6.06) if number == 1 else _axes(case, (5, 21, 26), 4.2, 3.1),
    }


def _axes(case: Case, center: tuple[float, float, float], long_mm: float, short_mm: float) -> Axes:
    """Long axis along the rows of a slice, short axis across them."""
    affine = case.volume.affine
    middle = affine[:3, :3] @ center + affine[:3, 3]
    ends = []
    for axis, length_mm in ((2, long_mm), (1, short_mm)):
        half = affine[:3, axis] / np.linalg.norm(affine[:3, axis]) * length_mm / 2
        ends.append((tuple(map(float, middle - half)), tuple(map(float, middle + half))))
    return Axes(*ends)  # type: ignore[arg-type]  # of three numbers each


def _size(meaning: str, value: str, size_mm: float) -> tuple[Measurement]:
    return (Measurement(Code(value, "SCT", meaning), size_mm, Code("mm", "UCUM", "millimeter")),)


def _attenuation(meaning: str, value: str, hu: float) -> Measurement:
    unit = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
    return Measurement(Code("112031", "DCM", "Attenuation Coefficient"), hu, unit, Code(value, "SCT", meaning))


def build(case: Case, masks: Mapping[str, NDArray[np.bool_]], spool: Spool, card: ModelCard = CARD) -> Built:
    prediction = predict(masks)
    return built_of(case, prediction, findings_from(prediction, card, case.volume, case.job.id), spool, card)


def built_of(
    case: Case,
    prediction: Prediction,
    findings: Findings,
    spool: Spool,
    card: ModelCard = CARD,
    encodings: Collection[Encoding] = (),
) -> Built:
    results = build_results(case.job, card, case.volume, findings, prediction, EQUIPMENT, spool, encodings=encodings)
    files = {result.name: spool.path(result.path).read_bytes() for result in results}
    return Built(findings, files, {result.name: result.summary for result in results})


def analysis_of(case: Case, masks: Mapping[str, NDArray[np.bool_]], card: ModelCard = CARD) -> Analysis:
    """What a builder gets; the masks may be changed afterwards."""
    prediction = predict(masks)
    findings = findings_from(prediction, card, case.volume, case.job.id)
    return Analysis(Origin.of(case.job, card, case.volume, EQUIPMENT), case.volume, findings, Masks(masks))


@dataclass(frozen=True)
class Masks:
    """Masks by name, as a model gives them."""

    masks: Mapping[str, NDArray[np.bool_]]
    saliency: NDArray[np.uint8] | None = None
    probabilities: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    registration: Registration | None = None
    images: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.masks[name].shape

    def box(self, name: str) -> tuple[slice, slice, slice]:
        return box_of(self.masks[name]) or (slice(0, 0), slice(0, 0), slice(0, 0))

    def within(self, name: str, box: tuple[slice, slice, slice]) -> NDArray[np.bool_]:
        return self.masks[name][box]

    def probability(self, name: str) -> NDArray[np.uint8] | None:
        return self.probabilities.get(name)


def card_with(**changes: Any) -> ModelCard:
    return replace(CARD, **changes)
