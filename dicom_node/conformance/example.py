"""A made-up scan, what a model could have found in it, and every object that the builders make of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, CTImageStorage, ExplicitVRLittleEndian

from dicom_node.domain import codes
from dicom_node.domain.eligibility import Accepts
from dicom_node.domain.encoding import Encoding, encoded
from dicom_node.domain.finding import Axes, Code, Findings, Map, Measurement, Quality, Registration, Segment
from dicom_node.domain.job import Document, Job, JobInstance
from dicom_node.domain.model import DetectionCard, ModelCard, OutputKind, SegmentCard
from dicom_node.results import BUILDERS, Made
from dicom_node.results.analysis import Analysis
from dicom_node.results.frames import Framed
from dicom_node.results.header import Equipment, Origin, file_bytes
from dicom_node.results.rejection import build_rejection
from dicom_node.results.seg import ENCODERS

_ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
_MORPHOLOGY = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_REGISTERED = (OutputKind.REGISTRATION, OutputKind.DEFORMATION)
_NODULE = Code("27925004", "SCT", "Nodule")


@dataclass(frozen=True, slots=True, eq=False)
class _Volume:
    datasets: tuple[Dataset, ...]
    affine: NDArray[np.float64] = field(default_factory=lambda: np.eye(4)[[2, 1, 0, 3]])
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def array(self) -> NDArray[np.float32]:
        return np.full((len(self.datasets), self.datasets[0].Rows, self.datasets[0].Columns), -850, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    vectors: NDArray[np.float32] | None
    affine: NDArray[np.float64]
    matrix: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Marks:
    masks: Mapping[str, NDArray[np.bool_]]
    registration: _Field | None = None
    images: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def shape(self, name: str, /) -> tuple[int, ...]:
        return self.masks[name].shape

    def box(self, name: str, /) -> tuple[slice, slice, slice]:
        marked = np.argwhere(self.masks[name])
        low, high = marked.min(axis=0), marked.max(axis=0) + 1
        return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])

    def within(self, name: str, box: tuple[slice, slice, slice], /) -> NDArray[np.bool_]:
        return self.masks[name][box]

    def probability(self, name: str, /) -> NDArray[np.uint8]:
        return np.asarray(self.masks[name] * 200, np.uint8)

    @property
    def saliency(self) -> NDArray[np.uint8]:
        nodules = [mask for name, mask in self.masks.items() if name.startswith("nodule")]
        return np.asarray(np.any(nodules, axis=0) * 200, np.uint8)


@cache
def made(vary: str = "") -> dict[OutputKind, Dataset]:
    """Build one object of every kind.

    Parameters
    ----------
    vary : str
        What is to differ from the plain example: ``scan``, ``model``, ``node``, ``job`` or ``findings``. What differs
        in an object then comes from there.
    """
    scan = _scan("2" if vary == "scan" else "1")
    job = _job(scan, "2" if vary == "job" else "1")
    card = (
        _CARD
        if vary != "model"
        else replace(
            _CARD,
            name="other",
            version="2.0.0",
            title="Other",
            manufacturer="Other",
            training="Other.",
            digest="e" * 64,
        )
    )
    node = "2" if vary == "node" else "1"
    equipment = Equipment(f"node {node}", f"0.{node}", f"N{node}", f"Hospital {node}", f"Maker {node}")
    volume = _Volume(scan)
    findings, marks = _found(volume.array.shape, 2 if vary == "findings" else 1)
    analysis = Analysis(Origin.of(job, card, volume, equipment), volume, findings, marks)
    results: dict[OutputKind, Dataset] = {}
    for kind, build in BUILDERS.items():
        results[kind] = _first(build(_told(analysis, kind)))
        for encoding in (Encoding.LABELMAP, Encoding.FRACTIONAL):
            if kind is OutputKind.SEG:
                results[encoded(kind, encoding)] = _first(ENCODERS[encoding](analysis))
            elif kind is OutputKind.SR:
                pointed = analysis.encoded(encoding, results[encoded(OutputKind.SEG, encoding)])
                results[encoded(kind, encoding)] = _first(build(pointed))
        analysis = analysis.after(results[kind])
    outdated = [Document("sr", Comprehensive3DSRStorage, "1.2.3.8.1", "1.2.3.8.2")]
    results[OutputKind.REJECTION] = build_rejection(job, card, scan[0], equipment, outdated)
    return {kind: results[kind] for kind in OutputKind}


def _told(analysis: Analysis, kind: OutputKind) -> Analysis:
    """What a model found that gives this kind."""
    if kind is OutputKind.GREY:
        return _imaged(analysis)
    return _registered(analysis, kind) if kind in _REGISTERED else analysis


def _imaged(analysis: Analysis) -> Analysis:
    """What a model gave that answers with an image of the scan."""
    number = len(analysis.findings.segments)
    values = np.arange(np.prod(analysis.shape), dtype=np.float32).reshape(analysis.shape) * number
    unit, quantity = codes.HOUNSFIELD_UNIT, codes.ATTENUATION
    said = tuple(Measurement(quantity, float(number), unit, how) for how in (codes.MEAN, codes.MAXIMUM))
    label = f"Image {analysis.origin.card.version}"
    made = Map("image", label, quantity, unit, None, "1.2.3.9.9", said, (40.0, 400.0))
    findings = replace(analysis.findings, maps=(made,))
    return replace(analysis, findings=findings, marks=_Marks({}, images={"image": values}))


def _registered(analysis: Analysis, kind: OutputKind) -> Analysis:
    """What a model found that lays another series onto the scan: by a field, or by a matrix."""
    number = len(analysis.findings.segments)
    others = []
    for header in analysis.origin.slices:
        other = Dataset()
        other.update(header)
        other.add_new("SeriesInstanceUID", "UI", f"{header.SeriesInstanceUID}.1")
        other.add_new("SOPInstanceUID", "UI", f"{header.SOPInstanceUID}.1")
        others.append(other)
    matrix = np.eye(4)
    matrix[0, 3] = number
    vectors = np.full((2, 2, 2, 3), number, np.float32) if kind is OutputKind.DEFORMATION else None
    found = Registration(
        f"fixed {analysis.origin.card.version}", "moving", "1.2.3.7", False, (0.0, 0.0, 1.0), 1.0, number, 2 * number
    )
    return replace(
        analysis,
        origin=replace(analysis.origin, others=tuple(others)),
        findings=replace(analysis.findings, registration=found),
        marks=_Marks({}, _Field(vectors, np.eye(4)[[2, 1, 0, 3]], matrix)),
    )


def _first(made: Made) -> Dataset:
    assert made is not None
    if not isinstance(made, Dataset | Framed):
        made = made[0]
    return dcmread(BytesIO(file_bytes(made))) if isinstance(made, Framed) else made


_CARD = ModelCard(
    name="example",
    version="1.0.0",
    title="Example",
    manufacturer="Example",
    summary="",
    training="Trained on nothing.",
    bundle=Path("example"),
    digest="a" * 64,
    weights_digest="b" * 64,
    timeout_s=60,
    accepts=Accepts(("CT",)),
    segments=(SegmentCard("left lung", "Left lung", _ANATOMY, codes.LUNG, codes.LEFT),),
    detections=(DetectionCard("nodule", "Nodule", "Nodule detection", _MORPHOLOGY, _NODULE, codes.LUNG),),
    outputs=tuple(OutputKind),
)


def _scan(which: str) -> tuple[Dataset, ...]:
    """Slices whose values can be told from those of another scan, where the standard leaves a choice."""
    slices = []
    depth, rows, columns = (6, 24, 24) if which == "1" else (7, 28, 26)
    for number in range(depth):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"1.2.3.{which}.3.{number}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.3.{which}.1", f"1.2.3.{which}.2"
        ds.FrameOfReferenceUID = f"1.2.3.{which}.4"
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"Name^{which}", f"P{which}", f"1960010{which}"
        ds.PatientSex, ds.PatientAge = "MFO"[int(which)], f"06{which}Y"
        ds.StudyDate = ds.SeriesDate = ds.ContentDate = f"2025030{which}"
        ds.StudyTime = ds.SeriesTime = ds.ContentTime = f"10150{which}"
        ds.StudyID, ds.AccessionNumber, ds.SeriesNumber = which, f"A{which}", int(which)
        ds.ReferringPhysicianName, ds.StudyDescription = f"Doctor^{which}", f"Study {which}"
        ds.Modality, ds.BodyPartExamined = "CT", ("CHEST", "LUNG")[int(which) - 1]
        ds.PositionReferenceIndicator, ds.TimezoneOffsetFromUTC = f"R{which}", f"+0{which}00"
        ds.Manufacturer, ds.ManufacturerModelName = f"Scanner {which}", f"Model {which}"
        ds.DeviceSerialNumber, ds.SoftwareVersions = which, which
        ds.Rows, ds.Columns = rows, columns
        ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, number]
        if which == "1":
            ds.LossyImageCompression, ds.LossyImageCompressionMethod = "01", "ISO_15444_1"
            ds.LossyImageCompressionRatio = 10
        slices.append(ds)
    return tuple(slices)


def _job(scan: tuple[Dataset, ...], which: str) -> Job:
    plain = str(ExplicitVRLittleEndian)
    instances = [JobInstance(ds.SOPInstanceUID, ds.SOPClassUID, plain, "", "", {"Rows": "24"}) for ds in scan]
    return Job(
        id=str(UUID(int=int(which))),
        series_id=str(UUID(int=9)),
        study_instance_uid=scan[0].StudyInstanceUID,
        series_instance_uid=scan[0].SeriesInstanceUID,
        series_revision=1,
        model="example",
        model_version="1.0.0",
        rule="example",
        destinations=(),
        priority=1,
        attempt=1,
        max_attempts=1,
        created_at=datetime(2025, 4, int(which), int(which), tzinfo=UTC),
        instances=tuple(instances),
    )


def _found(shape: tuple[int, ...], nodules: int) -> tuple[Findings, _Marks]:
    masks = {"left lung": np.zeros(shape, np.bool_)}
    masks["left lung"][1:-1, 4:20, 4:20] = True
    segments = []
    for n in range(1, nodules + 1):
        name, end = f"nodule/{n}", 12 + n
        masks[name] = np.zeros(shape, np.bool_)
        masks[name][1 + n, 8:12, 8:end] = True
        masks["left lung"][1 + n, 8:12, 8:end] = False  # a label map takes no overlap
        segments.append(_nodule(name, n, end, int(masks[name].sum())))
    lung = _segment("left lung", 1, _ANATOMY, codes.LUNG, voxels=int(masks["left lung"].sum()))
    return Findings((lung, *segments)), _Marks(masks)


def _nodule(name: str, n: int, end: int, voxels: int) -> Segment:
    """One on a single slice, from row and column 8."""
    low, middle, z = 7.5, 9.5, float(1 + n)
    return _segment(
        name,
        1 + n,
        _MORPHOLOGY,
        _NODULE,
        voxels=voxels,
        region=codes.LUNG,
        measurements=(
            Measurement(codes.LONG_AXIS, float(end - 8), codes.MILLIMETER),
            Measurement(codes.SHORT_AXIS, 4.0, codes.MILLIMETER),
        ),
        qualities=(Quality(codes.LUNG_RADS, codes.lung_rads_category("3"), f"solid, {end - 8} mm"),),
        score=end / 20,
        axes=Axes(((low, middle, z), (end - 0.5, middle, z)), ((middle, low, z), (middle, 11.5, z))),
    )


def _segment(output: str, number: int, category: Code, what: Code, **more: Any) -> Segment:
    plain: dict[str, Any] = {"region": None, "measurements": ()}
    return Segment(
        output=output,
        number=number,
        label=output.capitalize(),
        category=category,
        type=what,
        laterality=codes.LEFT,
        color_rgb=(200, 100, 50),
        tracking_id=output,
        tracking_uid=f"1.2.3.9.{number}",
        volume_ml=more["voxels"] / 1000,
        **(plain | more),
    )
