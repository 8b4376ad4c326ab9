"""Two volumes that lie between each other are told by their pixels; whatever a single one shows, it is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array

from dicom_node.alternation import FEWEST, alternates

Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def chest(chest_ct: list[Path]) -> Array:
    """Slices of a real chest, 2 mm apart."""
    return np.stack([pixel_array(dcmread(path)).astype(np.float32) for path in chest_ct[100:148:2]])


def between(first: Array, second: Array) -> Array:
    """Every other slice of one, and those between of another."""
    both = first.copy()
    both[1::2] = second[1::2]
    return both


def test_a_chest_is_one_volume_however_thick_its_slices_are(chest: Array) -> None:
    assert not alternates(chest)
    assert not alternates(chest[::2])
    assert not alternates(chest[::-1])
    assert not alternates(np.moveaxis(chest, 1, 0)), "read along another axis"


def test_slices_of_another_breath_between_them_are_another_volume(chest: Array) -> None:
    assert alternates(between(chest, np.roll(chest, 6, axis=1)))
    assert alternates(between(chest, np.roll(chest, 6, axis=2)))
    deeper = np.roll(chest, 5, axis=0)[5:]
    assert alternates(between(chest[5:], deeper))


def test_noise_and_small_offsets_of_every_other_slice_are_no_other_volume(chest: Array) -> None:
    noise = np.random.default_rng(1).normal(0, 40, chest.shape).astype(np.float32)
    assert not alternates(chest + noise)
    assert not alternates(between(chest, chest + noise))
    assert not alternates(between(chest, chest + 5))
    for size in (16, 64):
        assert not alternates(noise[:, :size, :size])
    assert not alternates(np.zeros_like(chest))


def test_of_few_slices_nothing_is_said(chest: Array) -> None:
    both = between(chest, np.roll(chest, 6, axis=1))
    assert alternates(both[:FEWEST])
    assert not alternates(both[: FEWEST - 1])
