"""Images that stand alone are told by their class, whatever they lack of a place in the patient."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_node.domain.eligibility import Accepts, scan_of, why_unfit
from dicom_node.domain.projection import MOST_IMAGES
from dicom_node.domain.study import Verdict, examine, holds_single_images, is_multi_frame
from tests.unit.domain.headers import header, instances

DX, CR = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1"


def radiograph(number: int, **changes: Any) -> dict[str, Any]:
    """One radiograph: no position, no frame of reference, a size of its own."""
    bare = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "PixelSpacing"))
    told = {"SOPClassUID": DX, "Modality": "DX", "InstanceNumber": number, "Rows": 2000 + number, **bare}
    return header((0, 0, 0), **{**told, **changes})


def verdict(*headers: dict[str, Any], expected: int | None = None) -> Verdict:
    return examine(instances(list(headers)), expected)


def test_radiographs_are_taken_in_the_order_of_their_numbers() -> None:
    found = verdict(radiograph(2), radiograph(1))

    assert (found.slices, found.refusal, found.set_aside) == (("1.9.2", "1.9.1"), None, ())
    assert found.facts == {"slices": 2, "single": True, "complete": True, "rows": 2001, "columns": 512}


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (radiograph(2, NumberOfFrames=30), "a film of 30 frames"),
        (radiograph(2, PhotometricInterpretation="PALETTE COLOR"), "numbers of colours"),
        (radiograph(2, Rows=None), "no image (Modality DX)"),
        (header((0, 0, 0), SOPClassUID="1.2.840.10008.5.1.4.1.1.7", InstanceNumber=2), "no image that stands alone"),
    ],
)
def test_what_is_no_single_image_is_set_aside_with_the_reason(odd: dict[str, Any], reason: str) -> None:
    found = verdict(radiograph(1), odd)

    assert found.refusal is None
    assert found.slices == ("1.9.1",)
    assert [uid for uid, why in found.set_aside if reason in why] == ["1.9.2"]


def test_a_series_of_films_alone_is_refused() -> None:
    film = radiograph(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.12.1", NumberOfFrames=12)

    assert verdict(film).refusal == "No images: 1 instance, each set aside (a film of 12 frames)."
    assert not is_multi_frame(film), "it is none whose frames have places"


def test_what_is_missing_or_of_two_patients_is_refused() -> None:
    assert verdict(radiograph(1), expected=4).refusal == "1 of 4 instances arrived."
    assert "2 patients" in str(verdict(radiograph(1), radiograph(2, PatientID="P2")).refusal)
    many = verdict(*(radiograph(n) for n in range(1, MOST_IMAGES + 2)))
    assert str(many.refusal).startswith("201 single images; at most 200")


def test_slices_beside_a_radiograph_are_no_single_images() -> None:
    mixed = [radiograph(1), header((0, 0, 0)), header((0, 0, 2)), header((0, 0, 4))]

    assert not holds_single_images(mixed)
    assert "SOP classes" in str(verdict(*mixed).refusal)


def test_colour_and_classes_of_radiography_decide_not_what_is_missing() -> None:
    assert holds_single_images([radiograph(1, SamplesPerPixel=3, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.5.1")])
    assert holds_single_images([radiograph(1, SOPClassUID=CR)])
    assert not holds_single_images([radiograph(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")])


@pytest.mark.parametrize(
    ("view", "reason"),
    [("CC", ""), ("LL", "the image shows LL, made for CC or MLO"), ("", "the image shows no view that it names, made")],
)
def test_a_model_may_be_made_for_some_views(view: str, reason: str) -> None:
    scan = scan_of({"Modality": "MG", "ViewPosition": view}, (1, 60, 80), (0.0, 0.1, 0.1), (0.0, 0.0, 0.0))

    assert why_unfit(Accepts(("MG",), views=("CC", "MLO")), scan).startswith(reason)
    assert why_unfit(Accepts(("MG",), min_slices=20), scan) == "1 slice, made for at least 20"
