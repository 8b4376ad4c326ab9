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
from scipy import ndimage

import ai
from ai.__main__ import main
from ai.bundle import Bundle
from ai.contract import Volume
from ai.evaluate.overlap import agreement
from ai.phantom.chest import make_phantom
from ai.train import chest
from ai.train.chest import TASKS, Plan, train_nodules
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
