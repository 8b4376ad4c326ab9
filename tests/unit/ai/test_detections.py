"""What a bundle detects lies where the thing lies, keeps its score and classes, and can be left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ai.bundle import Bundle
from ai.contract import BundleError, ModelInvalidOutput
from ai.process import ModelProcess
from tests.unit.ai.bundles import TO_5_MM, TO_RAS, two_blobs, write_bundle, write_detecting_bundle
from tests.unit.ai.test_bundle import ORIENTATIONS

LEFT_MM, RIGHT_MM = (33, -35, 705), (-27, -50, 690)
TO_3_MM = {**TO_5_MM, "pixdim": [3.0, 3.0, 3.0], "mode": "bilinear"}


@pytest.fixture(scope="module")
def detecting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detecting_bundle(tmp_path_factory.mktemp("d") / "finder", preprocessing=[TO_RAS, TO_3_MM])


@pytest.fixture(scope="module")
def finder(detecting: Path) -> Bundle:
    return Bundle.load(detecting)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_each_detection_is_where_it_is_in_every_orientation(name: str, finder: Bundle) -> None:
    volume = two_blobs(np.stack(ORIENTATIONS[name], axis=1), (3.0, 1.5, 2.0))

    prediction = finder.predict(volume)

    assert [(each.output, each.score) for each in prediction.detections] == [("blob", 0.9), ("blob", 0.4)]
    assert prediction.detections[1].classes == {"size": {"large": 0.25, "small": 0.75}}
    assert prediction.saliency is not None
    for number, (centre_mm, radius_mm, spoke) in enumerate([(LEFT_MM, 18, 255), (RIGHT_MM, 10, 128)], start=1):
        mask = prediction.mask(f"blob/{number}")
        index = np.argwhere(mask).mean(axis=0)
        assert volume.affine[:3, :3] @ index + volume.affine[:3, 3] == pytest.approx(centre_mm, abs=0.75)
        sphere_mm3 = 4 / 3 * np.pi * radius_mm**3
        # Found on 3 mm voxels: linear interpolation cuts the corners of a ball of three voxels' radius.
        assert 0.85 * sphere_mm3 < mask.sum() * 9.0 < 1.02 * sphere_mm3
        assert prediction.saliency[mask].max() == pytest.approx(spoke, abs=1)
    assert not prediction.saliency[volume.array < 0].any() or prediction.saliency[volume.array < 0].mean() < 5


def test_the_process_hands_over_what_the_bundle_found(detecting: Path, finder: Bundle) -> None:
    volume = two_blobs(np.stack(ORIENTATIONS["oblique"], axis=1), (3.0, 2.0, 2.0))
    with ModelProcess(detecting) as process:
        found = process.predict(volume, timeout_s=100)
        left_out = process.predict(volume, timeout_s=100, without=["blob"])
    expected = finder.predict(volume)

    assert found.detections == expected.detections
    assert found.instances is not None
    assert found.saliency is not None
    assert expected.instances is not None
    assert expected.saliency is not None
    assert np.array_equal(found.instances, expected.instances)
    assert np.array_equal(found.saliency, expected.saliency)
    assert np.array_equal(found.mask("left side"), expected.mask("left side"))
    assert (left_out.detections, left_out.instances, left_out.saliency) == ((), None, None)
    assert np.array_equal(left_out.mask("left side"), expected.mask("left side"))


def test_a_bundle_that_cannot_leave_something_out_says_so(tmp_path: Path) -> None:
    bundle = Bundle.load(write_bundle(tmp_path / "whole"))
    with pytest.raises(BundleError, match="cannot leave out nodule"):
        bundle.predict(two_blobs(np.eye(3), (5.0, 5.0, 5.0)), without=["nodule"])


@pytest.mark.parametrize("score", [1.5, float("nan"), 0.95])
def test_a_score_that_is_no_probability_or_out_of_order_is_refused(score: float, tmp_path: Path) -> None:
    bundle = Bundle.load(write_detecting_bundle(tmp_path / "odd", preprocessing=[TO_RAS], second_score=score))
    with pytest.raises(ModelInvalidOutput, match="score"):
        bundle.predict(two_blobs(np.eye(3), (5.0, 5.0, 5.0)))
