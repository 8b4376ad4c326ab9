"""Measurements against bodies whose size, density and place are known from how they were drawn."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ai.measure.attenuation import lung_density, solid_part
from ai.measure.diameter import axial_axis, axial_diameters
from ai.measure.opacity import opacified_percent
from ai.measure.place import Third, heights_mm, overlap, surface_distance_mm, third_of
from ai.measure.plausible import centre_x_mm, look_at
from ai.measure.region import box_of, centre_mm, grown, shifted

Vector = tuple[float, float, float]


def grid(spacing_mm: Vector = (1.0, 0.7, 0.7), axes: tuple[int, int, int] = (2, 1, 0)) -> NDArray[np.float64]:
    """Affine whose array axes run along the patient axes `axes` (0 left, 1 posterior, 2 head)."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for array_axis, patient_axis in enumerate(axes):
        affine[patient_axis, array_axis] = spacing_mm[array_axis]
    return affine


def places(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """LPS of every voxel, shape (a, b, c, 3)."""
    index = np.moveaxis(np.indices(shape, dtype=np.float64), 0, -1)
    return np.asarray(index @ affine[:3, :3].T + affine[:3, 3])


def ellipsoid(
    shape: tuple[int, int, int], affine: NDArray[np.float64], centre: Vector, radii: Vector, turn: float = 0.0
) -> NDArray[np.bool_]:
    """Draw an ellipsoid with its half axes along left, posterior and head, turned about the last."""
    away = places(shape, affine) - np.array(centre)
    cosine, sine = np.cos(turn), np.sin(turn)
    turned = np.stack(
        [cosine * away[..., 0] + sine * away[..., 1], cosine * away[..., 1] - sine * away[..., 0], away[..., 2]], -1
    )
    return np.asarray(((turned / np.array(radii)) ** 2).sum(-1) <= 1)


SHAPE = (40, 60, 60)


@pytest.mark.parametrize("diameter_mm", [4.0, 6.0, 10.0, 20.0])
def test_a_drawn_sphere_measures_its_diameter_within_half_a_voxel(diameter_mm: float) -> None:
    affine, rng, off = grid(), np.random.default_rng(1), []
    for _ in range(12):
        x, y, z = np.array([21.0, 21.0, 20.0]) + rng.uniform(-0.5, 0.5, 3)
        sphere = ellipsoid(SHAPE, affine, (x, y, z), (diameter_mm / 2,) * 3)
        found = axial_diameters(sphere, affine)
        assert found is not None
        off += [found.long_mm - diameter_mm, found.short_mm - diameter_mm]
    assert abs(float(np.mean(off))) < 0.3 * 0.7, "bias, of a voxel of 0.7 mm"
    assert max(map(abs, off)) < 0.8 * 0.7, "the worst of them"


def test_the_short_axis_lies_across_the_long_one_however_it_is_turned() -> None:
    affine = grid((1.0, 0.5, 0.5))
    for turn in np.linspace(0, np.pi, 7):
        nodule = ellipsoid((20, 80, 80), affine, (20.0, 20.0, 10.0), (9.0, 5.0, 6.0), float(turn))
        found = axial_diameters(nodule, affine)
        assert found is not None
        assert found.long_mm == pytest.approx(18.0, abs=0.4)
        assert found.short_mm == pytest.approx(10.0, abs=0.4)
        long, short = (np.subtract(*ends) for ends in (found.long_ends_mm, found.short_ends_mm))
        assert abs(float(long @ short)) < 1e-6
        assert np.linalg.norm(long) == pytest.approx(found.long_mm)
        assert found.long_ends_mm[0][2] == pytest.approx(10.0), "on the slice through the centre"


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0), (0, 1, 2)])
@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_axial_is_a_plane_of_the_patient_not_of_the_array(axes: tuple[int, int, int], flip: float) -> None:
    affine = grid((0.8, 0.8, 0.8), axes)
    affine[:3, :3] *= flip
    shape = (50, 50, 50)
    centre = tuple(affine[:3, :3] @ np.array([25.0, 25.0, 25.0]))
    nodule = ellipsoid(shape, affine, (centre[0], centre[1], centre[2]), (6.0, 4.0, 15.0))
    found = axial_diameters(nodule, affine)
    assert found is not None
    assert found.long_mm == pytest.approx(12.0, abs=0.5), "the 30 mm head to feet are not on an axial slice"
    assert found.short_mm == pytest.approx(8.0, abs=0.5)


