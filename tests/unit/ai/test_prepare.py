"""Prepared cases keep their geometry, their patients together, and what was done before a run was stopped."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from monai.data.decathlon_datalist import load_decathlon_datalist

from ai.__main__ import main
from ai.contract import Volume
from ai.data.case import Case, Entry, Provenance
from ai.data.grid import crop, resample, straighten
from ai.data.nifti import read_nifti
from ai.data.nodule import Nodule
from ai.data.prepare import Options, folds_by_patient, prepare
from ai.data.sources import find_entries
from tests.ct import small_ct


def test_straightening_moves_no_voxel_in_the_patient() -> None:
    rng = np.random.default_rng(0)
    affine = np.array([[0, 0.1, -0.7, 9], [0, -0.8, -0.1, 4], [-2.5, 0, 0, 3], [0, 0, 0, 1.0]])[:, [1, 2, 0, 3]]
    case = _case("a", affine=affine, array=rng.normal(size=(4, 5, 6)).astype(np.float32))

    straight = straighten(case)

    assert np.argmax(np.abs(straight.volume.affine[:3, :3]), axis=0).tolist() == [2, 1, 0]
    assert (straight.volume.affine[[2, 1, 0], [0, 1, 2]] > 0).all()
    brightest = [
        volume.affine @ [*np.argwhere(volume.array == volume.array.max())[0], 1] for volume in _both(case, straight)
    ]
    assert brightest[0] == pytest.approx(brightest[1])
    assert straight.labels is not None
    assert (straight.labels == (straight.volume.array > 0)).all()


def test_resampling_keeps_the_extent_the_places_and_the_labels() -> None:
    z, y, x = np.indices((10, 12, 14))
    affine = np.array([[0, 0, 1.5, -9], [0, 1.0, 0, 4], [2.0, 0, 0, 3], [0, 0, 0, 1.0]])
    case = _case("a", affine=affine, array=(1 + z + 2.0 * y + 3.0 * x).astype(np.float32))
    point = affine @ [4, 5, 6, 1]

    finer = resample(case, (1.0, 1.0, 0.75))

    assert finer.volume.array.shape == (20, 12, 28)
    corners = [volume.affine @ [-0.5, -0.5, -0.5, 1] for volume in _both(case, finer)]
    assert corners[0] == pytest.approx(corners[1])
    index = np.linalg.inv(finer.volume.affine) @ point
    around = finer.volume.array[int(index[0]) : int(index[0]) + 2, int(index[1]), int(index[2]) : int(index[2]) + 2]
    assert around.mean() == pytest.approx(1 + 4 + 10 + 18, abs=1e-4)
    assert finer.labels is not None
    assert set(np.unique(finer.labels)) == {1}


def test_a_crop_to_the_body_keeps_it_with_a_margin() -> None:
    array = np.full((30, 40, 40), -1000, np.float32)
    array[10:20, 12:30, 8:25] = 20
    array[2, 2, 2] = 500  # a speck beside the patient
    affine = np.diag([2.5, 2.5, 2.5, 1.0])[:, [2, 1, 0, 3]]

    cut = crop(_case("a", affine=affine, array=array), "body", margin_mm=5)

    assert cut.volume.array.shape == (14, 22, 21)
    assert cut.volume.affine[:3, 3] == pytest.approx([6 * 2.5, 10 * 2.5, 8 * 2.5])
    with pytest.raises(ValueError, match="No body"):
        crop(_case("a", affine=affine, array=np.full((30, 40, 40), -1000, np.float32)), "body")


def test_no_patient_is_in_two_folds_and_the_seed_decides() -> None:
    entries = [
        Entry(f"{patient}-{n}", f"p{patient}", partial(_case, ""))
        for patient in range(20)
        for n in range(patient % 4 + 1)
    ]

    folds = folds_by_patient(entries, 5, seed=3)

    by_patient = [{folds[e.id] for e in entries if e.patient == patient} for patient in {e.patient for e in entries}]
    sizes = [list(folds.values()).count(fold) for fold in range(5)]
    assert all(len(found) == 1 for found in by_patient)
    assert sum(sizes) == 50
    assert max(sizes) - min(sizes) <= 1
    assert folds == folds_by_patient(entries[::-1], 5, seed=3)
    assert folds != folds_by_patient(entries, 5, seed=4)
    with pytest.raises(ValueError, match="cannot be divided"):
        folds_by_patient(entries, 21, seed=0)


@pytest.mark.parametrize("npz", [False, True])
def test_what_is_prepared_is_read_back_and_a_changed_file_is_noticed(tmp_path: Path, npz: bool) -> None:
    nodule = Nodule((1, 2, 3), 5.5, "solid", volume_ml=0.1, instance=1)
    case = _case("a", nodules=(nodule,))

    prepare([Entry("a", "p", lambda: case)], tmp_path, Options(folds=1, npz=npz), {}, lambda _: None)
    form, (entry,) = find_entries(tmp_path)
    back = entry.read()

    assert form == "prepared"
    assert np.array_equal(back.volume.array, np.rint(case.volume.array))  # whole Hounsfield units
    assert back.volume.affine == pytest.approx(case.volume.affine, abs=1e-5)
    assert back.labels is not None
    assert np.array_equal(back.labels, case.labels if case.labels is not None else 0)
    assert (back.nodules, back.knows_nodules, back.label_names) == (case.nodules, True, case.label_names)
    file = tmp_path / "cases" / "a" / ("case.npz" if npz else "labels.nii.gz")
    file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(ValueError, match="hash differs"):
        entry.read()


def test_a_stopped_run_goes_on_and_what_cannot_be_read_is_listed(tmp_path: Path) -> None:
    read: list[str] = []

    def reader(name: str, *, broken: bool = False) -> Entry:
        def now() -> Case:
            read.append(name)
            if broken:
                raise ValueError("The slices are not evenly spaced.")
            return _case(name)

        return Entry(name, name, now)

    entries = [reader("a"), reader("b", broken=True), reader("c")]
    prepare(entries[:1], tmp_path, Options(folds=1), {}, lambda _: None)
    refused = prepare(entries, tmp_path, Options(folds=3), {}, lambda _: None)

    assert read == ["a", "b", "c"]
    assert refused == {"b": "ValueError: The slices are not evenly spaced."}
    prepare(entries[:1], tmp_path, Options(folds=1, spacing_mm=(2, 2, 2)), {}, lambda _: None)
    assert read[3:] == ["a"]  # prepared in another way, so once more


def test_the_command_makes_a_list_that_monai_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_ct(tmp_path / "in", slices=12, rows=24, columns=32, spacing_mm=(2.5, 1.5, 1.5))

    arguments = ["--spacing-mm", "3", "--crop", "body"]
    assert main(["prepare", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *arguments]) == 0

    assert "1 of 1 cases of 1 patients" in capsys.readouterr().out
    (item,) = load_decathlon_datalist(str(tmp_path / "out" / "dataset.json"), data_list_key="training")
    volume = read_nifti(Path(item["image"]))
    assert volume.spacing_mm == pytest.approx((3, 3, 3))
    assert item["fold"] == 0
    index = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert index["training"][0]["shape"] == list(volume.array.shape)
    assert main(["prepare", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--spacing-mm", "3", "3"]) == 1


def _case(
    name: str,
    affine: np.ndarray[tuple[int, int], np.dtype[np.float64]] | None = None,
    array: np.ndarray[tuple[int, int, int], np.dtype[np.float32]] | None = None,
    nodules: tuple[Nodule, ...] = (),
) -> Case:
    if array is None:
        array = np.random.default_rng(1).normal(0, 300, size=(6, 7, 8)).astype(np.float32)
    volume = Volume(array, np.diag([2.0, 0.7, 0.8, 1.0])[[2, 1, 0, 3]] if affine is None else affine)
    labels = (array > 0).astype(np.uint8)
    source = Provenance("made here", "none needed", "known")
    return Case(name, name, {"ct": volume}, source, labels, {1: "positive"}, nodules, knows_nodules=bool(nodules))


def _both(first: Case, second: Case) -> tuple[Volume, Volume]:
    return first.volume, second.volume
