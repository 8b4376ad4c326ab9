"""Left is left and a millimetre is a millimetre on every road: boxes, classes, series, 2-D images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from ai.bundle import Bundle
from ai.contract import BundleError, ModelInvalidOutput, ModelOutOfMemory, Volume
from ai.process import ModelProcess
from tests.unit.ai.bundles import ARGMAX, INVERT, SIDES, TO_5_MM, TO_RAS, WHICH, two_blobs, write_bundle
from tests.unit.ai.test_bundle import ORIENTATIONS

LEFT_MM, RIGHT_MM = np.array([33.0, -35, 705]), np.array([-27.0, -50, 690])
FINER = {**TO_5_MM, "pixdim": [1.5, 1.5, 1.5], "mode": "bilinear"}
TO_WORLD = {
    "_target_": "AffineBoxToWorldCoordinated",
    "box_keys": "box",
    "box_ref_image_keys": "image",
    "affine_lps_to_ras": True,
}
TO_CENTRE = {"_target_": "ConvertBoxModed", "box_keys": "box", "src_mode": "xyzxyz", "dst_mode": "cccwhd"}
AWAY = {"_target_": "DeleteItemsd", "keys": ["image"]}

# Draws a box around what is bright on each side of the image, along its axes; from EDGE voxels before the first bright
# centre to EDGE + SHIFT after the last.
BOXES = (
    SIDES
    + """
class Boxes:
    def __call__(self, image, network):
        sides = network(image)[0]
        corners = []
        for part in (sides[1], sides[2]):
            bright = part.nonzero()
            low, high = bright.min(dim=0).values, bright.max(dim=0).values
            corners.append(torch.cat([low - EDGE, high + EDGE + SHIFT]).float())
        return [{"box": torch.stack(corners), "label": torch.tensor([0, 1]), "label_scores": torch.tensor([0.9, 0.75])}]
