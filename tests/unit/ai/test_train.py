"""Training: from a data set on disk to a bundle that the node runs, the same every time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ai.__main__ import main
from ai.bundle import Bundle
from ai.data.nifti import read_nifti
from ai.evaluate.overlap import agreement
from ai.train import loop, samples
from ai.train.cases import Case, read_cases, split
from ai.train.networks import build, network_config
from ai.train.recipe import Data, Network, Recipe, Training, read_recipe
from ai.train.run import Record, read_record, task_of, train
from tests.unit.ai.toy import write_ellipsoids

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = """
[data]
spacing_mm = [2, 2, 2]
window = [-200, 300]
patch = [16, 16, 16]
[network]
name = "UNet"
channels = [8, 16]
strides = [2]
num_res_units = 1
dropout = 0.1
[training]
steps = 20
batch = 2
learning_rate = 0.01
warmup = 2
validate_every = 5
ema = 0.9
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ellipsoids(tmp_path_factory.mktemp("ellipsoids"), 5, source=lambda n: "synthetic" if n else "real")


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def run(data: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that the command line trained in 20 steps."""
    out = tmp_path_factory.mktemp("run") / "run"
    command = ["train", "segmentation", "--data", str(data), "-o", str(out), "--config", str(recipe_file)]
    assert main([*command, "--device", "cpu", "--seed", "3"]) == 0
    return out


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "liver"
    assert main(["export", str(run), "-o", str(out), "--torchscript"]) == 0
    return out


def test_a_trained_network_becomes_a_bundle_that_the_node_runs(run: Path, bundle: Path, data: Path) -> None:
    record = read_record(run)
    (name,) = record.validation_cases
    volume = read_nifti(data / "imagesTr" / f"{name}.nii.gz")
    truth = read_nifti(data / "labelsTr" / f"{name}.nii.gz").array
    liver = Bundle.load(bundle).predict(volume).mask("liver")
    dice = agreement(liver, truth == 1, volume.spacing_mm).dice
    assert dice == pytest.approx(record.figures["Dice liver"], abs=1e-6)
    assert dice > untrained(record, data)["Dice liver"] + 0.2


def untrained(record: Record, data: Path) -> dict[str, float]:
    torch.manual_seed(3)
    found = read_cases(data)
    task = task_of(record.recipe, found, data / "cache")
    held_out = task.prepare([case for case in found.cases if case.name in record.validation_cases], training=False)
    return loop.means(task.judge(build(record.network).eval(), held_out, torch.device("cpu")))


def test_monai_alone_runs_the_bundle_and_writes_what_the_node_says(bundle: Path, data: Path, tmp_path: Path) -> None:
    case = data / "imagesTr" / "case_0.nii.gz"
    (tmp_path / "case_0.nii.gz").write_bytes(case.read_bytes())
    given = {"dataset_dir": tmp_path, "output_dir": tmp_path / "eval", "bundle_root": bundle}
    files = {"config_file": bundle / "configs" / "inference.json", "meta_file": bundle / "configs" / "metadata.json"}
    command = [sys.executable, "-m", "monai.bundle", "run", "run"]
    for name, value in (files | given).items():
        command += [f"--{name}", str(value)]
    ran = subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    (written,) = (tmp_path / "eval").rglob("*.nii.gz")
    prediction = Bundle.load(bundle).predict(read_nifti(case))
    np.testing.assert_array_equal(read_nifti(written).array == 1, prediction.mask("liver"))


def test_a_bundle_is_judged_on_other_cases_by_their_label_maps(
    bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "segmentation", "--bundle", str(bundle), "--limit", "2", "--resamples", "20"]
    assert main(command) == 1
    assert "--source" in capsys.readouterr().err
    assert main([*command, "--source", str(data), "-o", str(tmp_path)]) == 0
    printed = capsys.readouterr().out

    said = Bundle.load(bundle).predict(read_nifti(data / "imagesTr" / "case_1.nii.gz"))
    truth = read_nifti(data / "labelsTr" / "case_1.nii.gz").array
    for value, name in {1: "liver", 2: "tumour"}.items():
        both = np.count_nonzero(said.mask(name) & (truth == value))
        dice = 2 * both / (np.count_nonzero(said.mask(name)) + np.count_nonzero(truth == value))
        assert f"| case_1 | {name} | {dice:.3f} |" in printed
    assert "| mean of 2 | liver |" in printed
    assert "case_0" in (tmp_path / "report.html").read_text()
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2


def test_the_bundles_card_and_documents_say_what_it_was_trained_on_and_that_it_is_not_for_clinical_use(
    bundle: Path, run: Path
) -> None:
    record = read_record(run)
    assert record.real + record.synthetic == 4
    sentence = f"Trained on {record.real} real and {record.synthetic} synthetic scans; not for clinical use."
    card, documents = (bundle / "card.toml").read_text(), (bundle / "docs" / "README.md").read_text()
    assert f'training = "{sentence}"' in card
    assert 'value = "10200004", scheme = "SCT", meaning = "Liver"' in card
    assert sentence in documents
    assert f"{record.figures['Dice liver']:.3f}" in documents
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["2"] == "tumour"
    assert "not for clinical use" in metadata["description"]
    assert metadata["training"]["seed"] == read_record(run).seed
    assert metadata["training"]["training_cases"] == read_record(run).training_cases


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.* is deprecated:DeprecationWarning")
def test_torchscript_answers_as_the_network(bundle: Path, run: Path) -> None:
    network = build(read_record(run).network)
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    patch = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        traced = torch.jit.load(bundle / "models" / "model.ts")(patch)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(traced, network.eval()(patch), atol=1e-4, rtol=1e-4)


def test_an_interrupted_training_ends_with_the_same_weights(
    run: Path, data: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, seed_step = read_recipe(recipe_file, "segmentation"), samples.seed_step

    def die(seed: int, step: int) -> None:
        if step == 13:
            raise KeyboardInterrupt
        seed_step(seed, step)

    monkeypatch.setattr(loop, "seed_step", die)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, tmp_path, seed=3, device="cpu", say=lambda line: None)
    monkeypatch.undo()
    said: list[str] = []
    again = train(recipe, data, tmp_path, seed=3, device="cpu", resume=True, say=said.append)
    assert "going on after step 10" in said
    whole = read_record(run)
    assert (again.rows, again.best_step) == (whole.rows, whole.best_step)
    assert (tmp_path / "log.csv").read_text() == (run / "log.csv").read_text()
    ours, theirs = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (tmp_path, run))
    for part in ("network", "averaged"):
        for name, value in theirs[part].items():
            assert torch.equal(ours[part][name], value), name


def test_a_run_is_neither_overwritten_nor_resumed_otherwise(run: Path, data: Path, recipe_file: Path) -> None:
    recipe = read_recipe(recipe_file, "segmentation")
    with pytest.raises(ValueError, match="holds a training already: give --resume"):
        train(recipe, data, run, seed=3, device="cpu")
    with pytest.raises(ValueError, match="was begun with another recipe, seed, fold"):
        train(recipe, data, run, seed=4, device="cpu", resume=True)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[training]\nstep = 3", r"training\.step: there is no such key; did you mean 'steps'"),
        ("[training]\nsteps = 'many'", r"training\.steps: 'many' is not of the kind that is needed \(a whole number\)"),
        ("[training]\noptimiser = 'lion'", r"training\.optimiser: 'lion' is not one of adamw, adam, sgd"),
        ("[data]\npatch = [16, 'x']", r"data\.patch: 'x' is not of the kind"),
        ("[augmentation]\nflip = 0.5", r"augmentation: there is no such table; did you mean 'augment'"),
        ("steps = [", "cannot be read"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_told_with_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"recipe\.toml.*{complaint}"):
        read_recipe(tmp_path / "recipe.toml", "segmentation")


def test_yaml_and_json_say_the_same_as_toml(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "data: {patch: [8, 8, 8]}\nnetwork: {name: UNet, channels: [4, 8], strides: [2]}\n"
    )
    recipe = read_recipe(tmp_path / "r.yaml", "segmentation")
    recipe.save(tmp_path / "r.json")
    assert read_recipe(tmp_path / "r.json", "segmentation") == recipe
    assert recipe.network.arguments == {"channels": [4, 8], "strides": [2]}


@pytest.mark.parametrize("name", ["UNet", "DynUNet", "SegResNet", "AttentionUnet", "BasicUNet"])
def test_networks_are_made_by_name(name: str) -> None:
    recipe = Recipe("segmentation", data=Data(patch=(32, 32, 32), spacing_mm=(1, 1, 2.5)), network=Network(name))
    network = build(network_config(recipe, 2, 3)).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 2, 32, 32, 32)).shape == (1, 3, 32, 32, 32)


def test_a_network_that_monai_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="has no network 'VNett'"):
        network_config(Recipe("segmentation", network=Network("VNett")), 1, 2)
    with pytest.raises(ValueError, match=r"network\.depth: UNet takes no such argument"):
        network_config(Recipe("segmentation", network=Network("UNet", {"depth": 3})), 1, 2)


def test_no_patient_is_on_both_sides_of_a_split(tmp_path: Path) -> None:
    found = read_cases(write_ellipsoids(tmp_path, 9, per_patient=2))
    held_out: list[str] = []
    for fold in range(4):
        training, validation = split(found.cases, fold, 4, seed=1)
        assert {case.patient for case in training}.isdisjoint(case.patient for case in validation)
        held_out += [case.name for case in validation]
    assert sorted(held_out) == sorted(case.name for case in found.cases)
    with pytest.raises(ValueError, match="5 patients; choose another fold"):
        split(found.cases, 9, 5, seed=1)


def test_folds_that_the_data_fixes_are_kept() -> None:
    cases = [Case(str(n), (), None, str(n), fold=n % 2) for n in range(6)]
    assert [case.name for case in split(cases, 1, 5, seed=0)[1]] == ["1", "3", "5"]


def test_a_set_with_gaps_between_its_labels_is_trained_on_without_gaps(tmp_path: Path) -> None:
    data = write_ellipsoids(tmp_path, 2)
    about = json.loads((data / "dataset.json").read_text())
    about["labels"] = {"background": 0, "tumour": 2}  # as nnU-Net writes it; the liver is left out
    (data / "dataset.json").write_text(json.dumps(about))
    found = read_cases(data)
    task = task_of(Recipe("segmentation", data=Data(patch=(16, 16, 16)), training=Training()), found, tmp_path)
    label = task.prepare(found.cases[:1], training=False)[0]["label"]
    assert task.outputs == ("background", "tumour")
    truth = read_nifti(found.cases[0].label).array if found.cases[0].label else None
    assert truth is not None
    np.testing.assert_array_equal(np.asarray(label[0]), (truth == 2)[::-1, ::-1])  # the toy's slices run along x


@pytest.mark.parametrize("npz", [False, True], ids=["nifti", "npz"])
def test_what_prepare_writes_is_read_as_the_source_itself(tmp_path: Path, npz: bool) -> None:
    data = write_ellipsoids(tmp_path / "msd", 2)
    command = ["prepare", str(data), "-o", str(tmp_path / "prepared"), "--folds", "2", "--spacing-mm", "2"]
    assert main([*command, *(["--npz"] if npz else [])]) == 0
    sets = [read_cases(folder) for folder in (data, tmp_path / "prepared")]
    assert sets[0].labels == sets[1].labels
    assert sets[1].modality == "CT"
    assert {case.fold for case in sets[1].cases} == {0, 1}
    recipe = Recipe("segmentation", data=Data(patch=(16, 16, 16), spacing_mm=(2, 2, 2), window=(-200, 300)))
    ready = [task_of(recipe, found, tmp_path).prepare(found.cases[:1], training=True)[0] for found in sets]
    for key, loose in (("image", 0.002), ("label", 0)):  # prepared CT is rounded to whole Hounsfield units
        np.testing.assert_allclose(np.asarray(ready[1][key]), np.asarray(ready[0][key]), atol=loose)
