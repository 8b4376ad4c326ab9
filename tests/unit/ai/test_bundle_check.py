"""A bundle is begun, and what is wrong with one is named with its file and key."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ai.__main__ import main
from ai.export.check import check_bundle
from dicom_node.card import Card, card_problems
from tests.unit.ai.bundles import write_bundle

LUNG = Path(__file__).parents[3] / "ai" / "bundles" / "lung_ct"


def quiet(line: str) -> None:
    """Say nothing."""


def test_nothing_is_wrong_with_the_bundle_that_ships() -> None:
    assert check_bundle(LUNG, run=False, say=quiet) == []


@pytest.mark.parametrize("task", ["segmentation", "detection", "classification"])
def test_a_new_bundle_runs_and_names_what_is_to_be_filled_in(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "new", "mine", "--task", task, "-o", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["bundle", "check", str(tmp_path / "mine")]) == 1
    told = capsys.readouterr()
    assert "card.toml: manufacturer: is still to be filled in" in told.out
    assert "LICENSE: no licence has been chosen yet" in told.out
    assert "configs" not in told.out
    assert "answered" in told.out
    assert "problems" in told.err
    card = Card.model_validate(tomllib.loads((tmp_path / "mine" / "card.toml").read_text()))
    assert card_problems(card, tmp_path / "mine") == []  # nor has the node anything against its form


def break_metadata(bundle: Path) -> None:
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "background"}
    path.write_text(json.dumps(metadata))


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        text = (bundle / file).read_text()
        assert old in text
        (bundle / file).write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda bundle: (bundle / "models" / "model.pt").unlink(), "models/model.pt: is not there"),
        (lambda bundle: (bundle / "LICENSE").unlink(), "LICENSE: is not there"),
        (break_metadata, "configs/metadata.json: network_data_format.outputs: The bundle's metadata.json names no"),
        (replace("configs/metadata.json", '"version": "0.1.0"', '"version": "9"'), "card.toml: version: is '0.1.0'"),
        (replace("configs/metadata.json", "{", "{{"), "configs/metadata.json: cannot be read"),
        (
            replace("card.toml", 'output = "left lung"', 'output = "lung"'),
            "segments.0.output: the bundle has no output",
        ),
        (replace("card.toml", "not for clinical use", "for anything"), "card.toml: training: has to say"),
        (replace("card.toml", "timeout_s = 300", "timeout_s = 0"), "card.toml: timeout_s: seconds are needed"),
        (replace("card.toml", 'value = "39607008"', 'value = "TO-BE-FILLED-IN"'), "segments.0.type.value: is still"),
        (replace("card.toml", 'scheme = "SCT"', f'scheme = "{"S" * 17}"'), "segments.0.category.scheme: has 17 char"),
        (replace("card.toml", 'modality = ["CT"]', ""), "card.toml: accepts.modality: say which"),
        (replace("docs/README.md", "not for clinical use", "for anything"), "docs/README.md: has to say"),
    ],
)
def test_each_problem_is_named(tmp_path: Path, spoil: Callable[[Path], None], complaint: str) -> None:
    bundle = tmp_path / "lung_ct"
    shutil.copytree(LUNG, bundle)
    spoil(bundle)
    problems = [str(problem) for problem in check_bundle(bundle, run=False, say=quiet)]
    assert any(complaint in problem for problem in problems), problems


def test_weights_that_do_not_fit_and_answers_that_change_are_problems(tmp_path: Path) -> None:
    other = complete(write_bundle(tmp_path / "weights"))
    torch.save({"weight": torch.zeros(3)}, other / "models" / "model.pt")
    assert any("cannot be loaded" in str(problem) for problem in check_bundle(other, say=quiet))
    said: list[str] = []
    fair = complete(write_bundle(tmp_path / "fair"))
    assert check_bundle(fair, say=said.append) == []
    assert "answered left side, right side on a generated volume" in said[0]


def complete(bundle: Path) -> Path:
    """Add what a bundle of the tests lacks."""
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    for key in ("monai_version", "pytorch_version", "task", "description", "intended_use"):
        metadata[key] = "as it says"
    metadata["changelog"] = {metadata["version"]: "first"}
    metadata["network_data_format"]["inputs"] = {"image": {"modality": "CT", "num_channels": 1}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    card = (LUNG / "card.toml").read_text().replace("left lung", "left side").replace("right lung", "right side")
    (bundle / "card.toml").write_text(card.replace('version = "0.1.0"', f'version = "{metadata["version"]}"'))
    (bundle / "LICENSE").write_text("Apache-2.0")
    (bundle / "docs").mkdir()
    (bundle / "docs" / "README.md").write_text("Not for clinical use.")
    return bundle
