"""The segmentation covers the voxels that the model marked, exactly, wherever the patient lay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from dicom_node.domain.finding import Code
from dicom_node.errors import ResultError
from dicom_node.results.seg import build_seg
from dicom_node.spool import Spool
from tests.unit.results.case import (
    CARD,
    LEFT_BOX,
    NO_ORGANS,
    RIGHT_BOX,
    Masks,
    analysis_of,
    both_lungs,
    boxes,
    build,
    card_with,
    make_case,
)

TILT = np.deg2rad(20)
ORIENTATIONS: dict[str, dict[str, Any]] = {
    "axial": {},
    "head to feet": {"spacing_mm": (-2.5, 1.5, 1.5)},
    "sagittal": {"cosines": (0, 1, 0, 0, 0, -1)},
    "coronal": {"cosines": (1, 0, 0, 0, 0, -1)},
    "prone, turned by half": {"cosines": (-1, 0, 0, 0, -1, 0)},
    "oblique": {"cosines": (np.cos(TILT), 0, -np.sin(TILT), 0, 1, 0)},
    "not square, frames that end inside a byte": {"rows": 43, "columns": 51},
    "wide pixels, overlapping slices": {"spacing_mm": (0.7, 1.25, 0.8)},
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_segmentation_read_back_covers_the_marked_voxels_exactly(
    orientation: str, tmp_path: Path, spool: Spool
) -> None:
    case = make_case(tmp_path / "ct", **ORIENTATIONS[orientation])
    masks = both_lungs(case)
    seg = build(case, masks, spool, NO_ORGANS).seg
    volume = hd.seg.Segmentation.from_dataset(seg).get_volume()
    for channel, mask in enumerate(masks.values()):
        marked = np.argwhere(mask)
        assert np.count_nonzero(volume.array[..., channel]) == len(marked)
        points_mm = marked @ case.volume.affine[:3, :3].T + case.volume.affine[:3, 3]
        indices = np.rint(volume.map_reference_to_indices(points_mm)).astype(int)
        np.testing.assert_allclose(volume.map_indices_to_reference(indices), points_mm, atol=1e-3)
        assert volume.array[(*indices.T, channel)].all()


def test_every_frame_names_the_slice_it_lies_on(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    seg = build(case, both_lungs(case), spool).seg
    position_of = {ds.SOPInstanceUID: ds.ImagePositionPatient for ds in case.volume.datasets}
    assert seg.NumberOfFrames == 11 + 14
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == position_of[source.ReferencedSOPInstanceUID]
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == case.job.series_instance_uid
    assert seg.FrameOfReferenceUID == case.volume.datasets[0].FrameOfReferenceUID


def test_segments_carry_their_codes_and_the_model_that_made_them(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    built = build(case, both_lungs(case), spool)
    seg = built.seg
    assert seg.SOPClassUID == SegmentationStorage
    assert seg.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert seg.SegmentationType == "BINARY"
    assert [(s.SegmentNumber, s.SegmentLabel) for s in seg.SegmentSequence] == [(1, "Left lung"), (2, "Right lung")]
    left = seg.SegmentSequence[0]
    kind = left.SegmentedPropertyTypeCodeSequence[0]
    assert kind.CodeValue == "39607008"
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"
    assert left.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    assert left.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = left.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("lung_ct", "0.1.0+sha256.cdcdcdcdcdcd")
    assert "cd" * 32 in algorithm.AlgorithmParameters
    assert CARD.training in left.SegmentDescription
    assert (left.TrackingID, left.TrackingUID) == ("Left lung", built.findings.segments[0].tracking_uid)
    assert len(left.RecommendedDisplayCIELabValue) == 3


def test_the_side_of_a_lesion_belongs_to_its_region(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    nodule = replace(CARD.segments[0], region=Code("39607008", "SCT", "Lung"), type=Code("27925004", "SCT", "Nodule"))
    seg = build(case, both_lungs(case), spool, card_with(segments=(nodule, NO_ORGANS.segments[1]))).seg
    region = seg.SegmentSequence[0].AnatomicRegionSequence[0]
    assert region.AnatomicRegionModifierSequence[0].CodeValue == "7771000"
    assert (
        "SegmentedPropertyTypeModifierCodeSequence" not in seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    )


def test_an_empty_segment_is_left_out(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    built = build(case, boxes(case, right_lung=RIGHT_BOX), spool)
    assert [(s.SegmentNumber, s.SegmentLabel) for s in built.seg.SegmentSequence] == [(1, "Right lung")]
    assert [segment["volume_ml"] for segment in built.summaries["seg"]["segments"]] == [0.0, 39.69]


def test_nothing_found_makes_no_segmentation(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    assert list(build(case, boxes(case), spool).files) == ["sr"]


def test_segments_may_overlap(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    masks = boxes(case, left_lung=LEFT_BOX, right_lung=np.s_[5:9, 12:20, 30:45])
    seg = build(case, masks, spool).seg
    assert seg.SegmentsOverlap == "YES"
    voxels = hd.seg.Segmentation.from_dataset(seg).get_volume().array.sum(axis=(0, 1, 2))
    assert list(voxels) == [np.count_nonzero(mask) for mask in masks.values()]


def test_one_voxel_in_one_slice_is_enough(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    seg = build(case, boxes(case, left_lung=np.s_[17, 16, 40]), spool).seg
    assert seg.NumberOfFrames == 1
    assert seg.pixel_array.sum() == 1


def test_a_mask_on_another_grid_is_refused(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    masks = {name: mask[:, ::2, ::2] for name, mask in both_lungs(case).items()}
    analysis = replace(analysis_of(case, both_lungs(case)), marks=Masks(masks))
    with pytest.raises(ResultError, match=r"'left lung' has the grid \(20, 32, 32\), its source \(20, 64, 64\)"):
        build_seg(analysis)


def test_a_mask_that_changed_after_it_was_measured_is_refused(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    masks = both_lungs(case)
    analysis = analysis_of(case, masks)
    masks["left lung"][0, 0, 0] = True
    with pytest.raises(ResultError, match="not the mask that was measured"):
        build_seg(analysis)
