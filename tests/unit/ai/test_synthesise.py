"""A diffusion model learns what nodules look like, and what it draws can be put into lungs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ai.__main__ import main
from ai.synthesise.diffusion import Budget, sample_diffusion, train_diffusion
from ai.synthesise.draw import compare, draw_patches
from ai.synthesise.effect import Trial, measure_effect
from ai.synthesise.paste import paste_nodules
from ai.synthesise.patches import ATTENUATIONS, PatchSet, cut_patch
from ai.synthesise.source import Annotated, patches_of
from ai.train.cases import read_cases

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, SPACING_MM = 8, 3.0
INSIDE_HU = {"solid": 20.0, "part-solid": -200.0, "ground-glass": -550.0}


@pytest.fixture(scope="module")
def patches() -> PatchSet:
    rng = np.random.default_rng(0)
    away = np.linalg.norm(np.indices((SIZE,) * 3) - (SIZE - 1) / 2, axis=0)
    attenuation = np.arange(48) % 2 * 2  # solid and ground-glass
    hu = rng.normal(-850, 30, (48, SIZE, SIZE, SIZE))
    masks = np.stack([away < radius for radius in rng.uniform(1.6, 2.6, 48)])
    for cube, mask, which in zip(hu, masks, attenuation, strict=True):
        cube[mask] = rng.normal(INSIDE_HU[ATTENUATIONS[which]], 30, int(mask.sum()))
    return PatchSet(hu.astype(np.float16), masks.astype(np.uint8), attenuation.astype(np.uint8), ("phantom",) * 48, 3.0)


@pytest.fixture(scope="module")
def run(patches: PatchSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained by the command line, for seconds."""
    folder = tmp_path_factory.mktemp("synthesise")
    patches.save(folder / "patches.npz")
    command = ["synthesise", "train", "--patches", str(folder / "patches.npz"), "-o", str(folder / "run")]
    budget = ["--steps", "70", "--batch", "8", "--learning-rate", "4e-3", "--channels", "8", "16", "--device", "cpu"]
    assert main([*command, *budget]) == 0
    return folder / "run"


def test_the_model_learns_and_what_it_draws_holds_a_nodule(run: Path, patches: PatchSet) -> None:
    losses = [float(line.split(",")[1]) for line in (run / "losses.csv").read_text().splitlines()[1:]]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    drawn = draw_patches(run, 12, steps=10, say=lambda line: None)
    assert len(drawn) >= 8
    assert set(drawn.sources) == {"diffusion"}
    assert set(drawn.attenuation) <= {0, 2}
    hu = drawn.hu.astype(np.float32)
    assert hu[drawn.masks > 0].mean() > hu[drawn.masks == 0].mean() + 150
    rows = {row["class"]: row for row in compare(drawn, patches)}
    assert rows["solid 8 to 15 mm"]["training n"] == (patches.attenuation == 0).sum()
    assert sum(float(row["drawn n"]) for row in rows.values()) == len(drawn)


def test_what_is_drawn_depends_on_the_class_that_is_asked_for(run: Path, patches: PatchSet) -> None:
    solid, ground_glass = (int(patches.classes[patches.attenuation == which][0]) for which in (0, 2))
    one, other = (sample_diffusion(run, np.array([number]), steps=3)[0] for number in (solid, ground_glass))
    assert (one != other).any()


