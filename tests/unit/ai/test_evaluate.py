"""The figures in a model card are computed as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ai.evaluate.overlap import agreement


def test_a_shifted_box_has_the_overlap_and_the_distance_of_its_shift() -> None:
    mask, reference = np.zeros((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    mask[4:14, 4:14, 4:14] = True
    reference[6:16, 4:14, 4:14] = True

    found = agreement(mask, reference, (3.0, 1.0, 1.0))

    assert found.dice == pytest.approx(0.8)
    assert found.hd95_mm == pytest.approx(6.0)
    assert found.volume_ml == pytest.approx(3.0)


def test_nothing_against_nothing_agrees_and_nothing_against_something_does_not() -> None:
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)

    assert agreement(empty, empty, (1, 1, 1)).dice == 1.0
    assert agreement(empty, full, (1, 1, 1)).dice == 0.0
    assert math.isinf(agreement(empty, full, (1, 1, 1)).hd95_mm)
