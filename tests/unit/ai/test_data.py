"""The readers of the training tools put voxels where the patient is."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from ai.__main__ import main
from ai.data.classical import classical_lungs
from ai.data.nifti import read_nifti, write_nifti
from ai.data.nrrd import read_nrrd
from ai.evaluate.overlap import agreement
from ai.phantom.thorax import make_thorax


def test_nrrd_lists_its_fastest_axis_first(tmp_path: Path) -> None:
    voxels = np.arange(24, dtype="<i2").reshape(4, 3, 2)
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 3 4\n"
        "space directions: (0.5,0,0) (0,0.7,0) (0,0,-2)\nendian: little\nencoding: gzip\nspace origin: (-10,20,30)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + gzip.compress(voxels.tobytes()))

    array, affine = read_nrrd(tmp_path / "a.nrrd")

    assert np.array_equal(array, voxels)
    assert (affine @ [1, 1, 1, 1])[:3] == pytest.approx([-9.5, 20.7, 28])


def test_nifti_goes_out_and_comes_back_the_same(tmp_path: Path) -> None:
    affine = np.array([[0, 0.1, 0.7, -9], [0, 0.8, -0.1, 4], [2.5, 0, 0, 3], [0, 0, 0, 1.0]])
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)

    write_nifti(array, affine, tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")

    assert np.array_equal(volume.array, array)
    assert volume.affine == pytest.approx(affine, abs=1e-5)


def test_the_classical_reference_agrees_with_a_phantom_s_truth() -> None:
    thorax = make_thorax(3, spacing_mm=3.0)

    labels = classical_lungs(thorax.volume)

    for value in (1, 2):
        assert agreement(labels == value, thorax.labels == value, thorax.volume.spacing_mm).dice > 0.93


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(tmp_path), str(tmp_path / "none.nii.gz"), "-o", str(tmp_path / "out.nii.gz")]) == 1
    assert "none.nii.gz" in capsys.readouterr().err
