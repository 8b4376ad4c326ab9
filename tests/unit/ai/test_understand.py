"""Bundles in the wild describe themselves in many spellings; what they take and give is read without running them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ai.codes import UNKNOWN, codes_of
from ai.contract import BundleError
from ai.interface import Gives
from ai.understand import Understanding, understand

CT = {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1, "spatial_shape": [96, 96, 96]}
SPLEEN = {"format": "segmentation", "num_channels": 2, "channel_def": {"0": "background", "1": "spleen"}}
CONFIG = {"network_def": {"_target_": "UNet"}, "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [96] * 3}}


def write(
    folder: Path,
    image: dict[str, Any] | None = None,
    pred: dict[str, Any] | None = None,
    config: dict[str, Any] | str | None = None,
    **metadata: Any,
) -> Path:
    (folder / "configs").mkdir(parents=True)
    data_format = {"inputs": {"image": image or CT}, "outputs": {"pred": pred or SPLEEN}}
    described = {"version": "0.5.0", "network_data_format": data_format, **metadata}
    (folder / "configs" / "metadata.json").write_text(json.dumps(described))
    if isinstance(config, str):
        (folder / "configs" / "inference.yaml").write_text(config)
    else:
        (folder / "configs" / "inference.json").write_text(json.dumps(CONFIG if config is None else config))
    return folder


def read(folder: Path, **what: Any) -> Understanding:
    return understand(write(folder / "bundle", **what))


def test_a_plain_segmentation_has_no_obstacles(tmp_path: Path) -> None:
    known = read(tmp_path, task="Spleen", required_packages_version={"nibabel": "5.2", "no-such-package": "1"})

    assert known.obstacles == ()
    assert [str(each) for each in known.inputs] == ["3-D CT"]
    assert [str(each) for each in known.outputs] == ["segmentation: spleen"]
    assert known.results[0].startswith("SEG")
    assert known.missing == ("no-such-package",)
    assert (known.configuration, known.weights) == ("configs/inference.json", "")


@pytest.mark.parametrize(
    ("defined", "names"),
    [
        ({"1": "liver", "0": "background"}, ("liver",)),
        ({0: "bg", 1: "liver"}, ("liver",)),
        (["background", "liver"], ("liver",)),
        (None, ("label 1",)),
        ({}, ("label 1",)),
        ({"0": "_background_", "1": 7}, ("7",)),
    ],
)
def test_names_of_outputs_in_every_spelling(tmp_path: Path, defined: Any, names: tuple[str, ...]) -> None:
    pred = {"format": "segmentation", "num_channels": 2, "channel_def": defined}
    assert read(tmp_path, pred=pred).outputs[0].names == names


def test_the_grid_is_found_in_the_configuration_through_a_reference(tmp_path: Path) -> None:
    config = """
network: $@network_def.to(@device)
pixdim: [1.5, 1.5, 2.0]
inferer: {_target_: monai.inferers.SlidingWindowInferer}
preprocessing:
  _target_: Compose
  transforms:
    - {_target_: Orientationd, keys: image, axcodes: RAS}
    - {_target_: monai.transforms.Spacingd, keys: image, pixdim: "@pixdim"}
