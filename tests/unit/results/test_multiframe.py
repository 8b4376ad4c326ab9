"""Results on a multi-frame object name the frames that they lie on, in every kind of result."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage

from dicom_node.domain.study import examine
from dicom_node.multiframe import slices_of
from dicom_node.spool import Spool
from dicom_node.volume import load_volume
from tests.ct import small_ct
from tests.enhanced import as_enhanced
from tests.peers.validators import problems
from tests.stored import spool_files
from tests.unit.results.case import ALL, Built, Case, built_of, card_with, job_on, nodules


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Built, list[int], Path]:
    folder = tmp_path_factory.mktemp("enhanced")
    paths = small_ct(folder / "ct")
    order = as_enhanced(paths, folder / "enhanced.dcm")
    spool = Spool(folder / "spool", reserve_mib=0)
    spool.prepare()
    instances = tuple(spool_files(spool, [folder / "enhanced.dcm"]))
    verdict = examine(slices_of(instances, spool.path))
    assert verdict.refusal is None
    assert (len(verdict.slices), verdict.facts["slices"]) == (1, 20)
    volume = load_volume(spool, instances)
    case = Case(paths, volume, job_on(instances, volume.datasets[0]))
    prediction, findings = nodules(case)
    built = built_of(case, prediction, findings, spool, card_with(outputs=ALL))
    return case, built, order, folder / "enhanced.dcm"


def test_frames_lie_where_their_functional_groups_say(made: tuple[Case, Built, list[int], Path]) -> None:
    case, _, order, _ = made
    singles = [dcmread(path) for path in case.sources]
    assert [int(header.ReferencedFrameNumber) for header in case.volume.datasets] == [
        order.index(k) + 1 for k in range(20)
    ]
    for k, ds in enumerate(singles):
        assert np.array_equal(case.volume.array[k], ds.pixel_array - np.float32(1024))
        assert case.volume.affine @ [k, 0, 0, 1] == pytest.approx([*map(float, ds.ImagePositionPatient), 1])


def references(item: Dataset) -> Iterator[Dataset]:
    for element in item:
        if element.VR == "SQ":
            for child in element.value:
                if child.get("ReferencedSOPClassUID") == EnhancedCTImageStorage:
                    yield child
                yield from references(child)


def test_every_kind_of_result_is_made_and_names_frames_in_bounds(made: tuple[Case, Built, list[int], Path]) -> None:
    case, built, _, _ = made
    assert {"seg", "pm", "rtstruct", "gsps", "sc", "key_images", "kos", "viewer_sr", "sr"} <= set(built.files)
    uid = case.job.instances[0].sop_instance_uid
    for kind, content in built.files.items():
        found = list(references(dcmread(BytesIO(content), stop_before_pixels=True)))
        assert {str(item.ReferencedSOPInstanceUID) for item in found} == {uid}, kind
        if kind not in ("sc", "pdf"):
            named = {frame for item in found for frame in np.atleast_1d(item.get("ReferencedFrameNumber") or [])}
            assert named, kind
            assert named <= {*range(1, 21)}


def test_a_segment_lies_on_the_frames_that_it_was_marked_on(made: tuple[Case, Built, list[int], Path]) -> None:
    case, built, order, _ = made
    for kind in ("seg", "pm"):
        result = dcmread(BytesIO(built.files[kind]))
        for item in result.PerFrameFunctionalGroupsSequence:
            source = item.DerivationImageSequence[0].SourceImageSequence[0]
            single = dcmread(case.sources[order[int(source.ReferencedFrameNumber) - 1]], stop_before_pixels=True)
            assert item.PlanePositionSequence[0].ImagePositionPatient == single.ImagePositionPatient
    seg = hd.seg.Segmentation.from_dataset(dcmread(BytesIO(built.files["seg"])))
    [(_, _, uid)] = seg.get_source_image_uids()
    assert uid == case.job.instances[0].sop_instance_uid


@pytest.mark.parametrize("kind", ["seg", "sr", "kos", "gsps"])
def test_the_fields_checkers_find_nothing(made: tuple[Case, Built, list[int], Path], kind: str) -> None:
    _, built, _, source = made
    assert problems(built.files[kind], sources=[source]) == []
