"""A drawn chest with nodules of known size, and the answer of a model that sees exactly what was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from ai.contract import Detection, LabelMap, Prediction
from dicom_node.domain import codes
from dicom_node.domain.eligibility import Accepts
from dicom_node.domain.finding import Code
from dicom_node.domain.model import ClassCard, Derived, DetectionCard, Measure, ModelCard, SegmentCard
from dicom_node.volume import Volume

ORGAN = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE = Code("27925004", "SCT", "Nodule")
SHAPE, SPACING_MM = (120, 125, 160), (2.0, 2.0, 2.0)
DENSITY_HU = {"solid": 30.0, "part-solid": -600.0, "ground-glass": -600.0}
CLASSES = {
    "attenuation": ClassCard(
        Code("112118", "DCM", "Density"), {name: Code(name.upper(), "99TEST", name) for name in DENSITY_HU}
    ),
    "margin": ClassCard(
        Code("111037", "DCM", "Margins"),
        {"smooth": Code("82280004", "SCT", "Smooth"), "spiculated": Code("112136", "DCM", "Spiculated")},
    ),
}
LUNGS = (
    SegmentCard(
        "left lung",
        "Left lung",
        ORGAN,
        codes.LUNG,
        codes.LEFT,
        measurements=(Measure.VOLUME, Measure.EMPHYSEMA_INDEX, Measure.OPACIFICATION),
        derive=(Derived.OPACIFICATION_GRADE,),
    ),
    SegmentCard("right lung", "Right lung", ORGAN, codes.LUNG, codes.RIGHT),
)
DETECTION = DetectionCard(
    output="nodule",
    label="Nodule",
    name="Nodule detection",
    category=ABNORMAL,
    type=NODULE,
    region=codes.LUNG,
    max_count=5,
    measurements=(
        *(Measure.VOLUME, Measure.LONG_AXIS, Measure.SHORT_AXIS, Measure.MEAN_DIAMETER, Measure.SOLID_DIAMETER),
        *(Measure.SURFACE_DISTANCE, Measure.MEAN_ATTENUATION, Measure.MIN_ATTENUATION, Measure.MAX_ATTENUATION),
    ),
    classes=CLASSES,
    within=("left lung", "right lung"),
    accepts=Accepts(max_slice_spacing_mm=3.0),
    derive=(Derived.ZONE, Derived.LUNG_RADS, Derived.FLEISCHNER, Derived.TNM_T_SIZE, Derived.BROCK),
)
CARD = ModelCard(
    name="chest",
    version="1",
    title="Chest",
    manufacturer="test",
    summary="",
    training="not trained",
    bundle=Path("chest"),
    digest="",
    weights_digest="",
    timeout_s=60,
    accepts=Accepts(("CT",)),
    segments=LUNGS,
    detections=(DETECTION,),
)


@dataclass(frozen=True)
class Drawn:
    """A nodule to draw: LPS centre and diameter in mm."""

    centre: tuple[float, float, float]
    diameter_mm: float
    attenuation: str = "solid"
    margin: str = "smooth"
    score: float = 0.9
    core_mm: float = 0.0


def chest(*nodules: Drawn, spacing_mm: tuple[float, float, float] = SPACING_MM, **header: Any) -> Chest:
    """Draw a body with two lungs of about 2 litres each, and nodules in them."""
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, spacing_mm[2]], [0, spacing_mm[1], 0], [spacing_mm[0], 0, 0]]
    extent = [size * mm for size, mm in zip(SHAPE, SPACING_MM, strict=True)]
    shape = tuple(round(whole / mm) for whole, mm in zip(extent, spacing_mm, strict=True))
    axes = [np.arange(size) * mm for size, mm in zip(shape, spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    body = ((x - 160) / 155) ** 2 + ((y - 125) / 115) ** 2 <= 1
    lungs = {
        name: ((x - at) / 55) ** 2 + ((y - 125) / 80) ** 2 + ((z - 120) / 100) ** 2 <= 1
        for name, at in (("right lung", 90), ("left lung", 230))
    }
    array = np.empty(shape, np.float32)
    array[:] = np.where(body, 40.0, -1000.0)
    array[lungs["left lung"] | lungs["right lung"]] = -850
    instances = np.zeros(shape, np.uint8)
    for number, nodule in enumerate(nodules, start=1):
        near = [
            np.flatnonzero(abs(a - at) <= nodule.diameter_mm) for a, at in zip(axes, nodule.centre[::-1], strict=True)
        ]
        box = tuple(slice(each[0], each[-1] + 1) for each in near)
        grids = np.meshgrid(*(a[part] for a, part in zip(axes, box, strict=True)), indexing="ij", sparse=True)
        away = np.sqrt(sum((a - at) ** 2 for a, at in zip(grids, nodule.centre[::-1], strict=True)))
        inside = away <= nodule.diameter_mm / 2
        array[box][inside] = DENSITY_HU[nodule.attenuation]
        array[box][away <= nodule.core_mm / 2] = 30
        instances[box][inside] = number
    ds = Dataset()
    ds.Modality, ds.PatientAge, ds.PatientSex = "CT", "060Y", "F"
    for keyword, value in header.items():
        setattr(ds, keyword, value)
    return Chest(Volume(array, affine, (ds,)), lungs, instances, nodules)


@dataclass(frozen=True)
class Chest:
    """What was drawn."""

    volume: Volume
    lungs: Mapping[str, NDArray[np.bool_]]
    instances: NDArray[np.uint8]
    nodules: Sequence[Drawn]

    def prediction(self, lungs: Mapping[str, NDArray[np.bool_]] | None = None) -> Prediction:
        """Answer as a model would that sees exactly what was drawn, or other lungs."""
        maps = tuple(LabelMap(mask.astype(np.uint8), {1: name}) for name, mask in (lungs or self.lungs).items())
        detections = tuple(
            Detection("nodule", n.score, {"attenuation": {n.attenuation: 0.9}, "margin": {n.margin: 0.8}})
            for n in self.nodules
        )
        return Prediction(maps, {}, "cpu", detections, self.instances)
