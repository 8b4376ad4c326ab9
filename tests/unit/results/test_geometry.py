"""Whatever way a patient was cut, results lie on the voxels that were meant, exactly; or the series is refused.

The phantom is a function of patient space (LPS, mm) and alike in no direction. A slice is what it gives at the places
that the slice's own header names, and so is the truth that each frame of a result is compared with: neither knows
anything of arrays, affines or the order of slices.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage

from ai.contract import Detection, LabelMap, Prediction
from dicom_node.domain.model import OutputKind
from dicom_node.domain.study import Slice, examine
from dicom_node.errors import GeometryError
from dicom_node.spool import Spool
from dicom_node.volume import load_volume
from dicom_node.work.findings import findings_from
from tests.ct import Change, small_ct
from tests.stored import spool_files
from tests.unit.results.case import NODULES, Case, built_of, card_with, job_on
from tests.unit.results.test_rtstruct import enclosed

AIR, LUNG, BODY, NODULE = -1000, -850, 40, 25
CARD = card_with(outputs=(OutputKind.SEG, OutputKind.PM, OutputKind.RTSTRUCT, OutputKind.GSPS), detections=(NODULES,))
Vector = NDArray[np.float64]
C, S = np.cos(np.deg2rad(25)), np.sin(np.deg2rad(25))

GRIDS: dict[str, dict[str, Any]] = {
    "axial": {},
    "axial, from the head down": {"reversed": True},
    "axial, files in no order": {"shuffled": True},
    "axial, rows flipped": {"cosines": (-1, 0, 0, 0, 1, 0)},
    "axial, columns flipped": {"cosines": (1, 0, 0, 0, -1, 0)},
    "axial, prone: both flipped": {"cosines": (-1, 0, 0, 0, -1, 0)},
    "axial, feet first": {"cosines": (-1, 0, 0, 0, 1, 0), "position": "FFS", "reversed": True},
    "axial, transposed": {"cosines": (0, 1, 0, 1, 0, 0)},
    "coronal": {"cosines": (1, 0, 0, 0, 0, -1)},
    "sagittal": {"cosines": (0, 1, 0, 0, 0, -1)},
    "oblique about one axis": {"cosines": (C, 0, -S, 0, 1, 0)},
    "oblique about two axes": {"cosines": (C, S, 0, -S * C, C * C, -S)},
    "anisotropic: thick slices": {"spacing_mm": (6.0, 1.5, 1.5)},
    "anisotropic: overlapping slices": {"spacing_mm": (1.7, 4.0, 4.0)},
    "pixels not square, image not square": {"spacing_mm": (4.0, 2.0, 3.0), "rows": 51, "columns": 43},
    "far from the origin": {"shift_mm": (812.3, -455.7, 1203.1)},
    "positions with one decimal": {"spacing_mm": (2.53, 2.5, 2.5), "decimals": 1},
}


def hu_at(points: Vector) -> NDArray[np.int_]:
    """Values of the phantom at points of the patient, shape (..., 3), LPS in mm."""

    def within(center: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
        return np.asarray((((points - center) / radii) ** 2).sum(axis=-1) <= 1)

    hu = np.where(within((2, 3, 0), (70, 48, 75)), BODY, AIR)
    hu[within((-32, 4, -6), (24, 32, 44))] = LUNG
    hu[within((30, -2, 8), (19, 27, 36))] = LUNG
    hu[within((33, -9, 17), (9, 7, 8))] = NODULE
    hu[within((-30, 12, -20), (6, 8, 7))] = NODULE
    return np.asarray(hu)


def places(ds: Dataset, shift_mm: Vector) -> Vector:
    """Where the pixels of a slice lie in the phantom (PS3.3 C.7.6.2.1.1)."""
    position, cosines = np.array(ds.ImagePositionPatient, float), np.array(ds.ImageOrientationPatient, float)
    down, across = (float(mm) for mm in ds.PixelSpacing)
    row, column = np.meshgrid(np.arange(ds.Rows), np.arange(ds.Columns), indexing="ij")
    within = column[..., None] * cosines[:3] * across + row[..., None] * cosines[3:] * down
    return np.asarray(position + within - shift_mm)


def truth(ds: Dataset, shift_mm: Vector) -> dict[str, NDArray[np.bool_]]:
    points = places(ds, shift_mm)
    hu, left = hu_at(points), points[..., 0] > 0
    lung, nodule = hu == LUNG, hu == NODULE
    return {"Left lung": lung & left, "Right lung": lung & ~left, "Nodule": nodule}


def write(folder: Path, grid: dict[str, Any], change: Change = lambda number, ds: ds) -> tuple[list[Path], Vector]:
    options: dict[str, Any] = {
        "spacing_mm": (4.0, 3.0, 3.0),
        "rows": 52,
        "columns": 54,
        "cosines": (1, 0, 0, 0, 1, 0),
    } | grid
    shift_mm, decimals = np.array(options.pop("shift_mm", (0, 0, 0)), float), options.pop("decimals", 6)
    back, shuffled = options.pop("reversed", False), options.pop("shuffled", False)
    position = options.pop("position", "HFS")
    cosines, (step, down, across) = np.array(options["cosines"], float), options["spacing_mm"]
    slices = int(150 / step) + 1
    half = (options["columns"] - 1) / 2 * across * cosines[:3] + (options["rows"] - 1) / 2 * down * cosines[3:]
    origin = shift_mm + np.array((3.1, -2.2, 1.3)) - half - (slices - 1) / 2 * step * np.cross(cosines[:3], cosines[3:])

    def phantom(number: int, ds: Dataset) -> Dataset | None:
        ds.ImagePositionPatient = [round(float(x), decimals) for x in ds.ImagePositionPatient]
        ds.PatientPosition = position
        ds.PixelData = (hu_at(places(ds, shift_mm)) + 1024).astype("<u2").tobytes()
        if back:
            ds.InstanceNumber = slices - number
        changed: Dataset | None = change(number, ds)
        return changed

    paths = small_ct(folder, slices=slices, origin_mm=tuple(origin), change=phantom, **options)
    order = np.random.default_rng(5).permutation(len(paths)) if shuffled else range(len(paths))[:: -1 if back else 1]
    return [paths[k] for k in order], shift_mm


def read(paths: list[Path], spool: Spool) -> Case:
    """Assemble and load a series as the node does.

    Raises
    ------
    GeometryError
        With the reason of the refusal.
    """
    kept = {instance.sop_instance_uid: instance for instance in spool_files(spool, paths)}
    verdict = examine([Slice(uid, instance.header) for uid, instance in kept.items()])
    if verdict.refusal:
        raise GeometryError(verdict.refusal)
    instances = tuple(kept[uid] for uid in verdict.slices)
    volume = load_volume(spool, instances)
    return Case(paths, volume, job_on(instances, volume.datasets[0]))


def predict(case: Case, shift_mm: Vector) -> Prediction:
    """Mark by value, and tell sides by the affine, as a model does: it knows nothing of headers."""
    array, affine = case.volume.array, case.volume.affine
    k, j, i = np.indices(array.shape)
    x = affine[0, 0] * k + affine[0, 1] * j + affine[0, 2] * i + affine[0, 3] - shift_mm[0]
    lungs = np.where(array == LUNG, np.where(x > 0, 1, 2), 0).astype(np.uint8)
    instances = np.where(array == NODULE, np.where(x > 0, 1, 2), 0).astype(np.uint8)
    saliency = np.clip(array + 1024, 0, 255).astype(np.uint8) * (instances > 0)
    found = (Detection("nodule", 0.9), Detection("nodule", 0.8))
    maps = (LabelMap(lungs, {1: "left lung", 2: "right lung"}),)
    return Prediction(maps, {}, "cpu", found, instances, saliency.astype(np.uint8))


@pytest.mark.parametrize("name", GRIDS)
def test_every_voxel_of_every_result_lies_where_the_patient_has_it(name: str, tmp_path: Path, spool: Spool) -> None:
    paths, shift_mm = write(tmp_path / "ct", GRIDS[name])
    case = read(paths, spool)
    prediction = predict(case, shift_mm)
    built = built_of(case, prediction, findings_from(prediction, CARD, case.volume, case.job.id), spool, CARD)
    assert list(built.files) == ["seg", "pm", "rtstruct", "gsps"]
    assert [s.laterality.meaning for s in built.findings.present if s.laterality] == ["Left", "Right", "Left", "Right"]
    sources = {ds.SOPInstanceUID: ds for ds in map(dcmread, paths)}
    expected = {uid: truth(ds, shift_mm) for uid, ds in sources.items()}
    shown = frames(built.seg)
    for label in ("Left lung", "Right lung", "Nodule"):
        found = dict.fromkeys(sources, 0)
        for (segment, uid), pixels in shown.items():
            if segment.startswith(label):
                assert not (pixels & ~expected[uid][label]).any(), (label, uid)
                found[uid] += int(pixels.sum())
        assert found == {uid: int(masks[label].sum()) for uid, masks in expected.items()}
        assert sum(found.values()) > 50
    for (_, uid), pixels in frames(built.pm).items():
        stored = sources[uid].pixel_array.astype(int)
        assert np.array_equal(pixels, np.where(expected[uid]["Nodule"], np.clip(stored, 0, 255), 0))
    structures = dcmread(BytesIO(built.files["rtstruct"]))
    for roi in structures.StructureSetROISequence:
        voxels = enclosed(case, structures, int(roi.ROINumber))
        assert voxels.max() == 1
        for ds, pixels in zip(case.volume.datasets, voxels, strict=True):
            label = "Nodule" if str(roi.ROIName).startswith("Nodule") else str(roi.ROIName)
            assert not ((pixels > 0) & ~expected[ds.SOPInstanceUID][label]).any()


def frames(result: Dataset) -> dict[tuple[str, str], NDArray[Any]]:
    """(segment label, SOP Instance UID of the slice) -> pixels, after each frame is proved to lie on that slice."""
    labels = {item.SegmentNumber: str(item.SegmentLabel) for item in result.get("SegmentSequence", ())}
    found = {}
    for item, pixels in zip(result.PerFrameFunctionalGroupsSequence, result.pixel_array, strict=True):
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber if labels else 0
        uid = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found[labels.get(number, ""), str(uid)] = pixels.astype(bool) if labels else pixels.astype(int)
    return found


def drop(*numbers: int) -> Change:
    return lambda number, ds: None if number in numbers else ds


def tilt(number: int, ds: Dataset) -> Dataset:
    x, y, z = ds.ImagePositionPatient
    ds.ImagePositionPatient = [x, y + np.tan(np.deg2rad(12)) * z, z]
    ds.GantryDetectorTilt = "12"
    return ds


def sway(number: int, ds: Dataset) -> Dataset:
    x, y, z = ds.ImagePositionPatient
    ds.ImagePositionPatient = [x + (6 if number == 11 else 0), y, z]
    return ds


def turn_half(number: int, ds: Dataset) -> Dataset:
    if number >= 20:
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    return ds


def make_multi_frame(number: int, ds: Dataset) -> Dataset:
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = 2
    ds.PixelData *= 2
    return ds


def move_up(number: int, ds: Dataset) -> Dataset:
    x, y, z = ds.ImagePositionPatient
    ds.ImagePositionPatient = [x, y, z + (2 if number > 20 else 0)]
    return ds


def narrow(number: int, ds: Dataset) -> Dataset:
    ds.PixelSpacing = [3.0, 3.0 if number else 2.9]
    return ds


REFUSED = {
    "a slice is missing": (drop(15), "A gap: 8 mm"),
    "three slices are missing": (drop(15, 16, 30), "A gap"),
    "the gantry was tilted": (tilt, "stacked askew"),
    "a slice is displaced": (sway, "displaced against each other"),
    "two orientations": (turn_half, "2 orientations"),
    "enhanced multi-frame": (make_multi_frame, "multi-frame"),
    "uneven steps": (move_up, "uneven|gap"),
    "two pixel spacings": (narrow, "2 pixel spacings"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_regular_grid_is_refused_with_its_reason(name: str, tmp_path: Path, spool: Spool) -> None:
    change, reason = REFUSED[name]
    paths, _ = write(tmp_path / "ct", {}, change)
    with pytest.raises(GeometryError, match=f"(?i){reason}"):
        read(paths, spool)