def test_an_oblique_volume_has_no_axial_diameters() -> None:
    turn = np.radians(30)
    affine = grid()
    affine[:3, :3] = (
        np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]) @ affine[:3, :3]
    )
    assert axial_axis(affine) is None
    assert axial_diameters(np.ones((3, 3, 3), np.bool_), affine) is None
    assert axial_axis(grid()) == 0


def test_parts_that_do_not_touch_are_not_measured_across() -> None:
    affine = grid()
    two = ellipsoid(SHAPE, affine, (10.0, 20.0, 20.0), (3.0,) * 3) | ellipsoid(
        SHAPE, affine, (30.0, 20.0, 20.0), (4.0,) * 3
    )
    found = axial_diameters(two, affine)
    assert found is not None
    assert found.long_mm == pytest.approx(8.0, abs=0.6)


def test_a_single_voxel_and_none() -> None:
    mask = np.zeros((5, 5, 5), np.bool_)
    assert axial_diameters(mask, grid()) is None
    mask[2, 2, 2] = True
    found = axial_diameters(mask, grid())
    assert found is not None
    assert found.long_mm == pytest.approx(0.7, abs=0.01)
    mask[2] = np.arange(25).reshape(5, 5) % 2 == 0
    assert axial_diameters(mask, grid()) is not None, "lone voxels, too, have an outline"
    sparse = np.zeros((1, 30, 30), np.bool_)
    sparse[0, ::4, ::4] = True
    found = axial_diameters(sparse, grid())
    assert found is not None
    assert found.long_mm == pytest.approx(0.7, abs=0.01)


def test_the_solid_part_is_the_largest_dense_piece_of_a_nodule() -> None:
    affine = grid()
    nodule = ellipsoid(SHAPE, affine, (20.0, 20.0, 20.0), (9.0,) * 3)
    core = ellipsoid(SHAPE, affine, (22.0, 20.0, 20.0), (4.0, 3.0, 4.0))
    array = np.where(core, 20.0, np.where(nodule, -600.0, -850.0)).astype(np.float32)
    array[20, 45, 20] = 100  # dense, but outside of the nodule
    array[20, 20, 20] = 0  # a speck of noise in it
    array[20, 20, 25:32] = -600
    solid = solid_part(array, nodule)
    found = axial_diameters(solid, affine)
    assert found is not None
    assert found.long_mm == pytest.approx(8.0, abs=0.5)
    assert found.short_mm == pytest.approx(6.0, abs=0.5)
    assert not solid_part(np.full(SHAPE, -600, np.float32), nodule).any()


def test_lung_density_counts_what_lies_below_950() -> None:
    density = lung_density(np.array([-1000.0] * 10 + [-960.0] * 10 + [-950.0] * 30 + [-800.0] * 50, np.float32))
    assert density is not None
    assert density.emphysema_percent == 20.0, "-950 itself is no emphysema"
    assert density.mean_hu == pytest.approx(-881.0)
    assert density.percentile_15_hu == pytest.approx(-960.0)
    assert lung_density(np.empty(0, np.float32)) is None


def test_opacities_count_and_vessels_do_not() -> None:
    affine, shape = grid((2.0, 1.0, 1.0)), (40, 80, 80)
    lung = ellipsoid(shape, affine, (40.0, 40.0, 40.0), (30.0, 35.0, 36.0))
    array = np.where(lung, -850.0, 30.0).astype(np.float32)
    for row in range(10, 70, 12):
        array[:, row : row + 3, :] = 30  # vessels, 3 mm thick
    assert opacified_percent(array, lung, affine) == pytest.approx(0.0, abs=0.3)
    opacity = ellipsoid(shape, affine, (40.0, 50.0, 40.0), (12.0, 12.0, 12.0)) & lung
    array[opacity] = -200
    share = 100 * np.count_nonzero(opacity) / np.count_nonzero(lung)
    assert opacified_percent(array, lung, affine) == pytest.approx(share, rel=0.15)
    assert opacified_percent(array, lung & ~opacity, affine) == pytest.approx(share, rel=0.15), "an island left out"
    assert opacified_percent(array, lung, affine, without=opacity) == pytest.approx(0.0, abs=0.5)
    assert opacified_percent(array, np.zeros(shape, np.bool_), affine) is None