"""
)


def change(folder: Path, image: dict[str, Any], pred: dict[str, Any], **config: Any) -> Path:
    """Rewrite what a bundle says that it takes and gives, and parts of its configuration."""
    file = folder / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["network_data_format"] = {"inputs": {"image": image}, "outputs": {"pred": pred}}
    file.write_text(json.dumps(metadata))
    file = folder / "configs" / "inference.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


def box_bundle(folder: Path, after: list[dict[str, Any]], *, edge: float, shift: int) -> Bundle:
    code = BOXES.replace("SHIFT", str(shift)).replace("EDGE", str(edge))
    write_bundle(folder, network=code, preprocessing=[TO_RAS, FINER], postprocessing=after, threshold=0.0)
    pred = {"type": "object", "format": "dict", "channel_def": {"0": "large", "1": "small"}}
    change(folder, {}, pred, inferer={"_target_": f"{folder.name}.nets.Boxes"})
    return Bundle.load(folder)


@pytest.fixture(scope="module")
def in_world(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return box_bundle(tmp_path_factory.mktemp("b") / "world", [TO_WORLD, TO_CENTRE, AWAY], edge=0.5, shift=0)


@pytest.fixture(scope="module")
def in_image(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return box_bundle(tmp_path_factory.mktemp("b") / "image_box", [], edge=0, shift=1)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_box_is_around_the_thing_in_every_orientation(name: str, in_world: Bundle, in_image: Bundle) -> None:
    volume = two_blobs(np.stack(ORIENTATIONS[name], axis=1), (3.0, 1.5, 2.0))

    prediction, other = in_world.predict(volume), in_image.predict(volume)

    assert prediction.instances is not None
    assert other.instances is not None
    assert np.array_equal(prediction.instances, other.instances)  # half a voxel would tell the two spaces apart
    assert [(each.output, each.outlined) for each in prediction.detections] == [("large", False), ("small", False)]
    assert [each.score for each in prediction.detections] == pytest.approx([0.9, 0.75])
    lps = _lps(volume)
    for number, (centre_mm, radius_mm) in enumerate([(LEFT_MM, 18), (RIGHT_MM, 10)], start=1):
        place = lps[prediction.mask(f"{prediction.detections[number - 1].output}/{number}")]
        assert place.mean(axis=0) == pytest.approx(centre_mm, abs=1.6)
        volume_mm3 = len(place) * 9.0
        assert volume_mm3 == pytest.approx((2 * radius_mm) ** 3, rel=0.3)  # in whole slices of 3 mm
        inside = (volume.array > 0) & (np.linalg.norm(lps - centre_mm, axis=-1) <= radius_mm - 3)
        assert (prediction.instances[inside] == number).all()


def test_boxes_pass_through_the_process(in_world: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "world_too"
    box_bundle(folder, [TO_WORLD, TO_CENTRE, AWAY], edge=0.5, shift=0)
    volume = two_blobs(np.stack(ORIENTATIONS["oblique"], axis=1), (3.0, 2.0, 2.0))
    with ModelProcess(folder) as process:
        answer = process.predict(volume, timeout_s=100)

    expected = in_world.predict(volume)
    assert answer.detections == expected.detections
    assert answer.instances is not None
    assert expected.instances is not None
    assert np.array_equal(answer.instances, expected.instances)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ('{"box": torch.zeros(1, 6), "label": torch.tensor([9]), "label_scores": torch.ones(1)}', "label 9"),
        ('{"box": torch.zeros(2, 6), "label": torch.tensor([0]), "label_scores": torch.ones(1)}', "2 boxes"),
        ('{"box": torch.zeros(1, 6), "label": torch.tensor([0]), "label_scores": torch.ones(1) * 2}', "probability"),
        ('{"box": torch.zeros(1, 6) / 0, "label": torch.tensor([0]), "label_scores": torch.ones(1)}', "NaN"),
        ('{"box": torch.zeros(1, 6)}', "no scores"),
    ],
)
def test_boxes_that_cannot_be_are_refused(answer: str, why: str, tmp_path: Path) -> None:
    name = f"odd{sum(map(ord, why))}"
    folder = tmp_path / name
    code = SIDES + f"\nclass Boxes:\n    def __call__(self, image, network):\n        return [{answer}]\n"
    write_bundle(folder, network=code, preprocessing=[TO_RAS], postprocessing=[])
    pred = {"type": "object", "format": "dict", "num_channels": 1}
    change(folder, {}, pred, inferer={"_target_": f"{name}.nets.Boxes"})

    with pytest.raises(ModelInvalidOutput, match=why):
        Bundle.load(folder).predict(two_blobs(np.eye(3), (5.0, 5.0, 5.0)))


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_class_knows_left_from_right_in_every_orientation(name: str, classes: Bundle) -> None:
    answer = classes.predict(two_blobs(np.stack(ORIENTATIONS[name], axis=1), (3.0, 2.0, 2.0)))

    assert answer.label_maps == ()
    assert answer.classes["pred"]["left"] == pytest.approx(18**3 / (18**3 + 10**3), abs=0.03)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("c") / "which"
    write_bundle(folder, network=WHICH, class_name="Which", postprocessing=[])
    pred = {"type": "probabilities", "format": "classes", "channel_def": {"0": "left", "1": "right"}}
    return Bundle.load(change(folder, {"spatial_shape": [64, 64, 64]}, pred))


@pytest.mark.parametrize(
    ("after", "shares"),
    [
        ([{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}], (0.7, 0.54)),
        ([{"_target_": "ToNumpyd", "keys": "pred"}], (0.85, 0.15)),
        ([{"_target_": "AsDiscreted", "keys": ["pred", "label"], "argmax": [True, False], "to_onehot": 2}], (1.0, 0.0)),
        ([{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}], (1.0, 0.0)),
    ],
)
def test_classes_in_every_form(after: list[dict[str, Any]], shares: tuple[float, float], tmp_path: Path) -> None:
    folder = tmp_path / f"form{len(str(after))}"
    write_bundle(folder, network=WHICH, class_name="Which", postprocessing=after)
    pred = {"type": "probabilities", "format": "classes", "channel_def": {"0": "left", "1": "right"}}
    bundle = Bundle.load(change(folder, {"spatial_shape": [64, 64, 64]}, pred))

    said = bundle.predict(two_blobs(np.stack(ORIENTATIONS["coronal"], axis=1), (3.0, 2.0, 2.0))).classes["pred"]

    assert (said["left"], said["right"]) == pytest.approx(shares, abs=0.02)


def test_one_class_alone_is_there_or_not(tmp_path: Path) -> None:
    code = WHICH.replace("return counts / counts.sum()", "return (counts / counts.sum())[:, 1:, None, None, None]")
    write_bundle(tmp_path / "alone", network=code, class_name="Which", postprocessing=[])
    pred = {"type": "probability", "format": "classification", "channel_def": {"0": "small"}, "spatial_shape": [1, 1]}
    bundle = Bundle.load(change(tmp_path / "alone", {"spatial_shape": [64, 64, 64]}, pred))

    said = bundle.predict(two_blobs(np.stack(ORIENTATIONS["coronal"], axis=1), (3.0, 2.0, 2.0))).classes["pred"]

    assert said == {"small": pytest.approx(0.15, abs=0.03), "no small": pytest.approx(0.85, abs=0.03)}


def test_numbers_of_a_regression_pass_through_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "count"
    write_bundle(folder, network=WHICH, class_name="Which", postprocessing=[])
    change(folder, {"spatial_shape": [64, 64, 64]}, {"format": "regression", "channel_def": {"0": "a", "1": "b"}})
    with ModelProcess(folder) as process:
        answer = process.predict(two_blobs(np.eye(3)[:, ::-1], (3.0, 2.0, 2.0)), timeout_s=100)

    assert answer.values["a"] + answer.values["b"] == pytest.approx(1)
    assert answer.values["a"] > 0.8


# Two outputs that overlap, and a last step that squeezes them into numbers which the metadata does not name.
TUMOUR = """
import torch

