"""An image that a bundle answers with lies on what it was shown: every value at its place, in every orientation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ai.bundle import Bundle
from ai.contract import ModelInvalidOutput, Volume
from ai.process import ModelProcess
from ai.understand import understand
from tests.unit.ai.bundles import INVERT, TO_RAS, two_blobs
from tests.unit.ai.imaging import PLAIN, adds
from tests.unit.ai.registering import BOTH, IMAGE
from tests.unit.ai.test_bundle import ORIENTATIONS

FINER = {"_target_": "Spacingd", "keys": "image", "pixdim": [2.0, 2.0, 2.0], "mode": "bilinear"}
BACK = {**INVERT, "nearest_interp": False}
CROPPED = {"_target_": "SpatialCropd", "keys": "image", "roi_start": [4, 3, 2], "roi_end": [999, 999, 999]}
FLAT = {"num_channels": 1, "spatial_shape": [64, 64]}
WAYS: Mapping[str, dict[str, Any]] = {  # what comes back of a ramp through the patient is that ramp, and 100 more
    "left turned": {},
    "inverted": {"after": [BACK]},
    "not turned": {"before": []},
    "resampled": {"before": [TO_RAS, FINER]},
    "resampled, inverted": {"before": [TO_RAS, FINER], "after": [BACK]},
    "cropped": {"before": [TO_RAS, CROPPED]},
    "slice by slice": {"before": [], "image": FLAT},
}
EXACT = ("left turned", "inverted", "not turned", "slice by slice")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    made = tmp_path_factory.mktemp("adds")
    return {way: Bundle.load(adds(made / f"adds_{n}", **how)) for n, (way, how) in enumerate(WAYS.items())}


def ramp(name: str) -> Volume:
    """A different value at each place: linear along each axis of the patient, so that interpolation keeps it."""
    blank = two_blobs(np.stack(ORIENTATIONS[name], axis=1), (5.0, 3.5, 4.0))
    index = np.moveaxis(np.indices(blank.array.shape), 0, -1)
    lps = index @ blank.affine[:3, :3].T + blank.affine[:3, 3]
    return Volume((lps @ [1.0, 10.0, 0.1]).astype(np.float32), blank.affine)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_value_is_at_its_place_in_every_orientation(name: str, bundles: Mapping[str, Bundle]) -> None:
    volume = ramp(name)

    for way, bundle in bundles.items():
        answer = bundle.predict(volume)

        assert answer.label_maps == ()
        image = answer.images["denoised"]
        assert image.dtype == np.float32
        assert image.shape == volume.array.shape
        wanted = volume.array + np.float32(100)
        if way in EXACT:
            np.testing.assert_array_equal(image, wanted, err_msg=way)
        elif way == "cropped":
            known = image > image.min()
            assert 0.6 < known.mean() < 0.95
            np.testing.assert_allclose(image[known], wanted[known], atol=0.5)
        else:  # at the edges there is nothing to interpolate with
            inside = (slice(2, -2),) * 3
            np.testing.assert_allclose(image[inside], wanted[inside], atol=1.5, err_msg=way)


@pytest.mark.parametrize("name", ["axial, feet to head", "sagittal"])
def test_what_is_moved_is_moved_to_the_side_it_was_moved_to(name: str, tmp_path: Path) -> None:
    """In RAS the first axis of the image runs to the patient's right, and LPS has its x to the left."""
    bundle = Bundle.load(adds(tmp_path / f"moves_{name}", answer="torch.roll(image, 3, dims=2)"))
    volume = two_blobs(np.stack(ORIENTATIONS[name], axis=1), (3.0, 3.0, 3.0))

    image = bundle.predict(volume).images["denoised"]

    before, after = (
        (np.argwhere(array > 0) @ volume.affine[:3, :3].T + volume.affine[:3, 3]).mean(axis=0)
        for array in (volume.array, image)
    )
    assert after - before == pytest.approx([-9.0, 0.0, 0.0], abs=1e-4)