def test_the_same_seed_trains_and_draws_the_same(patches: PatchSet, tmp_path: Path) -> None:
    budget = Budget(steps=3, batch=4)
    for name in ("one", "two"):
        train_diffusion(patches, tmp_path / name, budget, channels=(8, 16), seed=5, say=lambda line: None)
    known = patches.classes[:2]
    one, two, other = (
        sample_diffusion(tmp_path / name, known, steps=3, seed=seed)[0]
        for name, seed in (("one", 1), ("two", 1), ("one", 2))
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_a_class_that_was_never_seen_is_not_drawn(run: Path) -> None:
    with pytest.raises(ValueError, match="was not trained on the classes"):
        sample_diffusion(run, np.array([11]))


def test_pasted_nodules_lie_in_lung_apart_from_each_other_and_leave_the_rest_as_it_was(patches: PatchSet) -> None:
    rng = np.random.default_rng(3)
    hu = rng.normal(-850, 30, (24, 40, 40)).astype(np.float32)
    lungs = np.zeros(hu.shape, dtype=np.bool_)
    lungs[3:21, 4:36, 4:36] = True
    hu[~lungs] = 40
    before = hu.copy()
    occupied = np.zeros(hu.shape, dtype=np.uint8)
    occupied[10:13, 10:13, 10:13] = 1
    scan, labels, pasted = paste_nodules(hu, lungs, (2.5, 2.0, 2.0), patches, 6, rng, occupied=occupied)
    assert [nodule.label for nodule in pasted] == list(range(2, 2 + len(pasted)))
    assert len(pasted) >= 3
    np.testing.assert_array_equal(hu, before)
    np.testing.assert_array_equal(labels[occupied > 0], 1)
    np.testing.assert_array_equal(scan[~lungs], hu[~lungs])
    np.testing.assert_array_equal(scan[occupied > 0], hu[occupied > 0])
    for nodule in pasted:
        mask = labels == nodule.label
        assert lungs[mask].all()
        assert abs(scan[mask].mean() - INSIDE_HU[nodule.attenuation]) < 150
        assert 6 < nodule.diameter_mm < 18


def test_a_patch_is_cut_around_the_nodule_whatever_the_scans_spacing() -> None:
    spacing_mm = (2.5, 0.8, 0.8)
    where: NDArray[np.float64] = np.indices((30, 70, 70)) * np.array(spacing_mm).reshape(3, 1, 1, 1)
    mask = np.linalg.norm(where - np.array([40.0, 5.0, 30.0]).reshape(3, 1, 1, 1), axis=0) < 5  # at the scan's edge
    hu = np.where(mask, 50.0, -800.0)
    cube, inside = cut_patch(hu, mask, spacing_mm, 16, 1.0)
    volume_mm3 = mask.sum() * np.prod(spacing_mm)
    assert inside.sum() == pytest.approx(volume_mm3, rel=0.15)
    centre = np.argwhere(inside).mean(axis=0)
    np.testing.assert_allclose(centre, 7.5, atol=0.8)
    assert cube[inside > 0].mean() > -100


def test_the_effect_on_a_detector_is_measured_with_and_without_drawn_nodules(patches: PatchSet, tmp_path: Path) -> None:
    trial = Trial(learn=1, judge=1, pasted=2, steps=1, batch=1, repeats=1, spacing_mm=5.0, patch=32)
    table = measure_effect(patches, tmp_path, trial, device="cpu", say=lambda line: None)
    assert "| difference, seed by seed |" in table
    without, with_drawn = (read_cases(tmp_path / name) for name in ("without", "with_drawn_nodules"))
    assert [case.name for case in without.cases if case.fold == 1] == [c.name for c in with_drawn.cases if c.fold == 1]
    (alone,) = (case for case in without.cases if case.fold == 0)
    learnt = [case for case in with_drawn.cases if case.fold == 0]
    assert [case.patient for case in learnt] == [alone.patient] * 2
    assert [len(case.nodules) for case in learnt] == [len(alone.nodules), len(alone.nodules) + 2]


def test_a_file_that_holds_no_patches_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "other.npz", hu=np.zeros(3))
    assert (
        main(["synthesise", "train", "--patches", str(tmp_path / "other.npz"), "-o", str(tmp_path), "--steps", "1"])
        == 1
    )
    assert "holds no nodule patches" in capsys.readouterr().err


def test_nodules_that_do_not_fit_into_a_patch_are_left_out() -> None:
    instances = np.zeros((30, 30, 30), dtype=np.uint8)
    instances[4:9, 4:9, 4:9] = 1
    instances[10:28, 10:28, 10:28] = 2
    scan = Annotated(np.where(instances > 0, 0.0, -800.0).astype(np.float32), instances, ("solid", "solid"), (1.0,) * 3)
    assert len(patches_of([scan], "real", 16, 1.0)) == 1
    unknown = Annotated(scan.hu, instances, ("cavitary", "solid"), (1.0,) * 3)
    with pytest.raises(ValueError, match="'cavitary' is not one of solid"):
        patches_of([unknown], "real", 16, 1.0)