class Tumour(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        first, second = image[:, :1], image[:, 1:]
        return torch.cat([(first > 100).float(), ((first > 100) | (second > 100)).float()], dim=1)
"""
SQUEEZE = {
    "_target_": "Lambdad",
    "keys": "pred",
    "func": "$lambda x: __import__('torch').where(x[[0]] > 0, 4, x[[1]])",
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_series_on_other_grids_are_laid_onto_the_first_and_overlapping_outputs_stay_whole(
    name: str, tumour: Bundle
) -> None:
    first = two_blobs(np.stack(ORIENTATIONS[name], axis=1), (3.0, 1.5, 2.0))
    second = two_blobs(np.stack(ORIENTATIONS["sagittal"], axis=1), (1.5, 2.0, 2.0))
    first.array[np.linalg.norm(_lps(first) - LEFT_MM, axis=-1) < 20] = -500  # the first shows the small one alone

    answer = tumour.predict({"T1": first, "T2": second})

    assert len(answer.label_maps) == 2
    core, whole = answer.mask("core"), answer.mask("whole")
    assert core.shape == first.array.shape
    assert _lps(first)[core].mean(axis=0) == pytest.approx(RIGHT_MM, abs=1)
    assert _lps(first)[whole & (_lps(first)[..., 0] > 3)].mean(axis=0) == pytest.approx(LEFT_MM, abs=1)
    assert whole.sum() * 9.0 == pytest.approx(4 / 3 * np.pi * (18**3 + 10**3), rel=0.08)
    assert (whole | core == whole).all()


@pytest.fixture(scope="module")
def tumour(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("t") / "tumour"
    write_bundle(folder, network=TUMOUR, class_name="Tumour", postprocessing=[INVERT, SQUEEZE])
    image = {"num_channels": 2, "channel_def": {"0": "T1", "1": "T2"}, "spatial_shape": [64, 64, 64]}
    pred = {"format": "segmentation", "num_channels": 2, "channel_def": {"0": "core", "1": "whole"}}
    return Bundle.load(change(folder, image, pred))


def test_the_answer_lies_on_the_series_that_is_given_first_whichever_the_bundle_names_first(tumour: Bundle) -> None:
    first = two_blobs(np.stack(ORIENTATIONS["sagittal"], axis=1), (1.5, 2.0, 2.0))
    other = two_blobs(np.stack(next(iter(ORIENTATIONS.values())), axis=1), (3.0, 1.5, 2.0))
    other.array[np.linalg.norm(_lps(other) - LEFT_MM, axis=-1) < 20] = -500

    answer = tumour.predict({"T2": first, "T1": other})

    core = answer.mask("core")
    assert core.shape == first.array.shape != other.array.shape
    assert _lps(first)[core].mean(axis=0) == pytest.approx(RIGHT_MM, abs=1)


def test_a_series_that_is_missing_is_named(tumour: Bundle) -> None:
    with pytest.raises(BundleError, match=r"needs T1, T2; it was not given T2"):
        tumour.predict({"T1": two_blobs(np.eye(3), (5.0, 5.0, 5.0))})


# A network of 2-D images that marks what is bright in the half of the larger columns.
FLAT = """
import torch

class Flat(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        assert image.ndim == 4, image.shape
        bright = (image[:, :1] > self.threshold).float()
        late = torch.zeros_like(bright)
        late[:, :, image.shape[2] // 2 :] = 1
        return torch.cat([1 - bright * late, bright * late], dim=1)
"""


@pytest.mark.parametrize("inverts", [True, False])
def test_a_2d_model_marks_every_slice_of_a_series_where_it_is(inverts: bool, tmp_path: Path) -> None:
    name = "flat_inverted" if inverts else "flat_only"
    before = {"_target_": "Resized", "keys": "image", "spatial_size": [60, 90], "mode": "bilinear"}
    after = [INVERT, ARGMAX] if inverts else [ARGMAX]
    write_bundle(
        tmp_path / name, network=FLAT, class_name="Flat", preprocessing=[before], postprocessing=after, threshold=0
    )
    pred = {"format": "segmentation", "num_channels": 2, "channel_def": {"0": "background", "1": "late"}}
    bundle = Bundle.load(change(tmp_path / name, {"spatial_shape": [60, 90]}, pred))
    for directions in ORIENTATIONS.values():
        volume = two_blobs(np.stack(directions, axis=1), (3.0, 1.5, 2.0))
        columns = volume.array.shape[2]

        marked = bundle.predict(volume).mask("late")

        truth = volume.array > 0
        truth[:, :, : columns // 2] = False
        assert 2 * (marked & truth).sum() > 0.9 * (marked.sum() + truth.sum()) > 0


def test_a_2d_class_is_of_one_image_and_grey_is_given_three_times(tmp_path: Path) -> None:
    code = WHICH.replace("        bright", "        assert image.shape[1] == 3 and image.ndim == 4\n        bright", 1)
    write_bundle(tmp_path / "flat_class", network=code, class_name="Which", preprocessing=[], postprocessing=[])
    image = {"num_channels": 3, "spatial_shape": [99, 99], "channel_def": {"0": "image"}}
    pred = {"format": "labels", "spatial_shape": [1, 2], "channel_def": {"0": "early", "1": "late"}}
    bundle = Bundle.load(change(tmp_path / "flat_class", image, pred))
    picture = np.full((1, 30, 40), -1000.0, np.float32)
    picture[0, 5:9, 30:38] = 500

    assert bundle.predict(Volume(picture, np.eye(4), "MG")).classes["pred"] == {"early": 0.0, "late": 1.0}
    with pytest.raises(BundleError, match="works on single images; the series has 2"):
        bundle.predict(Volume(np.repeat(picture, 2, axis=0), np.eye(4), "MG"))


def test_the_card_may_change_values_of_the_configuration(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "changed")
    file = folder / "configs" / "inference.json"
    config = json.loads(file.read_text()) | {"is_dark": False}
    config["preprocessing"]["transforms"].append(
        {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: -x if @is_dark else x"}
    )
    file.write_text(json.dumps(config))
    volume = two_blobs(np.eye(3), (5.0, 5.0, 5.0))

    plain = Bundle.load(folder).predict(volume)
    changed = Bundle.load(folder, changes={"is_dark": True}).predict(volume)

    assert not (plain.mask("left side") & changed.mask("left side")).any()
    with pytest.raises(BundleError, match="no is_bright"):
        Bundle.load(folder, changes={"is_bright": True})


@pytest.mark.parametrize(
    ("fails", "tried"),
    [
        ("image.shape[0] > 1", ["all at once"]),
        ("self.calls < 3", ["all at once", "one window at a time"]),
        ("True", ["all at once", "one window at a time", "stitched on the CPU"]),
    ],
)
def test_a_model_that_runs_out_of_memory_is_asked_for_less_and_each_step_is_told(
    fails: str, tried: list[str], tmp_path: Path
) -> None:
    code = SIDES.replace("super().__init__()", "super().__init__()\n        self.calls = 0").replace(
        "        bright",
        f"        self.calls += 1\n        if {fails}:\n            raise torch.OutOfMemoryError\n        bright",
        1,
    )
    folder = write_bundle(tmp_path / f"greedy{len(fails)}", network=code)
    file = folder / "configs" / "inference.json"
    windows = {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "sw_batch_size": 4}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"inferer": windows}))
    bundle, volume = Bundle.load(folder), two_blobs(np.eye(3)[:, ::-1], (5.0, 5.0, 5.0))

    if fails == "True":
        with pytest.raises(ModelOutOfMemory):
            bundle.predict(volume)
        return
    first, second = bundle.predict(volume), bundle.predict(volume)

    failed = [step for step in first.steps_s if step.startswith("out of memory")]
    assert failed == [f"out of memory, {step}" for step in tried]
    assert list(second.steps_s) == ["preprocess", "infer", "postprocess"], "what made it fit stays"
    assert np.array_equal(first.label_maps[0].array > 0, volume.array > 100)


@pytest.mark.parametrize("kind", ["model.pt2", "model.onnx"])
def test_programs_need_no_network_definition(kind: str, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / kind.replace(".", "_"))
    volume = two_blobs(np.eye(3), (5.0, 5.0, 5.0))
    wanted = Bundle.load(folder).predict(volume)
    network = _Threshold().eval()
    example = torch.zeros(1, 1, *_shown(volume))
    if kind == "model.pt2":
        torch.export.save(torch.export.export(network, (example,)), folder / "models" / kind)
    else:
        onnx.save(_onnx_threshold(example.shape), folder / "models" / kind)
    (folder / "models" / "model.pt").unlink()

    answer = Bundle.load(folder).predict(volume)

    both = wanted.mask("left side") | wanted.mask("right side")
    assert np.array_equal(answer.mask("left side"), both)


class _Threshold(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        bright = (image > 100).float()
        return torch.cat([1 - bright, bright, 0 * bright], dim=1)


def _onnx_threshold(shape: torch.Size) -> Any:
    """The same network, written as ONNX by hand."""
    make, floats = onnx.helper, onnx.TensorProto.FLOAT
    values = {"limit": 100.0, "one": 1.0, "zero": 0.0}
    nodes = [
        make.make_node("Greater", ["image", "limit"], ["above"]),
        make.make_node("Cast", ["above"], ["bright"], to=floats),
        make.make_node("Sub", ["one", "bright"], ["dark"]),
        make.make_node("Mul", ["zero", "bright"], ["nothing"]),
        make.make_node("Concat", ["dark", "bright", "nothing"], ["pred"], axis=1),
    ]
    constants = [make.make_tensor(name, floats, [], [value]) for name, value in values.items()]
    ends = [make.make_tensor_value_info(name, floats, [1, n, *shape[2:]]) for name, n in (("image", 1), ("pred", 3))]
    graph = make.make_graph(nodes, "threshold", [ends[0]], [ends[1]], constants)
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)


def _shown(volume: Volume) -> tuple[int, ...]:
    """Size of the image that the network sees: columns, rows, slices, turned to RAS."""
    steps = np.abs(volume.affine[:3, [2, 1, 0]])
    shape = volume.array.shape[::-1]
    return tuple(shape[int(np.argmax(steps[axis]))] for axis in range(3))


def _lps(volume: Volume) -> np.ndarray[Any, np.dtype[np.float64]]:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.array.shape), indexing="ij"), axis=-1)
    return np.asarray(index @ volume.affine[:3, :3].T + volume.affine[:3, 3])
