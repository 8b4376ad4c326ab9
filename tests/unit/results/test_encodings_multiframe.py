"""Label maps and probabilities on multi-frame objects that hold one volume or several: right frame, right voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage, generate_uid

from dicom_node.domain.encoding import Encoding
from dicom_node.domain.study import chosen
from dicom_node.domain.volumes import Choice
from dicom_node.examination import examine_stored
from dicom_node.spool import Spool
from dicom_node.volume import load_volume
from dicom_node.work.findings import findings_from
from tests.ct import small_ct, with_attributes
from tests.enhanced import as_enhanced
from tests.peers.validators import problems
from tests.stored import spool_files
from tests.unit.results.case import NO_ORGANS, Built, Case, both_lungs, built_of, job_on, predict
from tests.unit.results.test_encodings import likely

SLICES = 20


@dataclass(frozen=True)
class Made:
    """The results of one case; `slice_of` gives the slice of each frame of the source that belongs to the volume."""

    case: Case
    built: Built
    masks: dict[str, NDArray[np.bool_]]
    slice_of: dict[int, int]
    source: Path


def one_volume(folder: Path) -> tuple[list[Path], Choice]:
    return small_ct(folder / "ct", slices=SLICES), {}


def second_echo(folder: Path) -> tuple[list[Path], Choice]:
    shared = {keyword: generate_uid() for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    first = small_ct(folder / "first", slices=SLICES, change=with_attributes(**shared, EchoTime="20"))
    second = small_ct(folder / "second", slices=SLICES, change=with_attributes(**shared, EchoTime="40"))
    return [*first, *second], {"EchoTime": 40.0}


@pytest.fixture(scope="module", params=[one_volume, second_echo], ids=["one volume", "one of two"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("encoded")
    paths, choice = request.param(folder)
    source = folder / "enhanced.dcm"
    order = as_enhanced(paths, source)
    spool = Spool(folder / "spool", reserve_mib=0)
    spool.prepare()
    instances = tuple(spool_files(spool, [source]))
    assert chosen(examine_stored(instances, spool.path), choice).refusal is None
    volume = load_volume(spool, instances, choice)
    case = Case(paths, volume, job_on(instances, volume.datasets[0]))
    masks = both_lungs(case)
    prediction = replace(predict(masks), probabilities=likely(masks))
    findings = findings_from(prediction, NO_ORGANS, volume, case.job.id)
    built = built_of(case, prediction, findings, spool, NO_ORGANS, encodings=tuple(Encoding))
    first = len(paths) - SLICES
    slice_of = {number: k - first for number, k in enumerate(order, start=1) if k >= first}
    return Made(case, built, masks, slice_of, source)


def frames(seg: Dataset, made: Made) -> list[tuple[int, int, NDArray[np.uint8]]]:
    """Slice, segment (0: none is named) and pixels of each frame."""
    found = []
    for item, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        [source] = item.DerivationImageSequence[0].SourceImageSequence
        assert source.ReferencedSOPClassUID == EnhancedCTImageStorage
        assert source.ReferencedSOPInstanceUID == made.case.job.instances[0].sop_instance_uid
        k = made.slice_of[int(source.ReferencedFrameNumber)]
        assert item.PlanePositionSequence[0].ImagePositionPatient == made.case.volume.datasets[k].ImagePositionPatient
        segment = item.get("SegmentIdentificationSequence")
        found.append((k, int(segment[0].ReferencedSegmentNumber) if segment else 0, pixels))
    return found


def test_everything_was_made(made: Made) -> None:
    assert list(made.built.files) == ["seg", "seg-labelmap", "seg-fractional", "sr", "sr-labelmap", "sr-fractional"]


def test_a_label_map_lies_on_the_frames_that_it_was_marked_on(made: Made) -> None:
    left, right = made.masks.values()
    expected = left + 2 * right.astype(np.uint8)
    seg = dcmread(BytesIO(made.built.files["seg-labelmap"]))
    drawn = np.zeros(expected.shape, np.uint8)
    for k, segment, pixels in frames(seg, made):
        assert segment == 0
        drawn[k] = pixels
    assert np.array_equal(drawn, expected)


def test_probabilities_lie_on_the_frames_that_they_were_given_for(made: Made) -> None:
    seg = dcmread(BytesIO(made.built.files["seg-fractional"]))
    assert seg.SegmentationFractionalType == "PROBABILITY"
    for number, expected in enumerate(likely(made.masks).values(), start=1):
        drawn = np.zeros(expected.shape, np.uint8)
        for k, segment, pixels in frames(seg, made):
            if segment == number:
                drawn[k] = pixels
        assert np.array_equal(drawn, expected)


@pytest.mark.parametrize("kind", ["seg", "seg-labelmap", "seg-fractional"])
def test_highdicom_finds_the_same_volume_in_the_same_place(made: Made, kind: str) -> None:
    seg = hd.seg.segread(BytesIO(made.built.files[kind]))
    for number, mask in enumerate(made.masks.values(), start=1):
        theirs = seg.get_volume(segment_numbers=[number], rescale_fractional=False)
        array, affine = theirs.array[..., 0], theirs.affine
        if affine[2, 0] * made.case.volume.affine[2, 0] < 0:
            array, affine = array[::-1], affine @ np.array([[-1, 0, 0, len(array) - 1], *np.eye(4)[1:]])
        start = np.linalg.inv(made.case.volume.affine) @ affine @ [0, 0, 0, 1]
        first = round(float(start[0]))
        assert start == pytest.approx([first, 0, 0, 1], abs=1e-3)
        here = made.masks[[*made.masks][number - 1]][first : first + len(array)]
        assert np.array_equal(array >= 128 if kind == "seg-fractional" else array > 0, here)
        assert np.count_nonzero(here) == np.count_nonzero(mask)


@pytest.mark.parametrize("kind", ["seg", "seg-labelmap", "seg-fractional", "sr-labelmap", "sr-fractional"])
def test_the_fields_checkers_find_nothing(made: Made, kind: str) -> None:
    assert problems(made.built.files[kind], sources=[made.source]) == []
