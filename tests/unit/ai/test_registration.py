"""What lay in one place lies in the other: by a field or a matrix, in voxels or in mm, in every orientation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ai.bundle import Bundle
from ai.contract import ModelInvalidOutput, Registration, Volume
from ai.process import ModelProcess
from ai.understand import understand
from tests.unit.ai.bundles import two_blobs
from tests.unit.ai.registering import BACK, BOTH, STRETCH, finds_shift, moved
from tests.unit.ai.test_bundle import ORIENTATIONS

SHIFT_MM = np.array([6.0, -9.0, 5.0])
COARSER = {"_target_": "Spacingd", "pixdim": [2.0, 2.5, 1.5], "mode": "bilinear", **BOTH}
RESIZED = {"_target_": "Resized", "spatial_size": [40, 36, 48], "mode": "trilinear", **BOTH}
IN_RAS = "(torch.tensor([-6.0, 9.0, 5.0])[:, None, None, None] + 0 * at)[None].float()"
IN_LPS = "(torch.tensor([6.0, -9.0, 5.0])[:, None, None, None] + 0 * at)[None].float()"


def crop(key: str, start: int) -> dict[str, Any]:
    """Leave out the edges of one image, so that the same voxel lies elsewhere in each."""
    return {"_target_": "SpatialCropd", "keys": key, "roi_start": [0, start, 0], "roi_end": [99, start + 34, 99]}


WAYS: Mapping[str, dict[str, Any]] = {
    "field": {},
    "field, inverted": {"after": [BACK | {"keys": "ddf"}], "answer": '{"ddf": field[None].float(), "pred": image}'},
    "field, coarser": {"between": [COARSER]},
    "field, resized": {"between": [RESIZED], "answer": "(image, field[None].float())"},
    "field, cropped apart": {"between": [COARSER, crop("fixed", 0), crop("moving", 1)]},
    "matrix": {"form": "matrix"},
    "matrix, resized": {"form": "matrix", "between": [RESIZED]},
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    made = tmp_path_factory.mktemp("registers")
    return {way: Bundle.load(finds_shift(made / f"finds_{n}", **how)) for n, (way, how) in enumerate(WAYS.items())}


def at(registration: Registration, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where places of the fixed image are in the moving one; a field is asked at its own points only."""
    found = points
    if registration.vectors is not None and registration.affine is not None:
        inverse = np.linalg.inv(registration.affine)
        k, j, i = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int).T
        own = np.stack([k, j, i], axis=-1) @ registration.affine[:3, :3].T + registration.affine[:3, 3]
        found = points + registration.vectors[k, j, i] + 0 * own
    return found @ registration.matrix[:3, :3].T + registration.matrix[:3, 3]


def nodes(registration: Registration, volume: Volume) -> NDArray[np.float64]:
    """Places in the patient: points of the field, or voxels of the image; some, from end to end."""
    affine, shape = volume.affine, volume.array.shape
    if registration.vectors is not None and registration.affine is not None:
        affine, shape = registration.affine, registration.vectors.shape[:3]
    index = np.stack(np.meshgrid(*(np.unique(np.linspace(0, n - 1, 4).astype(int)) for n in shape)), axis=-1)
    return np.asarray(index.reshape(-1, 3) @ affine[:3, :3].T + affine[:3, 3], np.float64)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_what_moved_is_found_where_it_is_in_every_orientation(name: str, bundles: Mapping[str, Bundle]) -> None:
    fixed = two_blobs(np.stack(ORIENTATIONS[name], axis=1), (3.0, 3.0, 2.0))
    bright = np.argwhere(fixed.array > 0) @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    middle = bright.mean(axis=0)

    for way, bundle in bundles.items():
        answer = bundle.predict({"fixed": fixed, "moving": moved(fixed, SHIFT_MM)})

        assert answer.registration is not None
        assert answer.label_maps == ()
        places = nodes(answer.registration, fixed)
        expected = places + SHIFT_MM + (places - middle) * STRETCH
        if name == "oblique":  # the image's axes are not the patient's: what is found there is only its middle
            places, expected = middle[None], middle[None] + SHIFT_MM
        assert at(answer.registration, places) == pytest.approx(expected, abs=0.5), way


