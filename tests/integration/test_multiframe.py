"""Multi-frame objects of scanners, as they came: the volume that another reader finds, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicom_node import volume as reading
from dicom_node.domain.study import Verdict, examine
from dicom_node.errors import GeometryError
from dicom_node.multiframe import slices_of
from dicom_node.spool import Spool
from dicom_node.volume import Volume, load_volume
from tests.ct import small_ct
from tests.enhanced import as_enhanced
from tests.stored import spool_files

DATA = Path(__file__).parents[1] / "data" / "enhanced"
SIEMENS, PHILIPS = DATA / "siemens_xa10_epi_6_1.dcm", DATA / "philips_enhanced_fmri_32frames.dcm"


def ended(folder: Path, paths: Sequence[Path]) -> tuple[Verdict, Volume | None]:
    spool = Spool(folder / "spool", reserve_mib=0)
    spool.prepare()
    instances = {one.sop_instance_uid: one for one in spool_files(spool, paths)}
    verdict = examine(slices_of(instances.values(), spool.path))
    if verdict.refusal:
        return verdict, None
    return verdict, load_volume(spool, [instances[uid] for uid in verdict.slices])


def test_a_scanners_object_is_the_volume_that_highdicom_finds(tmp_path: Path) -> None:
    _, volume = ended(tmp_path, [SIEMENS])
    assert volume is not None
    theirs = hd.imread(SIEMENS).get_volume(atol=0.1)
    array, affine = theirs.array, theirs.affine
    if affine[2, 0] * volume.affine[2, 0] < 0:
        array, affine = array[::-1], affine @ np.array([[-1, 0, 0, len(array) - 1], *np.eye(4)[1:]])
    assert np.array_equal(volume.array, array.astype(np.float32))
    assert volume.affine == pytest.approx(affine, abs=1e-3)


def test_several_time_points_in_one_object_are_refused_and_named(tmp_path: Path) -> None:
    verdict, _ = ended(tmp_path, [PHILIPS])
    assert verdict.facts["slices"] == 32
    assert "8 places with more than one slice (up to 4; " in str(verdict.refusal)
    assert "told apart by TemporalPositionIdentifier (1, 2, 3, 4), and none of them is a volume" in str(verdict.refusal)
    assert str(verdict.refusal).endswith("as the first: 8 of 8 slices without a FrameOfReferenceUID.")


def spoilt(folder: Path, **groups: Dataset | None) -> Path:
    """Write an enhanced object of which the shared functional groups were changed; None takes one away."""
    as_enhanced(small_ct(folder / "ct", slices=5), folder / "enhanced.dcm")
    ds = dcmread(folder / "enhanced.dcm")
    shared = ds.SharedFunctionalGroupsSequence[0]
    for keyword, item in groups.items():
        if item is None:
            delattr(shared, keyword)
        else:
            setattr(shared, keyword, [item])
    ds.save_as(folder / "enhanced.dcm")
    return folder / "enhanced.dcm"


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("PixelMeasuresSequence", "5 of 5 slices without a usable PixelSpacing."),
        ("PlaneOrientationSequence", "5 of 5 slices without a usable ImageOrientationPatient."),
    ],
)
def test_functional_groups_that_are_missing_are_named(tmp_path: Path, missing: str, reason: str) -> None:
    verdict, _ = ended(tmp_path, [spoilt(tmp_path, **{missing: None})])
    assert verdict.refusal == reason


def test_items_and_frames_that_do_not_match_are_refused(tmp_path: Path) -> None:
    path = spoilt(tmp_path)
    ds = dcmread(path)
    del ds.PerFrameFunctionalGroupsSequence[2]
    ds.save_as(path)
    verdict, _ = ended(tmp_path, [path])
    assert verdict.refusal == "1 multi-frame object with no functional groups to say where frames lie."


def test_ct_values_that_stand_for_something_else_are_refused(tmp_path: Path) -> None:
    mapping, unit = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "ml/100ml/s", "UCUM", "perfusion"
    mapping.MeasurementUnitsCodeSequence = [unit]
    path = spoilt(tmp_path, RealWorldValueMappingSequence=mapping)
    with pytest.raises(GeometryError, match="stand for ml/100ml/s, not for Hounsfield units"):
        ended(tmp_path, [path])


def test_more_voxels_than_fit_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_VOXELS", 20_000)
    with pytest.raises(GeometryError, match="5 slices of 64 x 64 pixels are more than the 20000 voxels"):
        ended(tmp_path, small_ct(tmp_path / "ct", slices=5))