"""
    known = read(tmp_path, config=config, image={**CT, "modality": "MRI"})

    assert str(known.inputs[0]) == "3-D MR, at 1.5 x 1.5 x 2 mm"
    assert known.inputs[0].orientation == "RAS"
    assert known.configuration == "configs/inference.yaml"
    assert known.obstacles == ()


@pytest.mark.parametrize(
    ("image", "pred", "config", "why"),
    [
        ({**CT, "spatial_shape": [4]}, None, None, "1-D images"),
        (None, None, {**CONFIG, "pre": [{"_target_": "monai.transforms.RandAffined"}]}, "at random (RandAffined)"),
        (None, {"type": "tuples", "format": "points"}, None, "does not name what pred marks"),
        (None, {"format": "segmentation", "num_channels": 1}, None, "does not name what pred marks"),
        (None, {"format": "something"}, None, "does not say of what kind its output pred is"),
        (None, None, {"inferer": {}}, "none of the keys network"),
        (None, None, {"network": {}}, "no inferer"),
        (None, None, {}, "none of configs/inference.json"),
        ({**CT, "type": "noise"}, None, None, "it makes images up"),
        (None, None, {**CONFIG, "latent_shape": [4, 64, 64]}, "it makes images up"),
        (None, None, {**CONFIG, "pre": [{"_target_": "AddClickSignalsd"}]}, "a node works with nobody beside it"),
    ],
)
def test_what_the_node_cannot_run_is_said_before_it_is_tried(
    tmp_path: Path, image: dict[str, Any] | None, pred: dict[str, Any] | None, config: dict[str, Any] | None, why: str
) -> None:
    known = read(tmp_path, image=image, pred=pred, config=config)

    assert any(why in obstacle for obstacle in known.obstacles), known.obstacles


def test_what_is_not_returned_of_an_answer_is_said_beside_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "bundle")
    file = folder / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["network_data_format"]["outputs"] |= {
        "distances": {"type": "image", "format": "image"},
        "something": {"type": "what nobody knows"},
    }
    file.write_text(json.dumps(metadata))

    known = understand(folder)

    assert (known.obstacles, known.left_out) == ((), ("something (not said)",))
    assert "PM: the image distances, on the grid of what it looked at" in known.results


@pytest.mark.parametrize(
    ("pred", "names"),
    [
        ({"type": "image", "format": "hounsfield", "num_channels": 1}, ("pred",)),
        ({"type": "image", "num_channels": 2}, ("pred 1", "pred 2")),
        ({"type": "image", "num_channels": 2, "channel_def": {"0": "T1", "1": "T2"}}, ("T1", "T2")),
        ({"format": "regression", "num_channels": 1, "spatial_shape": [96, 96, 96]}, ("pred",)),
    ],
)
def test_an_answer_for_every_voxel_is_an_image(pred: dict[str, Any], names: tuple[str, ...], tmp_path: Path) -> None:
    known = read(tmp_path, pred=pred)

    assert known.obstacles == ()
    assert [(output.gives.value, output.names) for output in known.outputs] == [("image", names)]


def test_a_regression_of_the_whole_is_a_number(tmp_path: Path) -> None:
    known = read(tmp_path, pred={"format": "regression", "num_channels": 1, "spatial_shape": [1, 1]})

    assert [output.gives.value for output in known.outputs] == ["regression"]


def test_a_slice_inferer_makes_a_2d_network_one_of_volumes(tmp_path: Path) -> None:
    config = {"network": {}, "inferer": {"_target_": "SliceInferer", "roi_size": [256, 256], "spatial_dim": 2}}
    assert read(tmp_path, image={**CT, "spatial_shape": [256, 256]}, config=config).obstacles == ()


@pytest.mark.parametrize(
    ("image", "roles", "colour"),
    [
        ({**CT, "num_channels": 4, "channel_def": ["T1c", "T1", "T2", "FLAIR"]}, ("T1c", "T1", "T2", "FLAIR"), False),
        ({**CT, "num_channels": 3, "channel_def": {"0": "image"}}, (), False),  # its transforms add what is missing
        ({"num_channels": 3, "spatial_shape": [299, 299], "channel_def": {"0": "image"}}, (), True),
        ({"num_channels": 3, "spatial_shape": [256, 256], "channel_def": {"0": "R", "1": "G", "2": "B"}}, (), True),
    ],
)
def test_several_channels_are_several_series_or_one_image_in_colour(
    tmp_path: Path, image: dict[str, Any], roles: tuple[str, ...], colour: bool
) -> None:
    known = read(tmp_path, image=image)
    assert (known.inputs[0].roles, known.inputs[0].has_colour, known.obstacles) == (roles, colour, ())


def test_a_loader_of_several_images_asks_for_several_series(tmp_path: Path) -> None:
    loader = {"_target_": "LoadImaged", "keys": ["artery", "@second", "label"]}
    config = {**CONFIG, "second": "vein", "preprocessing": {"_target_": "Compose", "transforms": [loader]}}
    known = read(tmp_path, config=config, image={**CT, "num_channels": 2})
    assert (known.inputs[0].keys, known.inputs[0].roles) == (("artery", "vein"), ("artery", "vein"))


@pytest.mark.parametrize(
    ("pred", "gives", "names"),
    [
        (
            {"format": "classes", "channel_def": {"0": "background", "1": "A"}},
            Gives.CLASSIFICATION,
            ("background", "A"),
        ),
        (
            {"format": "labels", "spatial_shape": [1, 4], "num_channels": 2},
            Gives.CLASSIFICATION,
            ("label 0", "label 1"),
        ),
        ({"type": "object", "format": "dict", "num_channels": 1}, Gives.DETECTION, ("label 0",)),
        ({"format": "regression", "channel_def": {"0": "age"}}, Gives.REGRESSION, ("age",)),
        ({"format": "points", "channel_def": {"0": "apex", "1": "base"}}, Gives.POINTS, ("apex", "base")),
    ],
)
def test_classes_boxes_and_numbers_are_understood(
    tmp_path: Path, pred: dict[str, Any], gives: Gives, names: tuple[str, ...]
) -> None:
    known = read(tmp_path, pred=pred)
    assert (known.outputs[0].gives, known.outputs[0].names, known.obstacles) == (gives, names, ())


def test_outputs_of_kinds(tmp_path: Path) -> None:
    pred = {"format": "instances", "detects": ["nodule"]}
    known = read(tmp_path, pred=pred)
    assert (known.outputs[0].gives, known.outputs[0].names) == (Gives.DETECTION, ("nodule",))


@pytest.mark.parametrize("text", ["[]", "{", "{}"])
def test_what_is_no_bundle_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(text)
    with pytest.raises(BundleError, match=r"metadata\.json"):
        understand(tmp_path)


@pytest.mark.parametrize(
    ("name", "meaning", "side", "abnormal"),
    [
        ("spleen", "Spleen", None, False),
        ("kidney_right", "Kidney", "Right", False),
        ("Left Kideny", "Kidney", "Left", False),
        ("Left-Hippocampus", "Hippocampus", "Left", False),
        ("heart_ventricle_left", "Left ventricle", None, False),
        ("lung_upper_lobe_left", "Upper lobe of lung", "Left", False),
        ("lung_middle_lobe_right", "Middle lobe of right lung", None, False),
        ("vertebrae_L5", "L5 vertebra", None, False),
        ("pancreatic tumor", "Neoplasm", None, True),
        ("nodule", "Nodule", None, True),
    ],
)
def test_codes_are_proposed_by_name(name: str, meaning: str, side: str | None, abnormal: bool) -> None:
    category, kind, laterality = codes_of(name)
    assert kind["meaning"] == meaning
    assert (laterality and laterality["meaning"]) == side
    assert ("Abnormal" in category["meaning"]) == abnormal


def test_a_name_that_says_nothing_gets_no_code() -> None:
    assert codes_of("autochthon_left")[1]["value"] == UNKNOWN
    assert codes_of("category 1")[1]["value"] == UNKNOWN
