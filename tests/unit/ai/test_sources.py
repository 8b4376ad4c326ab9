"""Public sets come in many forms; whichever it is, voxels and nodules end up where the patient is."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from ai.data.dicom_series import find_series, read_volume
from ai.data.nifti import write_nifti
from ai.data.sources import find_entries
from tests.ct import small_ct

AXIAL = np.array([[0, 0, 0.7, -9], [0, 0.8, 0, 4], [2.5, 0, 0, 3], [0, 0, 0, 1.0]])


def test_a_dicom_folder_gives_the_structures_of_its_segmentation_and_of_its_structure_set(tmp_path: Path) -> None:
    paths = small_ct(tmp_path / "ct", slices=12, rows=24, columns=32)
    volume = read_volume(find_series(tmp_path)[0])
    mask = np.zeros(volume.array.shape, bool)
    mask[3:6, 4:9, 10:22] = True
    nodule = np.zeros_like(mask)
    nodule[8:10, 15:19, 3:7] = True
    _save_seg(paths, [("Left lung", mask), ("Nodule 1", nodule)], tmp_path / "seg.dcm")
    _save_structure(paths, volume.affine, tmp_path / "rt.dcm")
    (tmp_path / "notes.txt").write_text("not DICOM")

    form, (entry,) = find_entries(tmp_path)
    case = entry.read()

    assert form == "dicom"
    assert case.volume.modality == "CT"
    assert case.labels is not None
    assert dict(case.label_names) == {1: "Left lung", 2: "Heart"}  # the larger first, so that the smaller shows
    assert np.array_equal(case.labels == 1, mask)
    heart = case.labels == 2
    assert heart.any(axis=(1, 2)).nonzero()[0].tolist() == [7]
    assert heart[7].sum() == 8 * 6 - 4 * 2  # a contour within a contour cuts a hole
    (found,) = case.nodules
    assert case.instances is not None
    assert np.array_equal(case.instances == found.instance, nodule)
    assert found.centre_mm == pytest.approx((volume.affine @ [8.5, 16.5, 4.5, 1])[:3])
    assert find_entries(tmp_path, wanted=["heart"])[1][0].read().label_names == {1: "Heart"}


def test_a_series_with_a_gap_is_refused(tmp_path: Path) -> None:
    small_ct(tmp_path, slices=12, change=lambda number, ds: None if number == 5 else ds)

    with pytest.raises(ValueError, match="not evenly spaced"):
        find_entries(tmp_path)[1][0].read()


def test_luna16_is_read_with_its_subsets_and_what_it_excludes(tmp_path: Path) -> None:
    voxels = np.arange(4 * 3 * 2, dtype="<i2").reshape(4, 3, 2)
    _save_metaimage(tmp_path / "subset3" / "1.2.3.mhd", voxels, "MET_SHORT")
    lungs = np.array([[[3, 4]] * 3] * 4, dtype="u1")
    _save_metaimage(tmp_path / "seg-lungs-LUNA16" / "1.2.3.mhd", lungs, "MET_UCHAR")
    header = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    (tmp_path / "annotations.csv").write_text(f"{header}1.2.3,-9.5,20,31,5.5\nother,1,2,3,4\n")
    (tmp_path / "annotations_excluded.csv").write_text(f"{header}1.2.3,-9.5,20,33,-1\n")

    form, (entry,) = find_entries(tmp_path)
    case = entry.read()

    assert (form, entry.patient, case.split) == ("luna16", "1.2.3", "subset3")
    assert np.array_equal(case.volume.array, voxels)
    assert (case.volume.affine @ [1, 2, 1, 1])[:3] == pytest.approx([-9.5, 21.4, 32])
    assert [(n.centre_mm, n.diameter_mm, n.excluded) for n in case.nodules] == [
        ((-9.5, 20, 31), 5.5, False),
        ((-9.5, 20, 33), 3, True),
    ]
    assert case.labels is not None
    assert case.labels[0, 0].tolist() == [2, 1]  # columns go to the left


def test_the_decathlon_gives_channels_and_the_tumours_of_its_lungs(tmp_path: Path) -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[1:4, 1:5, 1:5] = 1
    labels[6:8, 6, 6] = 1
    _save_nifti(tmp_path / "imagesTr" / "lung_001.nii.gz", labels.astype(np.float32))
    _save_nifti(tmp_path / "labelsTr" / "lung_001.nii.gz", labels)
    _save_nifti(tmp_path / "imagesTs" / "lung_002.nii.gz", labels)
    described = {
        "name": "Lung",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "cancer"},
        "licence": "CC-BY-SA",
        "training": [{"image": "./imagesTr/lung_001.nii.gz", "label": "./labelsTr/lung_001.nii.gz"}],
        "test": ["./imagesTs/lung_002.nii.gz"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(described))

    form, entries = find_entries(tmp_path)
    train, test = (entry.read() for entry in entries)

    assert form == "msd"
    assert train.labels is not None
    assert np.array_equal(train.labels, labels)
    assert train.provenance.licence == "CC-BY-SA"
    assert sorted((n.instance, round(n.volume_ml or 0, 4), n.excluded) for n in train.nodules) == [
        (1, 0.0672, False),
        (2, 0.0028, True),
    ]
    assert (test.split, test.labels, test.knows_nodules) == ("test", None, False)


@pytest.mark.parametrize(
    ("name", "files", "patient"),
    [
        ("BraTS2021_00007", ("_t1", "_t1ce", "_t2", "_flair", "_seg"), "BraTS2021_00007"),
        ("BraTS-GLI-00007-001", ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"), "BraTS-GLI-00007"),
    ],
)
def test_brats_is_read_in_both_its_spellings(tmp_path: Path, name: str, files: Sequence[str], patient: str) -> None:
    for value, end in enumerate(files):
        _save_nifti(tmp_path / "train" / name / f"{name}{end}.nii.gz", np.full((3, 4, 5), value, np.uint8))

    form, (entry,) = find_entries(tmp_path)
    case = entry.read()

    assert (form, entry.patient, case.patient) == ("brats", patient, patient)
    assert [float(volume.array.max()) for volume in case.images.values()] == [0, 1, 2, 3]
    assert list(case.images) == ["t1", "t1ce", "t2", "flair"]
    assert case.labels is not None
    assert set(case.labels.ravel()) == {3}  # 4 was the enhancing tumour until 2021


def test_challenges_of_isbi_are_read(tmp_path: Path) -> None:
    lits, isic = tmp_path / "lits", tmp_path / "isic"
    _save_nifti(lits / "volume-4.nii", np.zeros((3, 4, 5), np.float32))
    _save_nifti(lits / "segmentation-4.nii", np.full((3, 4, 5), 2, np.uint8))
    isic.mkdir()
    Image.fromarray(np.full((4, 6, 3), (200, 100, 50), np.uint8)).save(isic / "ISIC_0000001.jpg", quality=100)
    Image.fromarray(np.array([[0, 255]] * 2, np.uint8)).resize((6, 4), 0).save(isic / "ISIC_0000001_segmentation.png")

    (form, (liver,)), (other, (lesion,)) = find_entries(lits), find_entries(isic)

    assert (form, liver.id, other) == ("lits", "lits-4", "isic")
    labels = lesion.read().labels
    assert labels is not None
    assert labels[0, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert [round(float(v.array.mean()), -1) for v in lesion.read().images.values()] == [200, 100, 50]


def test_a_source_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No case was found"):
        find_entries(tmp_path)
    with pytest.raises(ValueError, match="no reader"):
        find_entries(tmp_path, "nrrd")
    with pytest.raises(ValueError, match="There is no"):
        find_entries(tmp_path / "missing")


def _save_seg(paths: list[Path], masks: list[tuple[str, NDArray[np.bool_]]], path: Path) -> None:
    described = [
        highdicom.seg.SegmentDescription(
            number,
            label,
            codes.SCT.AnatomicalStructure,
            codes.SCT.Lung,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, (label, _) in enumerate(masks, start=1)
    ]
    highdicom.seg.Segmentation(
        [pydicom.dcmread(file) for file in paths],
        np.stack([mask for _, mask in masks], axis=-1).astype(np.uint8),
        highdicom.seg.SegmentationTypeValues.BINARY,
        described,
        *(generate_uid(), 2, generate_uid(), 1, "maker", "model", "1", "1"),
    ).save_as(path)


def _save_structure(paths: list[Path], affine: NDArray[np.float64], path: Path) -> None:
    """One structure on slice 7: a square around pixels, and a smaller one within."""
    source = pydicom.dcmread(paths[0])
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.Modality = generate_uid(), source.StudyInstanceUID, "RTSTRUCT"
    roi, referenced, study, frame = Dataset(), Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName = 5, "Heart"
    referenced.SeriesInstanceUID = source.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [referenced]
    frame.RTReferencedStudySequence = [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence = [roi]
    drawn = Dataset()
    drawn.ReferencedROINumber = 5
    drawn.ContourSequence = []
    for low, high in (((9.5, 19.5), (17.5, 25.5)), ((11.5, 21.5), (15.5, 23.5))):
        corners = [(7, low[0], low[1]), (7, low[0], high[1]), (7, high[0], high[1]), (7, high[0], low[1])]
        contour = Dataset()
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.NumberOfContourPoints = 4
        contour.ContourData = [round(float(v), 4) for corner in corners for v in (affine @ [*corner, 1])[:3]]
        drawn.ContourSequence.append(contour)
    ds.ROIContourSequence = [drawn]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)


def _save_metaimage(path: Path, voxels: NDArray[np.generic], kind: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".zraw").write_bytes(zlib.compress(voxels.tobytes()))
    path.write_text(
        "ObjectType = Image\nNDims = 3\nCompressedData = True\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        "Offset = -10 20 30\nElementSpacing = 0.5 0.7 2\nDimSize = 2 3 4\n"
        f"ElementType = {kind}\nElementDataFile = {path.stem}.zraw\n"
    )


def _save_nifti(path: Path, array: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(array, AXIAL, path)
