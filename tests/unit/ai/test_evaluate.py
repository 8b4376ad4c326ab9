"""The figures in a model card are computed as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from ai.evaluate.overlap import agreement, mean_over_scans


def test_a_shifted_box_has_the_overlap_and_the_distance_of_its_shift() -> None:
    mask, reference = np.zeros((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    mask[4:14, 4:14, 4:14] = True
    reference[6:16, 4:14, 4:14] = True

    found = agreement(mask, reference, (3.0, 1.0, 1.0))

    assert found.dice == pytest.approx(0.8)
    assert found.iou == pytest.approx(800 / 1200)
    assert found.hd95_mm == pytest.approx(6.0)
    assert found.volume_ml == pytest.approx(3.0)


def test_nothing_against_nothing_agrees_and_nothing_against_something_does_not() -> None:
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)

    assert agreement(empty, empty, (1, 1, 1)).dice == 1.0
    assert agreement(empty, full, (1, 1, 1)).dice == 0.0
    assert agreement(empty, full, (1, 1, 1)).surface_dice == 0.0
    assert math.isinf(agreement(empty, full, (1, 1, 1)).hd95_mm)


def test_surface_distances_are_those_of_every_pair_of_surface_voxels() -> None:
    """Two blobs at odd spacing, against the definition written out."""
    rng = np.random.default_rng(4)
    first, second = (ndimage.gaussian_filter(rng.random((14, 18, 16)), 2) > 0.5 for _ in range(2))
    first[[0, -1]] = second[[0, -1]] = False
    spacing = (2.5, 0.7, 0.9)
    edges = [np.argwhere(part & ~ndimage.binary_erosion(part)) * spacing for part in (first, second)]
    apart = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=-1)
    farthest = max(np.percentile(apart.min(axis=1), 95), np.percentile(apart.min(axis=0), 95))

    assert agreement(first, second, spacing).hd95_mm == pytest.approx(farthest, rel=1e-5)
    assert agreement(first, second, spacing, tolerance_mm=50).surface_dice == 1
    assert agreement(first, second, spacing, tolerance_mm=0).surface_dice < 0.5


def test_figures_of_one_scan_are_drawn_together() -> None:
    """Two scans with means 0 and 1: however often they are drawn, a mean is 0, 1 or between by whole scans."""
    found = mean_over_scans([0, 0, 1, 1], ["a", "a", "b", "b"], resamples=500)

    assert (found.value, found.low, found.high) == (0.5, 0, 1)
    assert np.isnan(mean_over_scans([], []).value)