def test_images_pass_through_the_process_as_they_are(tmp_path: Path) -> None:
    outputs = {"both": {"type": "image", "num_channels": 2, "channel_def": {"0": "more", "1": "less"}}}
    folder = adds(tmp_path / "in_a_process", answer="torch.cat([image + more, image - more], dim=1)", outputs=outputs)
    volume = ramp("oblique")
    with ModelProcess(folder) as process:
        answer = process.predict(volume, timeout_s=100)

    assert list(answer.images) == ["more", "less"]
    np.testing.assert_array_equal(answer.images["more"], volume.array + np.float32(100))
    np.testing.assert_array_equal(answer.images["less"], volume.array - np.float32(100))


def test_a_map_beside_a_segmentation_comes_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "with_map"
    outputs = {
        "marks": {"format": "segmentation", "num_channels": 2, "channel_def": {"0": "background", "1": "bright"}},
        "doubt": {"format": "uncertainty", "num_channels": 1},
    }
    answer = '{"marks": torch.cat([0 * image, (image > 0).float()], dim=1), "doubt": image / more}'
    flatten = {"_target_": "FlattenSubKeysd", "keys": "pred"}
    adds(folder, answer=answer, after=[flatten, {**BACK, "keys": ["marks", "doubt"]}], outputs=outputs)
    volume = two_blobs(np.eye(3), (5.0, 5.0, 5.0))

    answered = Bundle.load(folder).predict(volume)

    assert answered.mask("bright").sum() == (volume.array > 0).sum()
    np.testing.assert_allclose(answered.images["doubt"], volume.array / 100, rtol=1e-6)
    known = understand(folder)
    assert (known.obstacles, known.left_out) == ((), ())
    assert known.results[1] == "PM: the image doubt, on the grid of what it looked at"


def test_a_picture_that_was_moved_comes_back_on_the_fixed_one(tmp_path: Path) -> None:
    folder = adds(
        tmp_path / "moved",
        answer="image[:, 1:] + more",
        before=[{"_target_": "ConcatItemsd", "keys": ["fixed", "moving"], "name": "image"}],
        outputs={"pred": {"type": "image", "format": "magnitude", "num_channels": 1, "channel_def": {"0": "image"}}},
        image={**IMAGE, "num_channels": 2, "channel_def": {"0": "fixed", "1": "moving"}},
    )
    file = folder / "configs" / "inference.json"
    file.write_text(
        file.read_text().replace('"keys": "image"', f'"keys": {str(BOTH["keys"]).replace(chr(39), chr(34))}')
    )
    fixed = ramp("prone")
    moving = Volume(fixed.array * 2, fixed.affine)

    answer = Bundle.load(folder).predict({"fixed": fixed, "moving": moving})

    np.testing.assert_array_equal(answer.images["pred"], moving.array + np.float32(100))


def test_an_output_that_is_called_as_the_input_is_not_taken_for_it(tmp_path: Path) -> None:
    bundle = Bundle.load(adds(tmp_path / "same_name", outputs={"image": PLAIN}))
    volume = ramp("prone")

    np.testing.assert_array_equal(bundle.predict(volume).images["image"], volume.array + np.float32(100))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"answer": "image / 0 * 0"}, "NaN or infinity"),
        (
            {"answer": "image + more", "after": [{"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x / 0"}]},
            "NaN",
        ),
        ({"answer": "image[:, :, ::2]"}, "The model answered with"),
        ({"outputs": {"pred": {"format": "regression", "num_channels": 1}}}, "value for every voxel"),
        ({"answer": "torch.cat([image, image], dim=1)"}, "has 2 channels; its metadata: denoised"),
    ],
)
def test_an_image_that_cannot_be_is_refused(how: dict[str, Any], why: str, tmp_path: Path) -> None:
    bundle = Bundle.load(adds(tmp_path / f"odd{sum(map(ord, str(how)))}", **how))

    with pytest.raises(ModelInvalidOutput, match=why):
        bundle.predict(two_blobs(np.eye(3), (5.0, 5.0, 5.0)))
