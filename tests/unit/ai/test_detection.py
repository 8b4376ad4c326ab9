"""Detection and classification, trained at the size of a toy and judged as their bundles answer."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from ai.__main__ import main
from ai.bundle import Bundle
from ai.contract import Volume
from ai.data.nifti import read_nifti, write_nifti
from ai.data.nodule import outlined_nodule
from ai.train.cases import read_cases
from ai.train.centre_detector import read_maps
from ai.train.recipe import Data, Recipe
from ai.train.run import read_record, task_of
from tests.unit.ai.toy import AFFINE, SHAPE

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = """
[data]
spacing_mm = [2, 2, 2]
window = [-1000, 400]
patch = [16, 16, 16]
folds = 4
[network]
channels = [8, 16]
strides = [2]
num_res_units = 1
[training]
steps = 90
batch = 4
learning_rate = 0.01
warmup = 5
validate_every = 45
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of lung with two bright balls in each, as `prepare` lists nodules; the lung's density is the class."""
    folder = tmp_path_factory.mktemp("nodules")
    listed = []
    for number in range(8):
        rng = np.random.default_rng(number)
        instances = np.zeros(SHAPE, dtype=np.uint8)
        middles = rng.uniform((5, 5, 5), (18, 18, 10), (2, 3))
        middles[1, 2] += 9
        for n, middle in enumerate(middles, start=1):
            away = np.linalg.norm(np.indices(SHAPE) - middle.reshape(3, 1, 1, 1), axis=0)
            instances[(away < rng.uniform(1.8, 2.8)) & (instances == 0)] = n
        dense = number % 2 == 0
        image = np.where(instances > 0, 50.0, -700.0 if dense else -900.0) + rng.normal(0, 40, SHAPE)
        volume = Volume(image.astype(np.float32), AFFINE)
        for name, array in (("ct", volume.array), ("instances", instances)):
            write_nifti(array, AFFINE, folder / f"{number}_{name}.nii.gz")
        listed.append(
            {
                "id": f"scan_{number}",
                "image": f"{number}_ct.nii.gz",
                "instances": f"{number}_instances.nii.gz",
                "nodules": [asdict(outlined_nodule(instances == n, volume, n)) for n in (1, 2)],
                "class": {"density": "dense" if dense else "thin"},
                "source": "phantom",
            }
        )
    (folder / "dataset.json").write_text(json.dumps({"name": "Balls", "modality": {"0": "CT"}, "training": listed}))
    return folder


@pytest.fixture(scope="module")
def detector(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector trained by the command line, and its bundle beside it."""
    root = tmp_path_factory.mktemp("detector")
    (root / "recipe.toml").write_text(RECIPE)
    command = ["train", "detection", "--data", str(data), "-o", str(root / "run"), "--device", "cpu"]
    assert main([*command, "--config", str(root / "recipe.toml")]) == 0
    assert main(["export", str(root / "run"), "-o", str(root / "bundle")]) == 0
    return root


def test_a_detector_finds_and_its_bundle_gives_the_node_each_nodule(detector: Path, data: Path) -> None:
    record = read_record(detector / "run")
    assert record.figures["CPM"] > 0.7
    bundle = Bundle.load(detector / "bundle")
    for name in record.validation_cases:
        number = name.removeprefix("scan_")
        prediction = bundle.predict(read_nifti(data / f"{number}_ct.nii.gz"))
        truth = read_nifti(data / f"{number}_instances.nii.gz").array
        assert prediction.instances is not None
        sure = [n for n, found in enumerate(prediction.detections, start=1) if found.score > 0.4]
        hit = {int(truth[prediction.instances == n].max()) for n in sure}
        assert hit >= {1, 2}
        np.testing.assert_array_equal(prediction.mask("nodule"), prediction.instances > 0)
    assert bundle.predict(read_nifti(data / "0_ct.nii.gz"), without=["nodule"]).detections == ()


def test_monai_alone_runs_the_detector(detector: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "0.nii.gz").write_bytes((data / "0_ct.nii.gz").read_bytes())
    bundle = detector / "bundle"
    command = [sys.executable, "-m", "monai.bundle", "run", "run"]
    command += ["--config_file", str(bundle / "configs" / "inference.json"), "--bundle_root", str(bundle)]
    command += ["--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path / "eval")]
    ran = subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    (written,) = (tmp_path / "eval").rglob("*_instances.nii.gz")
    prediction = Bundle.load(bundle).predict(read_nifti(data / "0_ct.nii.gz"))
    assert prediction.instances is not None
    sizes = np.bincount(read_nifti(written).array.astype(np.uint8).ravel())
    np.testing.assert_array_equal(sizes, np.bincount(prediction.instances.ravel()))  # turned, but the same voxels


def test_nodules_lie_where_the_image_shows_them_whatever_its_orientation(data: Path, tmp_path: Path) -> None:
    found = read_cases(data)
    recipe = Recipe("detection", data=Data(patch=(16, 16, 16), spacing_mm=(1.5, 1.5, 1.5), window=(-1000, 400)))
    case = task_of(recipe, found, tmp_path).prepare(found.cases[:1], training=True)[0]
    image, maps = np.asarray(case["image"])[0], np.asarray(case["label"])
    assert (maps[0] == 1).sum() == 2
    assert image[maps[0] == 1].min() > image[maps[1] == 0].mean() + 0.3
    assert image[maps[1] > 0].mean() > image[maps[1] == 0].mean() + 0.3


def test_a_set_in_which_nobody_looked_for_nodules_is_refused(data: Path, tmp_path: Path) -> None:
    about = json.loads((data / "dataset.json").read_text())
    about["training"] = [{**case, "image": str(data / case["image"])} for case in about["training"]]
    for case in about["training"]:
        del case["nodules"], case["instances"]
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    found = read_cases(tmp_path)
    with pytest.raises(ValueError, match="nobody looked for nodules in scan_0"):
        task_of(Recipe("detection"), found, tmp_path).prepare(found.cases, training=True)


def test_peaks_that_lie_in_a_surer_finding_are_no_findings_of_their_own() -> None:
    maps = torch.full((2, 20, 20, 20), -8.0)
    maps[1, 4:12, 4:12, 4:12] = 8
    maps[0, 6, 6, 6], maps[0, 10, 10, 10], maps[0, 16, 16, 16] = 4, 3, 2
    found, instances = read_maps(maps, 0.1, 3)
    assert [centre for _, centre in found] == [(6, 6, 6), (16, 16, 16)]
    assert int((instances == 1).sum()) == 8**3
    assert int((instances == 2).sum()) == 1


def test_whole_images_are_classed_and_the_bundle_is_checked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = RECIPE.replace("steps = 90", "steps = 30").replace("validate_every = 45", "validate_every = 30")
    start, end = text.index("[network]"), text.index("[training]")
    network = '[network]\nname = "DenseNet121"\nblock_config = [1, 1]\ninit_features = 8\ngrowth_rate = 4\n'
    (tmp_path / "recipe.toml").write_text(text[:start] + network + text[end:])
    command = ["train", "classification", "--data", str(data), "-o", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*command, "--config", str(tmp_path / "recipe.toml")]) == 0
    record = read_record(tmp_path / "run")
    assert record.questions == {"density": ["dense", "thin"]}
    assert record.figures["score"] == 1
    assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "bundle")]) == 0
    capsys.readouterr()
    main(["bundle", "check", str(tmp_path / "bundle")])
    told = capsys.readouterr().out
    assert "answered (1, 2)" in told
    assert "configs" not in told
