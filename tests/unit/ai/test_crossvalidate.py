"""Cross-validation and fine-tuning, at the size of a toy."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from ai.__main__ import main
from ai.data.nifti import read_nifti
from ai.evaluate.overlap import agreement
from ai.train.crossvalidate import summarise
from ai.train.finetune import recipe_of
from ai.train.networks import build, freeze, network_config
from ai.train.recipe import Data, Network, Recipe
from ai.train.run import read_record
from tests.unit.ai.toy import write_ellipsoids

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = """
[data]
spacing_mm = [2, 2, 2]
window = [-200, 300]
patch = [16, 16, 16]
folds = 2
[network]
channels = [8, 16]
strides = [2]
num_res_units = 1
[training]
steps = 8
learning_rate = 0.01
warmup = 2
validate_every = 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of a toy, cross-validated by the command line."""
    root = tmp_path_factory.mktemp("crossvalidated")
    write_ellipsoids(root / "data", 4, per_patient=2)
    (root / "recipe.toml").write_text(RECIPE)
    assert main(["crossvalidate", "segmentation", *arguments(root)]) == 0
    return root


def arguments(root: Path) -> list[str]:
    config = ["--config", str(root / "recipe.toml"), "--device", "cpu"]
    return ["--data", str(root / "data"), "-o", str(root / "runs"), *config]


def test_every_case_is_judged_once_by_a_network_that_has_not_seen_its_patient(folder: Path) -> None:
    rows = list(csv.DictReader((folder / "runs" / "cases.csv").read_text().splitlines()))
    assert sorted(row["case"] for row in rows) == [f"case_{n}" for n in range(4)]
    for row in rows:
        record = read_record(folder / "runs" / f"fold_{row['fold']}")
        same = {f"case_{n}" for n in range(4) if f"patient {n // 2}" == row["patient"]}
        assert same.isdisjoint(record.training_cases)
        said = read_nifti(folder / "runs" / "predictions" / f"{row['case']}.nii.gz")
        truth = read_nifti(folder / "data" / "labelsTr" / f"{row['case']}.nii.gz")
        dice = agreement(said.array == 1, truth.array == 1, said.spacing_mm).dice
        assert dice == pytest.approx(float(row["Dice liver"]), abs=1e-6)
    table = (folder / "runs" / "summary.md").read_text()
    assert "4 cases of 2 patients, 2 folds" in table
    assert "| Dice liver |" in table


def test_a_fold_that_is_finished_is_not_trained_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("best.pt")}
    assert main(["crossvalidate", "segmentation", *arguments(folder)]) == 0
    assert "fold 1: finished already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("best.pt")} == before
    assert main(["crossvalidate", "segmentation", *arguments(folder), "--seed", "9"]) == 1
    assert "another recipe, seed or data set" in capsys.readouterr().err


def test_the_summary_draws_patients_and_tells_how_folds_differ() -> None:
    rows = [
        {"case": str(n), "patient": str(n // 2), "fold": n // 4, "Dice": value, **({"rare": 1.0} if n == 0 else {})}
        for n, value in enumerate([0.9, 0.9, 0.8, 0.8, 0.5, 0.5, 0.4, 0.4])
    ]
    found = summarise(rows, resamples=500)
    assert found["Dice"]["mean"] == pytest.approx(0.65)
    assert found["Dice"]["fold_mean"] == pytest.approx(0.65)
    assert found["Dice"]["fold_sd"] == pytest.approx(0.2828, abs=1e-3)
    assert 0.4 <= found["Dice"]["low"] < 0.55
    assert 0.75 < found["Dice"]["high"] <= 0.9
    assert found["rare"]["cases"] == 1


def test_a_bundle_is_finetuned_from_its_weights_with_its_encoder_held(folder: Path, tmp_path: Path) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "run"
    assert main(["export", str(folder / "runs" / "fold_0"), "-o", str(bundle)]) == 0
    command = ["finetune", str(bundle), "--data", str(folder / "data"), "-o", str(out), "--freeze-encoder"]
    assert main([*command, "--steps", "4", "--device", "cpu"]) == 0
    record = read_record(out)
    assert record.started_from == "bundle 0.1.0"
    assert record.recipe.data.window == (-200, 300)
    assert record.recipe.data.patch == (16, 16, 16)
    before = torch.load(bundle / "models" / "model.pt", weights_only=True)
    after = torch.load(out / "best.pt", weights_only=True)["model"]
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert all(name.startswith("model.2.") for name in changed), changed
    again = tmp_path / "again"
    assert main(["export", str(out), "-o", str(again)]) == 0
    assert "Fine-tuned from bundle 0.1.0; trained on" in (again / "card.toml").read_text()


def test_labels_of_ones_own_get_a_last_layer_of_their_own(folder: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    assert main(["export", str(folder / "runs" / "fold_0"), "-o", str(bundle)]) == 0
    about = json.loads((folder / "data" / "dataset.json").read_text())
    about["labels"] = {"0": "background", "1": "liver"}
    about["training"] = [
        {**e, "image": str(folder / "data" / e["image"]), "label": str(folder / "data" / e["label"])}
        for e in about["training"]
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(about))
    command = ["finetune", str(bundle), "--data", str(tmp_path / "data"), "-o", str(tmp_path / "run"), "--steps", "2"]
    assert main([*command, "--device", "cpu"]) == 0
    assert read_record(tmp_path / "run").outputs == ["background", "liver"]


@pytest.mark.parametrize("name", ["UNet", "DynUNet", "SegResNet", "AttentionUnet", "BasicUNet"])
def test_the_encoder_of_each_network_is_known(name: str) -> None:
    """What is frozen is what the deepest features depend on: changing it changes them, changing the rest does not."""
    network = build(network_config(Recipe("segmentation", data=Data(patch=(32,) * 3), network=Network(name)), 1, 2))
    frozen = set(freeze(network, ["encoder"]))
    rest = {key for key, _ in network.named_parameters()} - frozen
    assert frozen
    assert rest
    first, last = next(iter(network.named_parameters()))[0], list(network.named_parameters())[-1][0]
    assert first in frozen
    assert last in rest


def test_a_bundle_whose_network_is_its_own_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text('{"network_def": {"_target_": "scripts.net.Net"}}')
    with pytest.raises(ValueError, match=r"network_def: only a network of monai\.networks\.nets"):
        recipe_of(tmp_path)
