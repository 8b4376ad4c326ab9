"""Synthetic chests: the same from the same seed, and the truth about them is true of the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

from ai.phantom import fields, scanner
from ai.phantom.anatomy import LEFT, RIGHT
from ai.phantom.chest import Phantom, make_phantom
from ai.phantom.fields import bounds
from ai.phantom.insertion import insert_nodules
from ai.phantom.nodules import Attenuation, Margin
from ai.phantom.scanner import ScannerPlan

_QUIET = ScannerPlan(kernel="soft", thickness_mm=1.0, noise_hu=4.0)
_KINDS: tuple[tuple[Attenuation, Margin], ...] = (
    ("solid", "smooth"),
    ("ground-glass", "smooth"),
    ("part-solid", "spiculated"),
)


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return make_phantom(3, (4.0, 3.5, 3.5), nodules=5, plan=_QUIET)


def test_the_same_seed_draws_the_same_chest(chest: Phantom) -> None:
    again = make_phantom(3, (4.0, 3.5, 3.5), nodules=5, plan=_QUIET)
    assert torch.equal(again.hu, chest.hu)
    assert torch.equal(again.instances, chest.instances)
    assert again.nodules == chest.nodules


def test_how_much_is_worked_on_at_once_changes_nothing(chest: Phantom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "_CACHED", 20_000)
    monkeypatch.setattr(scanner, "_RUN", 1)
    again = make_phantom(3, (4.0, 3.5, 3.5), nodules=5, plan=_QUIET)
    assert torch.equal(again.hu, chest.hu)


def test_the_smallest_box_holds_all_that_is_true_and_none_holds_nothing() -> None:
    where = torch.zeros((4, 5, 6), dtype=torch.bool)
    assert bounds(where) == (slice(0, 0), slice(0, 0), slice(0, 0))
    where[1, 2, 5] = where[3, 2, 0] = True
    assert bounds(where) == (slice(1, 4), slice(2, 3), slice(0, 6))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_image_is_blurred_along_one_axis_with_its_edges_repeated(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner, "_RUN", 100)
    image = np.random.default_rng(axis).normal(0, 100, (7, 8, 9)).astype(np.float32)
    expected = gaussian_filter1d(image, 1.3, axis, mode="nearest", radius=4)
    np.testing.assert_allclose(scanner.blurred(torch.from_numpy(image), 1.3, axis).numpy(), expected, atol=1e-3)


def test_the_truth_does_not_depend_on_the_spacing(chest: Phantom) -> None:
    other = make_phantom(3, (5.0, 3.0, 3.0), nodules=5)
    assert other.nodules == chest.nodules
    for label in (LEFT, RIGHT):
        assert _millilitres(other, label) == pytest.approx(_millilitres(chest, label), rel=0.02)


def test_left_is_on_the_left_and_lobes_partition_the_lungs(chest: Phantom) -> None:
    columns = [float(torch.argwhere(chest.lungs == label)[:, 2].float().mean()) for label in (LEFT, RIGHT)]
    assert chest.affine[0, 2] > 0
    assert columns[0] > columns[1]
    assert torch.equal(chest.lungs == LEFT, (chest.lobes == 1) | (chest.lobes == 2))
    assert torch.equal(chest.lungs == RIGHT, chest.lobes >= 3)
    assert set(torch.unique(chest.lobes).tolist()) == {0, 1, 2, 3, 4, 5}
    assert float(chest.hu[chest.lungs > 0].median()) < -750


def test_every_nodule_lies_in_the_lobe_it_names(chest: Phantom) -> None:
    assert len(chest.nodules) == 5
    for number, nodule in enumerate(chest.nodules, start=1):
        marked = chest.instances == number
        assert bool((chest.lungs[marked] == (LEFT if nodule.side == "left" else RIGHT)).all())
        index = np.linalg.inv(chest.affine) @ np.append(nodule.centre_mm, 1)
        z, y, x = np.round(index[:3]).astype(int)
        assert nodule.lobe in chest.lobes[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2]
        assert 3 <= nodule.diameter_mm <= 31
        if nodule.diameter_mm > 12:
            assert int(marked.sum()) * 49 == pytest.approx(nodule.volume_mm3, rel=0.15)


def test_nodules_inserted_into_a_scan_have_their_densities_and_leave_the_rest_alone() -> None:
    hu = torch.full((40, 90, 90), 40.0)
    hu[4:36, 6:84, 6:84] = -860
    hu += torch.from_numpy(np.random.default_rng(0).normal(0, 20, hu.shape).astype(np.float32))
    affine = np.array([[0.0, 0, 1, -45], [0, 1, 0, -45], [2, 0, 0, -40], [0, 0, 0, 1]])
    lungs = torch.zeros(hu.shape, dtype=torch.uint8)
    lungs[4:36, 6:84, 6:84] = LEFT
    changed, instances, nodules = insert_nodules(
        hu, affine, lungs, np.random.default_rng(4), 3, diameters_mm=(12, 15), kinds=_KINDS
    )
    assert [nodule.attenuation for nodule in nodules] == [kind[0] for kind in _KINDS]
    away = torch.from_numpy(distance_transform_edt(instances.numpy() == 0, (2, 1, 1)) > 18)
    assert int(away.sum()) > 10_000
    assert torch.equal(changed[away], hu[away])
    means = [float(changed[instances == number].mean()) for number in (1, 2, 3)]
    assert -150 < means[0] < 120 or nodules[0].calcified
    assert -760 < means[1] < -440
    assert means[1] < means[2] < 0
    for number, nodule in enumerate(nodules, start=1):
        assert int((instances == number).sum()) * 2 == pytest.approx(nodule.volume_mm3, rel=0.08)


def _millilitres(phantom: Phantom, label: int) -> float:
    return float((phantom.lungs == label).sum()) * abs(float(np.linalg.det(phantom.affine[:3, :3]))) / 1000
