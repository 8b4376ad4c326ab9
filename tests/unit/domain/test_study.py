"""Examination: which instances are slices, in what order, and whether they are one regular volume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.domain.geometry import affine
from dicom_node.domain.study import HEADER, Slice, examine, planes_of
from tests.unit.domain.headers import AXIAL, CORONAL, OBLIQUE, header, instances, stack

REAL = Path(__file__).parents[2] / "data" / "geometry" / "headers.json"


def refusal(headers: list[dict[str, Any]], expected_count: int | None = None) -> str:
    verdict = examine(instances(headers), expected_count)
    assert verdict.refusal is not None
    return verdict.refusal


def real(name: str) -> list[Slice]:
    series = json.loads(REAL.read_text())[name]
    return instances([series["all"] | one for one in series["slices"]])


@given(st.sampled_from([AXIAL, CORONAL, OBLIQUE]), st.integers(3, 40), st.floats(0.3, 10), st.randoms())
def test_slices_are_ordered_along_the_normal_in_whatever_order_they_came(
    orientation: tuple[float, ...], n: int, spacing_mm: float, random: Random
) -> None:
    arrived = instances(stack(n, spacing_mm, orientation))
    in_order = tuple(one.sop_instance_uid for one in arrived)
    random.shuffle(arrived)
    verdict = examine(arrived)
    assert verdict.refusal is None
    assert verdict.slices == in_order
    assert verdict.facts["slice_spacing_mm"] == pytest.approx(spacing_mm, abs=1e-3)
    assert verdict.facts["complete"] is True


@given(st.integers(4, 40), st.floats(0.5, 10), st.data())
def test_a_missing_slice_is_always_found(n: int, spacing_mm: float, data: st.DataObject) -> None:
    headers = stack(n, spacing_mm)
    del headers[data.draw(st.integers(1, n - 2))]
    assert "A gap" in refusal(headers) or n == 4


def test_the_gap_is_named_with_its_place_and_size() -> None:
    headers = stack(20, 2.5)
    del headers[5:7]
    assert refusal(headers) == (
        "A gap: 7.5 mm between the slices at -290 mm and -282.5 mm, where the step is 2.5 mm; "
        "about 2 slices missing there."
    )
    del headers[10]
    assert refusal(headers).endswith("about 2 slices missing there, and 1 more gap.")


def test_a_localizer_and_a_secondary_capture_are_set_aside_with_the_reason() -> None:
    sagittal = ["0", "1", "0", "0", "0", "-1"]
    scout = header((0, 0, 0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=sagittal)
    capture = header((0, 0, 0), SOPClassUID="1.2.840.10008.5.1.4.1.1.7", ImageOrientationPatient=None)
    report = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "Modality": "SR"}
    colour = header((0, 0, 0), SamplesPerPixel=3)
    palette = header((0, 0, 0), PhotometricInterpretation="PALETTE COLOR")
    verdict = examine(instances([scout, *stack(20), capture, report, colour, palette]))
    assert verdict.refusal is None
    assert len(verdict.slices) == verdict.facts["slices"] == 20
    assert verdict.set_aside == (
        ("1.9.1", "a localizer (ImageType LOCALIZER)"),
        ("1.9.22", "a secondary capture"),
        ("1.9.23", "no image (Modality SR)"),
        ("1.9.24", "a colour picture"),
        ("1.9.25", "a picture whose stored values are numbers of colours (PALETTE COLOR)"),
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"Rows": "256"}, "2 sizes in one series: 19 slices with 512 x 512 pixels, 1 slice with 256 x 512 pixels."),
        ({"PixelSpacing": ["0.8", "0.8"]}, "2 pixel spacings in one series: 19 slices with 0.7\\0.7 mm, 1 slice with"),
        ({"ImageOrientationPatient": [str(v) for v in CORONAL]}, "2 orientations in one series: "),
        ({"ImageOrientationPatient": ["-1", "0", "0", "0", "-1", "0"]}, "2 orientations in one series: "),
        ({"ImageOrientationPatient": ["1", "0.002", "0", "-0.002", "1", "0"]}, "2 orientations in one series: "),
        (
            {"PixelSpacing": ["0.7", "0.7002"]},
            "2 pixel spacings in one series: 19 slices with 0.7\\0.7 mm, 1 slice with",
        ),
        ({"Columns": 256}, "2 sizes in one series: 19 slices with 512 x 512 pixels, 1 slice with 512 x 256 pixels."),
        ({"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]}, "is not two perpendicular directions"),
        ({"ImageOrientationPatient": ["0"] * 6}, "is not two perpendicular directions of length 1"),
        ({"PixelSpacing": ["0.000", "0.000"]}, "PixelSpacing 0\\0 or the size (512, 512) cannot be"),
        ({"ImagePositionPatient": None}, "1 of 20 slices without a usable ImagePositionPatient."),
        ({"ImagePositionPatient": ["1", "2"]}, "1 of 20 slices without a usable ImagePositionPatient."),
        ({"ImagePositionPatient": ["nan", "0", "0"]}, "1 of 20 slices without a usable ImagePositionPatient."),
        ({"FrameOfReferenceUID": "1.2.9"}, "20 slices in 2 frames of reference, by FrameOfReferenceUID."),
        ({"FrameOfReferenceUID": None}, "1 of 20 slices without a FrameOfReferenceUID."),
        ({"PatientID": "P2"}, "The slices belong to 2 patients, by their PatientID."),
        ({"StudyInstanceUID": "1.2.9"}, "The slices belong to 2 studies, by their StudyInstanceUID."),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "The slices belong to 2 SOP classes, by their SOPClassUID."),
        ({"NumberOfFrames": "10"}, "1 multi-frame object with no functional groups to say where frames lie."),
    ],
)
def test_one_odd_slice_is_enough_to_refuse(spoil: dict[str, Any], reason: str) -> None:
    headers = stack(20)
    headers[7] = {k: v for k, v in (headers[7] | spoil).items() if v is not None}
    assert reason in refusal(headers)


def test_an_enhanced_object_without_functional_groups_is_refused() -> None:
    enhanced = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1", "Modality": "CT"}
    assert refusal([enhanced]) == "1 multi-frame object with no functional groups to say where frames lie."


def test_frames_are_slices_and_their_object_stands_once() -> None:
    enhanced = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}
    frames = [Slice("1.9", one | enhanced, 20 - k) for k, one in enumerate(stack(20))]
    verdict = examine(frames, 1)
    assert verdict.refusal is None
    assert verdict.slices == ("1.9",)
    assert verdict.facts["slices"] == 20
    twice = [Slice(uid, {**one.header, "TemporalPositionIdentifier": uid}, one.frame) for one in frames for uid in "12"]
    assert "TemporalPositionIdentifier 1 (20 slices); TemporalPositionIdentifier 2 (20 slices)" in str(
        examine(twice).refusal
    )


@pytest.mark.parametrize(
    ("part", "kind"), [("66.4", "a segmentation"), ("4.2", "a spectrum"), ("30", "a parametric map")]
)
def test_what_is_stored_like_an_image_and_is_none_is_set_aside(part: str, kind: str) -> None:
    other = header((0, 0, 0), SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{part}", NumberOfFrames=20)
    verdict = examine(instances([*stack(20), other]))
    assert verdict.refusal is None
    assert verdict.set_aside == (("1.9.21", kind),)


def test_a_frame_of_reference_of_its_own_in_every_slice_is_accepted_and_told() -> None:
    headers = stack(20)
    for k, one in enumerate(headers):
        one["FrameOfReferenceUID"] = f"1.2.5.{k}"
    verdict = examine(instances(headers))
    assert verdict.refusal is None
    assert verdict.facts["frame_of_reference"] == "one per slice"
    headers[3]["FrameOfReferenceUID"] = headers[4]["FrameOfReferenceUID"]
    assert refusal(headers) == "20 slices in 19 frames of reference, by FrameOfReferenceUID."


def test_announced_instances_that_did_not_come_are_counted() -> None:
    assert refusal(stack(20), expected_count=22) == "20 of 22 instances arrived."
    verdict = examine(instances(stack(20)), 22)
    assert verdict.facts["complete"] is False
    assert verdict.facts["slice_spacing_mm"] == 2.5
    assert examine(instances(stack(20)), 20).refusal is None


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_slices_show_no_regular_spacing(n: int) -> None:
    assert "cannot show a regular spacing" in refusal(stack(n))


def test_several_volumes_in_one_series_are_refused_with_what_tells_them_apart() -> None:
    early = stack(10, EchoTime="20", AcquisitionNumber="1", EchoNumbers="1")
    late = stack(10, EchoTime="40", AcquisitionNumber="1", EchoNumbers="1")
    assert refusal(early + late) == (
        "Several volumes in one series: EchoTime 20 (10 slices); EchoTime 40 (10 slices). "
        "[volume] on the model's card takes one, as EchoTime = 20."
    )
    assert "no attribute tells them apart" in refusal(stack(10) + stack(10))


def test_a_slice_sent_twice_under_two_uids_is_refused() -> None:
    headers = stack(10)
    assert "1 place with more than one slice (up to 2; the first at -292.5 mm)" in refusal([*headers, headers[3]])


def sheared(degrees: float, **changes: Any) -> list[dict[str, Any]]:
    shift = math.tan(math.radians(degrees))
    return [header((-170, -180 + shift * k * 2.5, -300 + k * 2.5), **changes) for k in range(20)]


@pytest.mark.parametrize("tag", [None, "-18.5"])
def test_a_tilted_gantry_is_found_with_and_without_its_attribute(tag: str | None) -> None:
    reason = refusal(sheared(18.5, GantryDetectorTilt=tag))
    assert "which is 18.5 degrees" in reason
    assert ("although Gantry/Detector Tilt does not say so" in reason) == (tag is None)


def test_a_tilt_that_the_positions_contradict_is_refused_unless_the_images_are_reformatted() -> None:
    assert "one of the two is wrong" in refusal(stack(20, GantryDetectorTilt="18.5"))
    assert examine(instances(stack(20, GantryDetectorTilt="0.0"))).refusal is None
    derived = stack(20, GantryDetectorTilt="18.5", ImageType=["DERIVED", "SECONDARY", "REFORMATTED"])
    assert examine(instances(derived)).refusal is None


def test_a_slice_displaced_within_its_plane_is_refused() -> None:
    headers = stack(20)
    headers[9]["ImagePositionPatient"] = ["-165.0", "-180.0", "-277.5"]
    assert refusal(headers) == "The slices are displaced against each other within their plane, by up to 5 mm."


@given(st.lists(st.floats(-0.05, 0.05), min_size=20, max_size=20), st.sampled_from([0.625, 1.0, 2.5, 7.0]))
def test_positions_rounded_to_a_decimal_are_tolerated(noise: list[float], spacing_mm: float) -> None:
    places = [round(k * spacing_mm, 1) for k in range(20)]
    assert examine(instances([header((0, 0, place)) for place in places])).refusal is None
    near = [k * 7.0 + off for k, off in enumerate(noise)]
    assert examine(instances([header((0, 0, place)) for place in near])).refusal is None


@given(st.randoms(), st.sampled_from([AXIAL, CORONAL, OBLIQUE]))
def test_what_differs_in_its_last_digits_is_the_same(random: Random, orientation: tuple[float, ...]) -> None:
    headers = stack(20, 1.25, orientation)
    for one in headers:
        for keyword, most in (
            ("ImagePositionPatient", 1e-4),
            ("ImageOrientationPatient", 1e-5),
            ("PixelSpacing", 1e-5),
        ):
            one[keyword] = [f"{float(value) + random.uniform(-most, most):.8f}" for value in one[keyword]]
    verdict = examine(instances(headers))
    assert verdict.refusal is None
    assert verdict.facts["slice_spacing_mm"] == pytest.approx(1.25, abs=1e-4)
    twice = [*headers, headers[7] | {"ImagePositionPatient": headers[7]["ImagePositionPatient"]}]
    twice[-1]["ImagePositionPatient"] = [f"{float(value) + 1e-4:.8f}" for value in headers[7]["ImagePositionPatient"]]
    assert "1 place with more than one slice (up to 2" in refusal(twice)


def test_two_stacks_across_each_other_are_refused_unless_an_attribute_tells_them_apart() -> None:
    assert "2 orientations in one series: 20 slices with" in refusal(stack(20) + stack(20, 2.5, CORONAL))
    told = refusal(stack(20, 2.5, CORONAL, AcquisitionNumber="2") + stack(9, AcquisitionNumber="1"))
    assert "AcquisitionNumber 1 (9 slices); AcquisitionNumber 2 (20 slices)." in told


def test_a_tilt_in_a_coronal_stack_is_found_too() -> None:
    headers = stack(20, 2.5, CORONAL)
    for k, one in enumerate(headers):
        x, y, z = map(float, one["ImagePositionPatient"])
        one["ImagePositionPatient"] = [str(x + 0.25 * 2.5 * k), str(y), str(z)]
    assert "which is 14.0 degrees, although" in refusal(headers)


def test_which_end_is_white_matters_where_values_have_no_unit() -> None:
    assert examine(instances(stack(20, PhotometricInterpretation="MONOCHROME1"))).refusal is None, (
        "Hounsfield units are the same, however shown"
    )
    of_mr = stack(20, Modality="MR")
    assert examine(instances(of_mr)).refusal is None
    of_mr[3]["PhotometricInterpretation"] = "MONOCHROME1"
    assert refusal(of_mr) == "1 of 20 slices of MR are inverted (MONOCHROME1): their lowest value is white."


def test_uneven_and_drifting_steps_are_refused() -> None:
    uneven = [0.0, 1.0, 2.0, 3.25, 4.0, 5.0, 6.0]
    assert "The spacing is uneven: steps between slices range from 0.75 mm to 1.25 mm" in refusal(
        [header((0, 0, z)) for z in uneven]
    )
    drifting = [k * 1.0 if k < 50 else 50 + (k - 50) * 1.015 for k in range(100)]
    assert "The spacing drifts" in refusal([header((0, 0, z)) for z in drifting])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tilt_told", "which is 18.5 degrees"),
        ("tilt_untold", "14.0 degrees, although Gantry/Detector Tilt does not say so"),
        ("localizer", "No slices: 1 instance, each set aside (a localizer (ImageType LOCALIZER))."),
        ("summaries", "No slices: 2 instances, each set aside (a secondary capture)."),
        ("two_slices", "2 slices cannot show a regular spacing"),
        ("missing_slice", "A gap: 10 mm between the slices at 28.107 mm and 38.107 mm, where the step is 5 mm"),
        ("two_orientations", "2 orientations in one series: 2 slices with"),
        ("duplicate", "1 place with more than one slice (up to 2; the first at -90 mm)"),
        ("three_studies", "The slices belong to 3 studies"),
        (
            "echoes",
            "2 places with more than one slice (up to 3; the first at -33.708 mm), told apart by EchoNumbers (1, 2",
        ),
        ("time_points", "InstanceNumber 1 to 15 (15 slices); InstanceNumber 16 to 30 (15 slices)"),
    ],
)
def test_real_series_that_are_no_volume_are_refused(name: str, reason: str) -> None:
    assert reason in str(examine(real(name)).refusal)


def test_a_real_oblique_series_with_rounded_positions_is_accepted() -> None:
    verdict = examine(real("papaya"))
    assert verdict.refusal is None
    assert verdict.facts["slice_spacing_mm"] == pytest.approx(7.0, abs=0.01)


def test_a_real_series_with_localizer_and_summaries_among_its_slices_keeps_only_the_slices() -> None:
    series = json.loads(REAL.read_text())
    mixed = [
        {**series[name]["all"], **one}
        for name in ("papaya", "localizer", "summaries")
        for one in series[name]["slices"]
    ]
    verdict = examine(instances(mixed))
    assert verdict.refusal is None
    assert len(verdict.slices) == 20
    assert len(verdict.set_aside) == 3


def test_the_affine_puts_the_corner_voxels_where_the_headers_say() -> None:
    headers = stack(5, 3.0, OBLIQUE, PixelSpacing=["0.5", "0.8"])
    planes = planes_of(instances(headers))
    matrix = affine(planes[0], planes[-1], 5)

    def at(slice_: int, row: int, column: int) -> list[float]:
        return [sum(m * i for m, i in zip(line, (slice_, row, column, 1), strict=True)) for line in matrix[:3]]

    assert at(0, 0, 0) == pytest.approx([float(v) for v in headers[0]["ImagePositionPatient"]])
    assert at(4, 0, 0) == pytest.approx([float(v) for v in headers[4]["ImagePositionPatient"]], abs=1e-5)
    row, column = OBLIQUE[:3], OBLIQUE[3:]
    assert at(0, 0, 10) == pytest.approx([p + 8.0 * v for p, v in zip(at(0, 0, 0), row, strict=True)])
    assert at(0, 10, 0) == pytest.approx([p + 5.0 * v for p, v in zip(at(0, 0, 0), column, strict=True)])


GARBAGE = (None, "", "x", "1", "-1", "0", "1e9", "nan", "1A", 0, 3, -1.5, 1e308, float("inf"), "1\\2", "1\\2\\3")
GARBAGE_LISTS: tuple[list[Any], ...] = (
    [],
    ["1", "2", "3"],
    ["0", "0", "0"],
    [None, 1],
    ["1e300"] * 3,
    ["1", "0", "0", "0", "1", "0"],
    [0.1] * 6,
)
odd_headers = st.lists(
    st.lists(st.tuples(st.sampled_from(HEADER), st.sampled_from([*GARBAGE, *GARBAGE_LISTS])), max_size=5), max_size=4
)


@settings(max_examples=300)
@given(odd_headers, st.none() | st.integers(0, 9))
def test_whatever_a_header_holds_examination_gives_a_verdict(
    odd: list[list[tuple[str, Any]]], expected: int | None
) -> None:
    spoilt = [dict(one) for one in odd]
    headers = [one | bad for one, bad in zip(stack(4), [*spoilt, {}, {}, {}, {}], strict=False)]
    verdict = examine(instances(headers), expected)
    json.dumps(verdict.facts, allow_nan=False)
    assert len(verdict.slices) + len(verdict.set_aside) == 4
    assert examine(instances(spoilt), expected).refusal
