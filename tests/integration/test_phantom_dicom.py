"""``python -m ai phantom`` writes valid DICOM that says of itself that it is of no patient."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from ai.__main__ import main
from ai.data.dicom_series import find_series, read_volume
from ai.data.nifti import read_nifti
from tests.peers.missing import need
from tests.peers.validators import problems

_ARGUMENTS = ("phantom", "--seed", "3", "--nodules", "3", "--spacing-mm", "4", "3.5", "3.5", "--kernel", "soft")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    written = ("-o", "x.nii.gz", "--labels", "l.nii.gz", "--truth", "t.json", "--dicom", "series")
    paths = [part if part.startswith("-") else str(folder / part) for part in written]
    assert main([*_ARGUMENTS, "--noise-hu", "5", *paths]) == 0
    return folder


def test_the_series_and_its_truth_are_valid(folder: Path) -> None:
    series = folder / "series"
    sources = sorted(series.glob("ct*.dcm"))
    truth = [(series / name).read_bytes() for name in ("truth_seg.dcm", "truth_sr.dcm")]
    assert problems(*truth, sources=sources) == []
    checked = subprocess.run([need("dciodvfy"), "-new", str(sources[0])], capture_output=True, check=False, timeout=180)
    assert [line for line in (checked.stdout + checked.stderr).splitlines() if line != b"CTImage"] == []


def test_the_series_holds_the_image_and_the_segmentation_the_labels(folder: Path) -> None:
    image, labels = read_nifti(folder / "x.nii.gz"), read_nifti(folder / "l.nii.gz").array.astype(int)
    (series,) = [each for each in find_series(folder / "series") if each.modality == "CT"]
    volume = read_volume(series)
    assert volume.affine == pytest.approx(image.affine, abs=1e-3)
    assert np.abs(volume.array - image.array).max() <= 0.5
    header = dcmread(folder / "series" / "ct0001.dcm", stop_before_pixels=True)
    assert str(header.PatientName).startswith("PHANTOM^")
    assert header.QualityControlImage == "YES"
    assert (header.ConvolutionKernel, header.BodyPartExamined) == ("SOFT", "CHEST")

    seg = dcmread(folder / "series" / "truth_seg.dcm")
    voxels = seg.pixel_array.astype(bool)
    of_segment = np.array(
        [
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            for frame in seg.PerFrameFunctionalGroupsSequence
        ]
    )
    nodules = json.loads((folder / "t.json").read_text())
    assert [item.SegmentLabel for item in seg.SegmentSequence] == [
        "Left lung", "Right lung", *(f"Nodule {n + 1}" for n in range(len(nodules))),
    ]  # fmt: skip
    for number in range(1, len(nodules) + 1):
        assert voxels[of_segment == number + 2].sum() == (labels == number + 2).sum() > 0
    assert voxels[of_segment == 1].sum() >= (labels == 1).sum() > 0


def test_nodules_go_into_a_scan_that_is_given(folder: Path) -> None:
    out = folder / "inserted.nii.gz"
    arguments = ["phantom", "--insert", str(folder / "x.nii.gz"), "--nodules", "2", "--seed", "1", "-o", str(out)]
    assert main([*arguments, "--truth", str(folder / "i.json"), "--dicom", str(folder / "inserted")]) == 0
    before, after = read_nifti(folder / "x.nii.gz"), read_nifti(out)
    changed = np.abs(after.array - before.array) > 1
    nodules = json.loads((folder / "i.json").read_text())
    assert len(nodules) == 2
    assert 0 < changed.mean() < 0.03
    for nodule in nodules:
        z, y, x = np.round((np.linalg.inv(before.affine) @ [*nodule["centre_mm"], 1])[:3]).astype(int)
        assert changed[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].any()
    first = dcmread(folder / "inserted" / "ct0001.dcm", stop_before_pixels=True)
    assert first.ImageType[0] == "DERIVED"


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", "--seed", "1"]) == 1
    assert "Nothing to write" in capsys.readouterr().err
