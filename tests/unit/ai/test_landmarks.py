"""A point is where the model saw it: in the image or in the patient, in whatever form, in every orientation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ai.bundle import Bundle
from ai.contract import ModelInvalidOutput, Volume
from ai.landmarks import PointForm, landmarks_in, point_names
from ai.process import ModelProcess
from tests.unit.ai.bundles import TO_RAS, two_blobs, write_bundle
from tests.unit.ai.test_bundle import ORIENTATIONS
from tests.unit.ai.test_runner_paths import FINER, LEFT_MM, RIGHT_MM, change

# Names the middle of what is bright on each side of the image, along its first axis; of nothing bright its first voxel.
MIDDLES = """
import torch

class Middles(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        bright = image[0, 0] > self.threshold
        middle = bright.shape[0] // 2
        found = []
        for part in (bright[:middle], bright[middle:]):
            at = part.nonzero().double()
            found.append(at.mean(dim=0) if len(at) else torch.zeros(bright.ndim).double())
        if len(bright[middle:].nonzero()):
            found[1][0] += middle
        return FORM
"""
BY_POINT, BY_AXIS = "torch.stack(found)[None, None]", "torch.stack(found, dim=1)[None]"
NAMES = {"0": "large", "1": "small"}
SPACES: Mapping[str, list[dict[str, Any]]] = {
    "image": [],
    "RAS": [{"affine_lps_to_ras": False}],
    "LPS": [{"affine_lps_to_ras": True}],
}


def middles(folder: Path, form: str, space: str = "image", dimensions: int = 3, **pred: Any) -> Path:
    to_patient = {"_target_": "ApplyTransformToPointsd", "keys": "pred", "refer_keys": "image", "invert_affine": False}
    before: list[dict[str, Any]] = [TO_RAS, FINER] if dimensions == 3 else []
    write_bundle(
        folder,
        network=MIDDLES.replace("FORM", form),
        class_name="Middles",
        preprocessing=before,
        postprocessing=[to_patient | more for more in SPACES[space]],
        threshold=0.0,
    )
    return change(folder, {"spatial_shape": [64] * dimensions}, {"format": "points", "channel_def": NAMES, **pred})


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    made = tmp_path_factory.mktemp("points")
    return {space: Bundle.load(middles(made / f"points_{space}", BY_POINT, space)) for space in SPACES}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_point_is_in_the_middle_of_the_thing_in_every_orientation(name: str, bundles: Mapping[str, Bundle]) -> None:
    volume = two_blobs(np.stack(ORIENTATIONS[name], axis=1), (3.0, 1.5, 2.0))

    for bundle in bundles.values():
        points = bundle.predict(volume).points

        assert [point.output for point in points] == ["large", "small"]
        for point, centre_mm in zip(points, (LEFT_MM, RIGHT_MM), strict=True):
            assert in_patient(volume, point.at) == pytest.approx(centre_mm, abs=0.8)


def in_patient(volume: Volume, at: tuple[float, float, float]) -> NDArray[np.float64]:
    return np.asarray(volume.affine[:3, :3] @ at + volume.affine[:3, 3], np.float64)


def test_points_pass_through_the_process(tmp_path: Path, bundles: Mapping[str, Bundle]) -> None:
    volume = two_blobs(np.stack(ORIENTATIONS["oblique"], axis=1), (3.0, 2.0, 2.0))
    with ModelProcess(middles(tmp_path / "points_too", BY_POINT, "LPS")) as process:
        answer = process.predict(volume, timeout_s=100)

    assert answer.points == bundles["LPS"].predict(volume).points
    assert answer.label_maps == ()


def test_a_2d_model_names_its_points_on_every_slice(tmp_path: Path) -> None:
    axes: dict[str, Any] = {
        "channel_def": {"0": "Y Dimension", "1": "X Dimension"},
        "num_channels": 2,
        "spatial_shape": [2, 2],
    }
    folder = middles(tmp_path / "points_2d", BY_AXIS, dimensions=2, **axes)
    file = folder / "configs" / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"coordinate_meanings": NAMES}))
    bundle = Bundle.load(folder)
    array = np.full((3, 20, 32), -1000, np.float32)
    array[1, 4:7, 9] = array[1, 12, 21:25] = 500  # the first half of the columns has the rows 4 to 6

    points = bundle.predict(Volume(array, np.diag([3.0, 2.0, 1.0, 1.0]), "MR")).points

    assert [(point.output, point.at[0]) for point in points] == [(name, k) for k in range(3) for name in NAMES.values()]
    assert points[2].at == pytest.approx((1, 5, 9))
    assert points[3].at == pytest.approx((1, 12, 22.5))


# As valve_landmarks of the Model Zoo: transforms of the image itself, which its reader gives as slices through time.
OF_TIME = [
    {"_target_": "LoadImage", "image_only": True},
    {"_target_": "EnsureType"},
    {"_target_": "Transpose", "indices": [2, 0, 1, 3]},
]


def test_transforms_of_the_image_itself_get_what_their_reader_would_give(tmp_path: Path) -> None:
    form = f"{BY_POINT} * np.product([1, 1])"  # a name that numpy 2 took away
    folder = middles(tmp_path / "points_time", form, dimensions=2)
    nets = folder / folder.name / "nets.py"
    one_time_point = nets.read_text().replace("image[0, 0]", "image[..., 0][0, 0]")
    nets.write_text("import numpy as np\n" + one_time_point)
    file = folder / "configs" / "inference.json"
    squeeze = [{"_target_": "SqueezeDimd", "keys": "pred", "dim": 0}]
    parts = {"preprocessing": {"_target_": "Compose", "transforms": OF_TIME}, "postprocessing": squeeze}
    file.write_text(json.dumps(json.loads(file.read_text()) | parts))
    array = np.full((1, 20, 32), -1000, np.float32)
    array[0, 4:7, 9] = array[0, 12, 21:25] = 500

    first, second = Bundle.load(folder).predict(Volume(array, np.eye(4), "MR")).points

    assert (first.output, second.output) == ("large", "small")
    assert first.at == pytest.approx((0, 5, 9))
    assert second.at == pytest.approx((0, 12, 22.5))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (torch.zeros(3, 3), r"shape \(3, 3\); its metadata names 2 in 3 dimensions"),
        (torch.full((2, 3), torch.nan), "NaN"),
        ({"at": 1}, "no table"),
    ],
)
def test_points_that_cannot_be_are_refused(answer: Any, why: str) -> None:
    with pytest.raises(ModelInvalidOutput, match=why):
        landmarks_in(answer, PointForm(), ("a", "b"), 3, np.eye(4), np.eye(4))


@pytest.mark.parametrize(
    ("output", "metadata", "names"),
    [
        ({"channel_def": {"0": "apex", "1": "base"}}, {}, ("apex", "base")),
        ({"channel_def": ["Y", "X"], "spatial_shape": [2, 3]}, {}, ("point 1", "point 2", "point 3")),
        ({"channel_def": ["Y", "X"]}, {"coordinate_meanings": {"0": "a", "1": "b"}}, ("a", "b")),
        ({"spatial_shape": [5, 3]}, {}, tuple(f"point {n}" for n in range(1, 6))),
        ({"channel_def": ["apex", "apex"]}, {}, ("point 1", "point 2")),
        ({}, {}, ()),
    ],
)
def test_points_are_named(output: dict[str, Any], metadata: dict[str, Any], names: tuple[str, ...]) -> None:
    assert point_names(output, metadata) == names


def test_where_nothing_turns_the_points_the_metadata_says_their_space() -> None:
    assert PointForm.of({"space": "lps", "channel_def": ["a", "b"]}, []) == PointForm("LPS", by_axis=False)
    back = {"_target_": "ApplyTransformToPointsd", "invert_affine": True}
    assert PointForm.of({"space": "RAS", "channel_def": ["X", "Y", "Z"]}, [back]) == PointForm("", by_axis=True)
