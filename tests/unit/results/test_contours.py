"""Outlines give back the mask that they were drawn around, to whoever fills them, in whichever way."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import label
from skimage.measure import grid_points_in_poly

from dicom_node.results.contours import Ring, filled, is_hole, keyholes, rings, straightened


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.bool_]:
    """Islands and holes in each other, down to single pixels, some of them at the edge of the image."""
    shape = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    return np.asarray(rng.random(shape) < draw(st.sampled_from([0.2, 0.5, 0.7, 0.9, 1.0])))


def added(outlines: list[Ring], shape: tuple[int, int]) -> NDArray[np.int_]:
    """How often each pixel is enclosed, as another library counts it."""
    total = np.zeros(shape, int)
    for ring in outlines:
        total += grid_points_in_poly(shape, ring, binarize=False) == 1  # type: ignore[no-untyped-call]
    return total


@settings(max_examples=150)
@given(masks())
def test_outlines_enclose_the_centres_of_what_is_marked(mask: NDArray[np.bool_]) -> None:
    outlines = rings(mask)
    assert np.array_equal(added(outlines, mask.shape) % 2 == 1, mask)
    assert sum(not is_hole(ring) for ring in outlines) == label(mask)[1]


@settings(max_examples=150)
@given(masks())
def test_bridges_make_one_line_of_an_island_and_its_holes(mask: NDArray[np.bool_]) -> None:
    joined = [straightened(ring) for ring in keyholes(rings(mask))]
    assert len(joined) == label(mask)[1]
    assert np.array_equal(added(joined, mask.shape), mask)  # never twice: the sum is the union
    rounded = [filled(np.round(ring, 2), mask.shape) for ring in joined]
    assert np.array_equal(np.sum(rounded, axis=0) if rounded else mask, mask)


def test_single_pixel_is_a_diamond_and_a_straight_edge_has_two_points() -> None:
    [ring] = rings(np.ones((1, 1), np.bool_))
    assert sorted(map(tuple, ring.tolist())) == [(-0.5, 0.0), (0.0, -0.5), (0.0, 0.5), (0.5, 0.0)]
    [square] = rings(np.ones((9, 9), np.bool_))
    assert len(straightened(square)) == 8
