"""The chest pack: complete, honest about itself, and true to the rule that each lung is one part."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, optimize

import ai
from ai.__main__ import main
from ai.bundle import Bundle
from ai.contract import Volume
from ai.evaluate.overlap import agreement
from ai.phantom.chest import make_phantom
from ai.train import chest, chest_patches
from ai.train.chest import TASKS, Plan, train_nodules
from ai.train.chest_calibrate import Seen, learn_attenuation, learn_ranking
from ai.train.chest_patches import cut_patches
from ai.train.chest_scans import Scan

BUNDLE = Path(ai.__file__).parent / "bundles" / "chest_ct"
UNSEEN = 900_000


def test_the_card_the_metadata_and_the_bundle_agree() -> None:
    card = tomllib.loads((BUNDLE / "card.toml").read_text())
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
    outputs = metadata["network_data_format"]["outputs"]
    assert [segment["output"] for segment in card["segments"]] == ["left lung", "right lung"]
    assert [found["output"] for found in card["detections"]] == outputs["nodules"]["detects"] == ["nodule"]
    classes = card["detections"][0]["classes"]
    assert {q: list(c["answers"]) for q, c in classes.items()} == outputs["nodules"]["classes"]
    assert card["version"] == metadata["version"]
    assert "not for clinical use" in card["training"]
    assert all((BUNDLE / part).is_file() for part in ("LICENSE", "docs/README.md", "models/model.pt"))


def test_each_lung_is_one_part_on_its_own_side() -> None:
    phantom = make_phantom(UNSEEN, (5.0, 3.0, 3.0), nodules=2)
    volume, truth = phantom.to_volume(), phantom.lungs.numpy()
    prediction = Bundle.load(BUNDLE).predict(volume, without=["nodule"])
    for value, name in ((1, "left lung"), (2, "right lung")):
        mask = prediction.mask(name)
        found = agreement(mask, truth == value, volume.spacing_mm)
        assert found.dice > 0.85, name
        sizes = np.bincount(ndimage.label(mask, np.ones((3, 3, 3)))[0].ravel())[1:]
        assert sizes.max() > 0.98 * sizes.sum(), name


def test_nodules_can_be_left_out_and_no_lungs_mean_no_nodules() -> None:
    bundle = Bundle.load(BUNDLE)
    block = Volume(np.full((20, 40, 40), 40, np.float32), np.diag([5.0, 5.0, 5.0, 1.0]))
    assert bundle.predict(block).detections == ()
    left_out = bundle.predict(block, without=["nodule"])
    assert (left_out.detections, left_out.instances) == ((), None)


def balls(*radii: float) -> Scan:
    """A lung of nothing but balls, one every 30 voxels along x, in voxels."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (30 * len(radii), 30, 30)), indexing="ij"))
    centres = np.array([[30.0 * n + 15, 15.0, 15.0] for n in range(len(radii))])
    instances = torch.zeros(grid.shape[1:], dtype=torch.uint8)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), start=1):
        away = (grid - torch.tensor(centre)[:, None, None, None]).pow(2).sum(dim=0).sqrt()
        instances[away < radius] = number
    return Scan(
        hu=torch.where(instances > 0, 40, -850).to(torch.int16),
        instances=instances,
        lungs=torch.ones_like(instances),
        centres=centres,
        diameters=2 * np.array(radii),
        attenuation=torch.arange(len(radii) + 1) % 3,
        spiculated=torch.zeros(len(radii) + 1),
        places=centres,
    )


def test_a_patch_carries_each_nodule_to_where_its_centre_is_marked() -> None:
    scan = balls(4.0, 6.0, 8.0)
    patches = cut_patches([scan] * 8, np.random.default_rng(3), 32)
    assert sum(len(boxes) for boxes in patches.boxes) >= 6
    for n, boxes in enumerate(patches.boxes):
        for box in boxes:
            x, y, z = (int(i) for i in torch.round((box[:3] + box[3:]) / 2))
            assert patches.heat[n, x, y, z] > 0.999
            assert patches.inside[n, x, y, z]
            assert patches.image[n, 0, x, y, z] > 0.5  # dense, as the ball was
            radius = float(box[3] - box[0]) / 2
            kind = int(np.argmin(np.abs(np.array([4.0, 6.0, 8.0]) - radius))) + 1
            assert int(patches.attenuation[n, x, y, z]) == kind % 3