@pytest.mark.parametrize(("space", "answer"), [("RAS", IN_RAS), ("LPS", IN_LPS)])
def test_millimetres_of_the_patient_are_taken_as_they_are(space: str, answer: str, tmp_path: Path) -> None:
    bundle = Bundle.load(finds_shift(tmp_path / f"in_{space}", answer=answer, space=space, between=[COARSER]))
    fixed = two_blobs(np.stack(ORIENTATIONS["sagittal"], axis=1), (3.0, 2.0, 2.0))

    registration = bundle.predict({"fixed": fixed, "moving": fixed}).registration

    assert registration is not None
    assert registration.vectors is not None
    np.testing.assert_allclose(
        registration.vectors.reshape(-1, 3), np.broadcast_to(SHIFT_MM, (registration.vectors.size // 3, 3))
    )


def test_a_field_passes_through_the_process_unless_it_is_too_fine_to_be_sent(
    tmp_path: Path, bundles: Mapping[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = two_blobs(np.stack(ORIENTATIONS["oblique"], axis=1), (3.0, 2.0, 2.0))
    images = {"fixed": fixed, "moving": moved(fixed, SHIFT_MM)}
    with ModelProcess(finds_shift(tmp_path / "in_a_process")) as process:
        answer = process.predict(images, timeout_s=100).registration
        monkeypatch.setattr("ai.reply.MOST_VECTORS", 1000)
        with pytest.raises(ModelInvalidOutput, match="at most 1,000 are sent: let the bundle answer on a coarser grid"):
            process.predict(images, timeout_s=100)

    own = bundles["field"].predict(images).registration
    assert answer is not None
    assert answer.vectors is not None
    assert answer.affine is not None
    assert own is not None
    assert own.vectors is not None
    assert own.affine is not None
    assert np.array_equal(answer.vectors, own.vectors)
    assert np.array_equal(answer.affine, own.affine)
    assert np.array_equal(answer.matrix, np.eye(4))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"answer": "field[None].float() / 0"}, "NaN or infinity"),
        ({"answer": "field[None, :2].float()"}, "not 3 channels"),
        ({"answer": "torch.zeros(1, 3, 4, 4, 4)"}, "answered with"),
    ],
)
def test_a_registration_that_cannot_be_is_refused(how: dict[str, Any], why: str, tmp_path: Path) -> None:
    bundle = Bundle.load(finds_shift(tmp_path / f"odd{sum(map(ord, why))}", **how))
    fixed = two_blobs(np.eye(3), (5.0, 5.0, 5.0))

    with pytest.raises(ModelInvalidOutput, match=why):
        bundle.predict({"fixed": fixed, "moving": fixed})


def test_what_registers_says_what_it_returns_as(tmp_path: Path) -> None:
    known = understand(finds_shift(tmp_path / "told"))

    assert known.obstacles == ()
    assert [str(each) for each in known.inputs] == ["3-D image, 2 series (moving, fixed)"]
    assert str(known.outputs[1]) == "registration: displacement field in voxels"
    assert known.results[0].startswith("REG (Deformable Spatial Registration)")
    assert known.left_out == ("pred (image)",)
    matrix = understand(finds_shift(tmp_path / "of_matrix", form="matrix", space="ras"))
    assert str(matrix.outputs[1]) == "registration: matrix in mm (RAS)"
    assert matrix.results[0].startswith("REG (Spatial Registration)")


def test_what_a_registration_leaves_open_is_said(tmp_path: Path) -> None:
    (vague,) = understand(finds_shift(tmp_path / "vague", units="mm")).obstacles

    assert vague == "its metadata.json gives ddf in mm and does not say along which axes (space)"