def test_distance_to_the_surface_of_the_lung() -> None:
    affine, shape = grid((1.0, 1.0, 1.0)), (100, 100, 100)
    lung = ellipsoid(shape, affine, (50.0, 50.0, 50.0), (40.0,) * 3)
    vessel = np.zeros(shape, np.bool_)
    vessel[:, 48:52, 60:64] = True
    # neither the hole that the nodule leaves nor a vessel is a surface
    for left, expected in ((50.0, 35.0), (70.0, 15.0), (85.0, 0.0), (89.0, 0.0)):
        nodule = ellipsoid(shape, affine, (left, 50.0, 50.0), (5.0,) * 3)
        box = box_of(nodule)
        assert box is not None
        found = surface_distance_mm(nodule, lung & ~nodule & ~vessel, affine, box)
        assert found == pytest.approx(expected, rel=0.06, abs=1.0), (
            "the hole that the nodule leaves and a vessel are no surface"
        )


def test_a_nodule_that_the_lung_mask_leaves_out_still_lies_in_the_lung() -> None:
    affine, shape = grid((1.0, 1.0, 1.0)), (60, 60, 60)
    lung = ellipsoid(shape, affine, (30.0, 30.0, 30.0), (20.0,) * 3)
    nodule = ellipsoid(shape, affine, (50.0, 30.0, 30.0), (4.0,) * 3)
    box = box_of(nodule)
    assert box is not None
    assert overlap(nodule, lung & ~nodule, affine, box, 3.0) > 50
    assert overlap(nodule, np.zeros(shape, np.bool_), affine, box, 3.0) == 0


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_thirds_are_counted_from_the_feet(flip: float) -> None:
    affine = grid((flip * 2.0, 1.0, 1.0))
    affine[2, 3] = 20.0
    ends = heights_mm((31, 20, 20), affine)
    assert ends == ((20.0, 80.0) if flip > 0 else (-40.0, 20.0))
    thirds = [third_of(ends[0] + above, *ends) for above in (0.0, 19.0, 21.0, 39.0, 41.0, 60.0)]
    assert thirds == [Third.LOWER, Third.LOWER, Third.MIDDLE, Third.MIDDLE, Third.UPPER, Third.UPPER]


def test_crops_keep_their_place() -> None:
    affine = grid()
    nodule = ellipsoid(SHAPE, affine, (20.0, 14.0, 20.0), (4.0,) * 3)
    box = box_of(nodule)
    assert box is not None
    around = grown(box, SHAPE, (1.0, 0.7, 0.7), 3.0)
    assert centre_mm(nodule[around], shifted(affine, around)) == pytest.approx((20.0, 14.0, 20.0), abs=0.2)
    assert grown(box, SHAPE, (1.0, 0.7, 0.7), 1000.0) == (slice(0, 40), slice(0, 60), slice(0, 60))
    assert box_of(np.zeros(SHAPE, np.bool_)) is None


def test_lung_like_air_is_told_from_the_air_around_the_patient() -> None:
    affine, shape = grid((4.0, 4.0, 4.0)), (60, 80, 90)
    body = ellipsoid(shape, affine, (180.0, 160.0, 120.0), (160.0, 120.0, 1000.0))
    lungs = [ellipsoid(shape, affine, (x, 160.0, 120.0), (55.0, 80.0, 100.0)) for x in (100.0, 260.0)]
    array = np.where(body, 40.0, -1000.0).astype(np.float32)
    array[lungs[0] | lungs[1]] = -850
    bowel = ellipsoid(shape, affine, (180.0, 240.0, 230.0), (20.0, 20.0, 20.0))
    array[bowel] = -1000
    seen = look_at(array, affine)
    assert seen.lung_like_ml == pytest.approx(np.count_nonzero(lungs[0] | lungs[1]) * 0.064, rel=0.01)
    assert np.count_nonzero(seen.inside) == pytest.approx(np.count_nonzero(body), rel=0.01)
    assert centre_x_mm(lungs[1], affine) == pytest.approx(260.0, abs=2)