def test_patches_look_at_ground_glass_and_small_nodules_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = balls(3.0, 3.0, 3.0, 12.0)  # part-solid, ground-glass, solid and a large part-solid one
    monkeypatch.setattr(chest_patches, "_AT_NODULE", 1.0)
    middles = [chest_patches._middle(scan, np.random.default_rng(n), 8)[0] // 30 for n in range(600)]
    counts = np.bincount(np.clip(middles, 0, 3).astype(int), minlength=4)
    assert counts / 600 == pytest.approx([1 / 4 * 0.8, 1 / 2, 1 / 4, 1 / 4 * 0.2], abs=0.06)


def small_network(*channels: int) -> torch.nn.Module:
    """The bundle's nodule network with other channels, and the same weights each time."""
    sys.path.insert(0, str(BUNDLE))
    from scripts.network import ChestNet  # type: ignore[import-not-found]

    torch.manual_seed(1)
    network: torch.nn.Module = ChestNet([8, 16], channels, 1).nodules
    return network


def test_what_is_said_of_a_voxel_rests_on_what_is_around_it_not_on_what_else_is_in_the_window() -> None:
    network = small_network(4, 8).eval()
    generator = torch.Generator().manual_seed(2)
    lung = torch.rand((1, 1, 96, 16, 16), generator=generator) / 4
    beside_the_diaphragm = lung.clone()
    beside_the_diaphragm[:, :, 64:] = 0.8
    with torch.inference_mode():
        alone, beside = network(lung), network(beside_the_diaphragm)
    assert torch.equal(alone[:, :, :32], beside[:, :, :32])
    assert not torch.equal(alone[:, :, 32:], beside[:, :, 32:])


def test_weights_without_scales_go_on_with_scales_that_are_measured_once(
    tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    torch.save(balls(5.0, 6.0), scans / "p000000.pt")
    old = shutil.copytree(BUNDLE, tmp_path / "old", ignore=shutil.ignore_patterns("__pycache__"))
    whole = torch.load(old / "models" / "model.pt", weights_only=True)

    def train(steps: int, left_out: str) -> int:
        torch.save({key: part for key, part in whole.items() if left_out not in key}, old / "models" / "model.pt")
        order = ["chest", "train", "--scans", str(scans), "--start", str(old), "--rate", "0.001", "--batch", "1"]
        return main([*order, "--size", "16", "--steps", str(steps), "-o", str(tmp_path / str(steps))])

    assert (train(1, ".adn.N."), train(3, ".adn.N.")) == (0, 0)

    once, more = (torch.load(tmp_path / str(steps) / "nodules.pt", weights_only=True) for steps in (1, 3))
    means = [key for key in once if key.endswith("running_mean")]
    assert all(once[key].any() and torch.equal(once[key], more[key]) for key in means)
    assert not all(torch.equal(once[key], more[key]) for key in once)
    assert (len(means) > 5, train(2, "conv")) == (True, 1)
    assert "is of another network" in capsys.readouterr().err


def test_training_on_the_cpu_repeats_itself(one_thread: None) -> None:
    scans = [balls(4.0, 6.0), balls(5.0)]
    plan = Plan(steps=6, batch=2, size=32, spacing_mm=5.0, tasks=TASKS)

    def train() -> tuple[list[str], dict[str, torch.Tensor]]:
        network = small_network(8, 12, 16)
        told: list[str] = []
        state = train_nodules(network, scans, plan, told.append).state_dict()
        return told, state

    first, second = train(), train()
    assert "step 6/6" in first[0][-1]
    assert all(torch.equal(a, b) for a, b in zip(first[1].values(), second[1].values(), strict=True))


@pytest.mark.parametrize("goes_on", [False, True], ids=["from scratch", "with scales held"])
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    goes_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    network = small_network(4, 8)
    plan = Plan(steps=100, batch=1, size=16, spacing_mm=5.0, goes_on=goes_on)
    kept = tmp_path / "checkpoint.pt"

    def train(path: Path | None, told: list[str]) -> dict[str, torch.Tensor]:
        return train_nodules(deepcopy(network), [balls(4.0, 6.0)], plan, told.append, None, path).state_dict()

    def stopped(*content: Any) -> None:
        keep(*content)
        raise KeyboardInterrupt

    keep = chest._keep
    monkeypatch.setattr(chest, "_KEEP_EVERY", 50)
    monkeypatch.setattr(chest, "_keep", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(kept, [])
    monkeypatch.setattr(chest, "_keep", keep)
    told: list[str] = []
    on, whole = train(kept, told), train(None, [])

    assert told[0] == "going on after step 50"
    assert all(torch.equal(a, b) for a, b in zip(on.values(), whole.values(), strict=True))
    with pytest.raises(ValueError, match="is of another training"):
        train_nodules(network, [balls(4.0)], replace(plan, steps=60), told.append, None, kept)


def test_the_commands_train_the_same_weights_again_and_the_bundle_remembers_how(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    torch.save(balls(5.0, 6.0), scans / "p000000.pt")
    copy = shutil.copytree(BUNDLE, tmp_path / "chest_ct", ignore=shutil.ignore_patterns("__pycache__"))

    def train(name: str) -> dict[str, torch.Tensor]:
        order = ["chest", "train", "--scans", str(scans), "--bundle", str(copy), "--steps", "2"]
        assert main([*order, "--batch", "1", "--size", "32", "-o", str(tmp_path / name)]) == 0
        weights: dict[str, torch.Tensor] = torch.load(tmp_path / name / "nodules.pt", weights_only=True)
        return weights

    first, second = train("first"), train("second")
    lungs = BUNDLE.parent / "lung_ct" / "models" / "model.pt"
    pack = ["chest", "pack", "--lungs", str(lungs), "--nodules", str(tmp_path / "second"), "--bundle", str(copy)]
    assert main(pack) == 0

    assert all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))
    metadata = json.loads((copy / "configs" / "metadata.json").read_text())
    known = metadata["training"]["nodules"]
    assert (known["seed"], known["steps"], known["scans"], known["nodules"]) == (Plan(1).seed, 2, ["p000000"], 2)
    assert known["command"].startswith("python -m ai chest train")
    assert {"machine", "packages", "seconds", "date", "phantoms_digest"} <= set(known)
    assert metadata["version"] == json.loads((BUNDLE / "configs" / "metadata.json").read_text())["version"]
    packed = torch.load(copy / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(packed[f"nodules.{name}"], weight) for name, weight in second.items())


@pytest.fixture
def chest_scripts() -> Any:
    """What the bundle's own code is, as its folder has it."""
    sys.path.insert(0, str(BUNDLE))
    from scripts import network, nodules  # type: ignore[import-not-found]

    return network, nodules


def test_a_faint_centre_with_a_sure_body_can_outrank_a_sure_centre_with_a_doubtful_one(chest_scripts: Any) -> None:
    network, nodules = chest_scripts
    maps = torch.full((1, network.CHANNELS, 40, 20, 20), -8.0)
    for x, centre, inside in ((8, 3.0, 0.5), (24, -2.0, 6.0), (34, -3.0, 0.5)):
        maps[0, network.INSIDE, x - 2 : x + 3, 8:13, 8:13] = inside
        maps[0, network.CENTRE, x, 10, 10] = centre
    region = torch.ones((1, 1, 40, 20, 20), dtype=torch.bool)
    net = network.ChestNet([8, 16], [4, 8], 1)

    by_centre, *_ = nodules.find_nodules(maps, region, 1.25, 0.1, net.judge)
    with torch.no_grad():
        net.ranking.weight.copy_(torch.eye(1, 6)[:, [1, 2, 0, 3, 4, 5]])  # the largest logit of its body alone
    by_body, instances, membership = nodules.find_nodules(maps, region, 1.25, 0.7, net.judge)

    assert [one.centre[0] for one in by_centre] == [8, 24]
    assert [one.score for one in by_centre] == pytest.approx([0.9526, 0.1192], abs=1e-4)
    assert [one.centre[0] for one in by_body] == [24]
    assert by_body[0].score == pytest.approx(1 / (1 + np.exp(-6.0)))
    size = np.log((6 / np.pi * 125) ** (1 / 3) * 1.25)
    assert by_body[0].traits == pytest.approx((-2.0, 6.0, 6.0, size, size**2, 1 / (1 + np.exp(8.0))), rel=1e-4)
    assert torch.equal(torch.unique(torch.nonzero(instances[0, 0])[:, 0]), torch.arange(22, 27))
    assert instances.max() == 1
    assert membership[0, 0, 24, 10, 10] > 0.99 > membership[0, 0, 8, 10, 10] == 0


def test_ground_glass_is_outlined_where_the_network_is_surer(chest_scripts: Any) -> None:
    network, nodules = chest_scripts
    maps = torch.full((1, network.CHANNELS, 40, 20, 20), -8.0)
    for x, kind in ((8, 0), (28, 2)):  # a solid one and one of ground glass, both with an unsure rim
        maps[0, network.INSIDE, x - 3 : x + 4, 7:14, 7:14] = 0.6
        maps[0, network.INSIDE, x - 2 : x + 3, 8:13, 8:13] = 4.0
        maps[0, network.CENTRE, x, 10, 10] = 3.0
        maps[0, network.ATTENUATION.start + kind, x - 4 : x + 5] = 5.0
    net = network.ChestNet([8, 16], [4, 8], 1)

    region = torch.ones((1, 1, 40, 20, 20), dtype=torch.bool)
    found, instances, membership = nodules.find_nodules(maps, region, 1.25, 0.1, net.judge)

    voxels = {one.centre[0]: int((instances == n).sum()) for n, one in enumerate(found, start=1)}
    assert voxels == {8: 7**3, 28: 5**3}
    assert membership[0, 0, 5, 10, 10] > 0.5 > membership[0, 0, 25, 10, 10] > 0.3


@pytest.mark.parametrize(("radius", "most"), [(1.6, 1.45), (2.4, 1.25), (6.0, 1.1)], ids=["4 mm", "6 mm", "15 mm"])
def test_a_solid_nodule_is_as_large_as_it_is_however_large_the_network_drew_it(
    radius: float, most: float, chest_scripts: Any
) -> None:
    _, nodules = chest_scripts
    scan = balls(radius)
    hu = ndimage.gaussian_filter(scan.hu.float().numpy(), 0.7)
    image = torch.from_numpy((hu + 1000) / 1400)[None, None]
    drawn = torch.from_numpy(ndimage.binary_dilation(scan.instances.numpy() > 0, iterations=1))[None, None]
    instances, membership = drawn.to(torch.uint8), drawn.half() * 0.95
    solid = nodules.Candidate((15, 15, 15), 0.9, (0.0,) * 6, (1.0, 0.0, 0.0), 0.0)

    nodules.at_half_contrast(image, [solid], instances, membership)

    real = float((scan.instances > 0).sum())
    assert float(drawn.sum()) / real > 1.3
    assert 0.9 < float(instances.sum()) / real < most
    assert ((membership > 0.5) == (instances > 0)).all()


def test_the_ranking_is_the_logistic_regression_that_another_minimiser_finds() -> None:
    rng = np.random.default_rng(5)
    traits = rng.normal(size=(300, 6)) * [1, 5, 0.2, 1, 30, 0.01] + [0, 3, 1, 0, -9, 0.2]
    scaled = (traits - traits.mean(axis=0)) / traits.std(axis=0, ddof=1)
    is_nodule = rng.random(300) < 1 / (1 + np.exp(-(scaled @ [2, 0, -1, 0.5, 0, 1] - 0.7)))

    def loss(values: Any) -> float:
        logits = scaled @ values[:6] + values[6]
        return float(np.logaddexp(0, np.where(is_nodule, -logits, logits)).sum() + (values[:6] ** 2).sum() / 2)

    best = optimize.minimize(loss, np.zeros(7), method="BFGS").x
    nothing = np.full((300, 3), 1 / 3)
    ranking = learn_ranking(Seen(traits, nothing, is_nodule.astype(int) - 1, 20))

    said = ranking(torch.from_numpy(traits).float())[:, 0].detach().numpy()
    usual = np.log(is_nodule.sum() / 20)  # so many more nodules than one in a scan
    np.testing.assert_allclose(said, scaled @ best[:6] + best[6] - usual, atol=1e-3)
    with pytest.raises(ValueError, match="Nothing to learn"):
        learn_ranking(Seen(traits, nothing, np.zeros(300, dtype=int), 20))


def test_an_attenuation_that_is_said_too_seldom_is_said_as_often_as_it_is(chest_scripts: Any) -> None:
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 3, 600)
    logits = 2.0 * np.eye(3)[truth] + rng.normal(size=(600, 3))
    right = np.mean(logits.argmax(axis=1) == truth)
    too_solid = np.exp(logits + np.array([2.0, -1.0, 0.0]))
    said = too_solid / too_solid.sum(axis=1, keepdims=True)

    kinds = learn_attenuation(Seen(np.zeros((601, 6)), np.vstack([said, [1, 0, 0]]), np.append(truth, -1), 1))
    net = chest_scripts[0].ChestNet([8, 16], [4, 8], 1)
    before = torch.from_numpy(said)
    assert torch.allclose(net.judge(torch.zeros(600, 6), before)[1].double(), before, atol=1e-5)
    net.kinds = kinds
    after = net.judge(torch.zeros(600, 6), before)[1].detach().numpy()

    assert np.mean(said.argmax(axis=1) == truth) < right - 0.1
    assert np.mean(after.argmax(axis=1) == truth) > right - 0.02
    assert np.bincount(after.argmax(axis=1)) == pytest.approx(np.bincount(truth), rel=0.15)


def test_the_commands_learn_to_judge_what_the_network_takes_for_nodules_and_pack_that(tmp_path: Path) -> None:
    scans, run = tmp_path / "scans", tmp_path / "run"
    scans.mkdir()
    run.mkdir()
    whole = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    learnt = {key.removeprefix("nodules."): part for key, part in whole.items() if key.startswith("nodules.")}
    torch.save(learnt, run / "nodules.pt")
    (run / "training.json").write_text('{"seed": 3}')
    scan = balls(5.0, 6.0, 4.0, 7.0)
    false = scan.instances > 2  # two of the four are said to be none
    scan = replace(scan, instances=scan.instances.masked_fill(false, 0), centres=scan.centres[:2])
    torch.save(replace(scan, diameters=scan.diameters[:2]), scans / "p000000.pt")
    copy = shutil.copytree(BUNDLE, tmp_path / "chest_ct", ignore=shutil.ignore_patterns("__pycache__"))

    assert main(["chest", "calibrate", "--run", str(run), "--scans", str(scans)]) == 0
    lungs = BUNDLE.parent / "lung_ct" / "models" / "model.pt"
    assert main(["chest", "pack", "--lungs", str(lungs), "--nodules", str(run), "--bundle", str(copy)]) == 0

    packed = torch.load(copy / "models" / "model.pt", weights_only=True)
    judging = torch.load(run / "calibration.pt", weights_only=True)
    assert len(judging) == 4
    assert all(torch.equal(packed[key], part) for key, part in judging.items())
    known = json.loads((copy / "configs" / "metadata.json").read_text())["training"]["nodules"]
    assert (known["seed"], known["calibration"]["scans"], known["calibration"]["nodules"]) == (3, ["p000000"], 2)
    assert known["calibration"]["candidates"] >= 4
    assert Bundle.load(copy).predict(Volume(np.full((20, 40, 40), 40, np.float32), np.eye(4))).detections == ()
