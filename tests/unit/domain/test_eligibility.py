"""Which volumes a card accepts, and the words for those that it does not."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_node.domain.eligibility import Accepts, Contrast, Scan, scan_of, why_unfit
from dicom_node.domain.person import age_years, is_female, smokes

HEADER = {
    "Modality": "CT",
    "SliceThickness": "1.25",
    "ConvolutionKernel": ["B60f", "3"],
    "PatientAge": "061Y",
    "PatientSex": "F",
}


def scan(**header: Any) -> Scan:
    """300 axial slices, 1 mm apart, of 400 mm."""
    kept = {keyword: value for keyword, value in {**HEADER, **header}.items() if value is not None}
    return scan_of(kept, (300, 512, 512), (1.0, 0.78125, 0.78125), (1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("accepts", "header", "said"),
    [
        (Accepts(("MR", "PT")), {}, "the series is CT, made for MR or PT"),
        (Accepts(("CT",)), {"Modality": None}, "the series is of no modality, made for CT"),
        (Accepts(min_slices=301), {}, "300 slices, made for at least 301"),
        (Accepts(max_slice_spacing_mm=0.7), {}, "slice spacing 1 mm, made for up to 0.7 mm"),
        (Accepts(max_slice_thickness_mm=1), {}, "slice thickness 1.25 mm, made for up to 1 mm"),
        (
            Accepts(max_slice_thickness_mm=1),
            {"SliceThickness": ""},
            "the images state no slice thickness, made for up to 1 mm",
        ),
        (Accepts(min_pixel_spacing_mm=0.8), {}, "pixel spacing 0.781 mm, made for at least 0.8 mm"),
        (Accepts(max_pixel_spacing_mm=0.7), {}, "pixel spacing 0.781 mm, made for up to 0.7 mm"),
        (Accepts(min_field_of_view_mm=450), {}, "field of view 400 mm, made for at least 450 mm"),
        (Accepts(max_field_of_view_mm=350), {}, "field of view 400 mm, made for up to 350 mm"),
        (Accepts(min_coverage_mm=310), {}, "coverage head to feet 300 mm, made for at least 310 mm"),
        (Accepts(kernels=("^B[23]",)), {}, r"convolution kernel B60f\3, not one that it was made for"),
        (Accepts(refused_kernels=("^B60",)), {}, r"convolution kernel B60f\3, not one that it was made for"),
        (
            Accepts(kernels=("^B6",)),
            {"ConvolutionKernel": None},
            "the images name no convolution kernel, made for some only",
        ),
        (
            Accepts(contrast=Contrast.WITHOUT),
            {"ContrastBolusAgent": "Iomeron"},
            "with contrast agent, made for images without",
        ),
        (Accepts(contrast=Contrast.WITH), {}, "without contrast agent, made for images with one"),
        (Accepts(min_age_years=65), {}, "age 61 years, made for at least 65 years"),
        (Accepts(max_age_years=60), {}, "age 61 years, made for up to 60 years"),
    ],
)
def test_what_a_card_does_not_accept_is_said_with_both_numbers(
    accepts: Accepts, header: dict[str, Any], said: str
) -> None:
    assert why_unfit(accepts, scan(**header)) == said


@pytest.mark.parametrize(
    ("accepts", "header"),
    [
        (Accepts(), {}),
        (Accepts(("CT",), 300, 1.0, 1.25, 0.78, 0.79, 400, 400, 300, ("^B60",), ("^B7",)), {}),
        (Accepts(contrast=Contrast.WITHOUT), {"ContrastBolusAgent": " none "}),
        (Accepts(contrast=Contrast.WITHOUT), {"ContrastBolusAgent": ""}),
        (Accepts(contrast=Contrast.WITH), {"ContrastBolusAgent": "APPLIED"}),
        (Accepts(min_age_years=18, max_age_years=61), {}),
        (Accepts(min_age_years=18), {"PatientAge": None}),
        (Accepts(refused_kernels=("^B60",)), {"ConvolutionKernel": None}),
    ],
)
def test_what_a_card_accepts(accepts: Accepts, header: dict[str, Any]) -> None:
    assert why_unfit(accepts, scan(**header)) == ""


def test_every_reason_is_given_at_once() -> None:
    both = why_unfit(Accepts(max_slice_spacing_mm=0.7, min_age_years=65), scan())
    assert both == "slice spacing 1 mm, made for up to 0.7 mm; age 61 years, made for at least 65 years"


def test_coverage_is_measured_along_the_patient_whatever_the_slices() -> None:
    coronal = scan_of(HEADER, (200, 350, 400), (1.5, 0.9, 0.8), (0.0, -0.9, 0.0))
    assert coronal.coverage_mm == pytest.approx(315)


@pytest.mark.parametrize(
    ("header", "years"),
    [
        ({"PatientBirthDate": "19600615", "StudyDate": "20250614"}, 64),
        ({"PatientBirthDate": "19600615", "StudyDate": "20250615", "PatientAge": "099Y"}, 65),
        ({"PatientBirthDate": "1960.06.15", "StudyDate": "20250615"}, 65),
        ({"PatientBirthDate": "20300101", "StudyDate": "20250615", "PatientAge": "018M"}, 1.5),
        ({"PatientBirthDate": "18000101", "StudyDate": "20250615"}, None),
        ({"PatientAge": "052W"}, pytest.approx(1.0, abs=0.01)),
        ({"PatientAge": "sixty"}, None),
        ({}, None),
    ],
)
def test_age_comes_from_dates_or_from_the_age_as_sent(header: dict[str, Any], years: float | None) -> None:
    assert age_years(header) == years


def test_sex_and_smoking_are_known_or_not() -> None:
    assert [is_female({"PatientSex": sex}) for sex in ("F", "m", "O", "")] == [True, False, None, None]
    assert [smokes({"SmokingStatus": said}) for said in ("YES", "NO", "UNKNOWN")] == [True, False, None]
