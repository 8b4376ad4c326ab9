"""An ML engineer drops in a bundle that she trained: no code, no edits to the bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from tests.ct import small_ct
from tests.unit.ai.bundles import write_bundle
from tests.unit.test_cli import dicom_node

CHANNELS = ("background", "left kidney", "kidney_right")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as it comes, without a card."""
    folder = write_bundle(tmp_path_factory.mktemp("zoo") / "kidneys", channels=CHANNELS, threshold=0.0)
    file = folder / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["network_data_format"]["outputs"]["pred"] |= {"format": "segmentation", "num_channels": 3}
    image = {"type": "image", "modality": "CT", "num_channels": 1, "spatial_shape": [96, 96, 96]}
    metadata["network_data_format"]["inputs"] = {"image": image}
    file.write_text(json.dumps(metadata))
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    assert dicom_node("init", home).exit_code == 0
    file = home / "settings.toml"
    file.write_text('models = ["models"]\n' + file.read_text())
    return file


def models(settings: Path, *words: str | Path) -> Result:
    return dicom_node("models", words[0], "-s", settings, *words[1:])


def fill_in(settings: Path) -> Path:
    card = settings.parent / "models" / "kidneys" / "card.toml"
    text = card.read_text()
    text = text.replace('manufacturer = "TO-BE-FILLED-IN"', 'manufacturer = "Us"')
    card.write_text(text.replace('training = "TO-BE-FILLED-IN"', 'training = "Not trained; not for clinical use."'))
    return card


def state(settings: Path, name: str = "kidneys") -> dict[str, object]:
    listed = json.loads(models(settings, "list", "--json").stdout)
    return next(model for model in listed if model["name"] == name)


def test_a_bundle_is_added_understood_completed_and_used(settings: Path, bundle: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "kidneys"), "zip", bundle.parent, bundle.name))

    added = models(settings, "add", archive)

    assert added.exit_code == 0, added.output
    assert "3-D CT" in added.stdout
    assert "segmentation: left kidney, kidney_right" in added.stdout
    assert "It is off. Fill in" in added.stdout
    assert state(settings)["enabled"] is False
    assert dicom_node("check", "-s", settings).exit_code == 0, "a model that is off keeps nothing from starting"
    refused = models(settings, "enable", "kidneys")
    assert refused.exit_code == 2
    assert "manufacturer: is still to be filled in" in refused.stderr

    card = fill_in(settings).read_text()
    assert card.count('meaning = "Kidney"') == 2
    assert 'laterality = { value = "24028007", scheme = "SCT", meaning = "Right" }' in card
    enabled = models(settings, "enable", "kidneys")
    assert enabled.exit_code == 0, enabled.output
    assert state(settings)["state"] == "on, pinned"

    series = tmp_path / "series"
    small_ct(series, slices=12)
    command = ["run", str(series), "-o", str(tmp_path / "out"), "--model", "kidneys"]
    command = [sys.executable, "-m", "dicom_node", *command, "--models", str(settings.parent / "models")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out" / "seg.dcm").exists()
    assert "Left kidney" in ran.stdout


def test_a_changed_byte_keeps_the_node_from_starting_until_it_was_reviewed(settings: Path, bundle: Path) -> None:
    models(settings, "add", bundle)
    card = fill_in(settings)
    assert models(settings, "enable", "kidneys").exit_code == 0

    card.write_text(card.read_text() + "\n")

    checked = dicom_node("check", "-s", settings)
    assert checked.exit_code == 2
    assert "changed since it was reviewed" in checked.stderr
    assert "dicom-node models pin kidneys" in checked.stderr
    assert models(settings, "pin", "kidneys").exit_code == 0
    assert dicom_node("check", "-s", settings).exit_code == 0


def test_a_model_that_a_rule_names_stays(settings: Path, bundle: Path) -> None:
    models(settings, "add", bundle)
    fill_in(settings)
    models(settings, "enable", "kidneys")
    rule = settings.parent / "rules" / "kidneys.toml"
    rule.write_text('model = "kidneys"\ndestinations = ["pacs"]\n[when]\nModality = "CT"\n')

    for command in (("disable", "kidneys"), ("remove", "kidneys", "--yes")):
        refused = models(settings, *command)
        assert refused.exit_code == 1
        assert "switch that rule off first" in refused.stderr
    rule.unlink()
    assert models(settings, "disable", "kidneys").exit_code == 0
    assert state(settings)["state"] == "off"
    assert models(settings, "remove", "kidneys", "--yes").exit_code == 0
    assert not (settings.parent / "models" / "kidneys").exists()
    assert models(settings, "remove", "chest_ct", "--yes").exit_code == 1, "it came with the node"


def test_a_name_that_is_taken_gives_way_only_when_told(settings: Path, bundle: Path) -> None:
    assert models(settings, "add", bundle).exit_code == 0
    again = models(settings, "add", bundle)
    assert again.exit_code == 1
    assert "--replace" in again.stderr
    fill_in(settings)
    assert models(settings, "add", bundle, "--replace").exit_code == 0
    assert "TO-BE-FILLED-IN" in (settings.parent / "models" / "kidneys" / "card.toml").read_text(), "the new one"
    assert [path.name for path in (settings.parent / "models").iterdir()] == ["kidneys"], "nothing left behind"


def test_what_the_node_cannot_run_is_not_added(settings: Path, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "four")
    metadata = tmp_path / "four" / "configs" / "metadata.json"
    metadata.write_text(metadata.read_text().replace("[96, 96, 96]", "[96]"))
    (tmp_path / "four" / "models" / "model.pt").unlink()

    refused = models(settings, "add", tmp_path / "four")

    assert refused.exit_code == 2
    assert "it works on 1-D images" in refused.stderr
    assert "no models/model.pt" in refused.stderr
    assert not list((settings.parent / "models").iterdir())


def test_check_runs_it_as_the_node_would_and_draws_the_answer(settings: Path, bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "answer.png"

    checked = models(settings, "check", bundle, "--run", "--device", "cpu", "-o", picture)

    assert checked.exit_code == 0, checked.output
    assert "it answered on cpu: 2 outputs" in checked.stdout
    with Image.open(picture) as drawn:
        assert drawn.width > drawn.height > 100
        rgb = np.asarray(drawn.convert("RGB")).astype(int)
    assert (rgb[..., 0] > rgb[..., 2] + 40).any(), "something is marked"
