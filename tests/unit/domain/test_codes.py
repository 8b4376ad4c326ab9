"""The codes that we write are those of the standard, or of our own scheme."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from dicom_node.domain import codes
from dicom_node.domain.brock import Risk, probability_percent
from dicom_node.domain.finding import Code
from dicom_node.domain.nodule import Attenuation, Margin, Nodule

OWN = [code for code in vars(codes).values() if isinstance(code, Code)]


@pytest.mark.parametrize("code", OWN, ids=lambda code: code.meaning)
def test_a_code_is_in_the_dictionary_of_the_standard_or_in_our_scheme(code: Code) -> None:
    assert 0 < len(code.value) <= 16, "SH"
    assert 0 < len(code.meaning) <= 64, "LO"
    if code.scheme == codes.LOCAL_SCHEME:
        return
    named: list[dict[str, tuple[str, list[int]]]] = list(concepts[code.scheme].values())  # type: ignore[arg-type]
    meanings = {values[code.value][0].casefold() for values in named if code.value in values}
    assert {code.meaning.casefold(), code.value} & meanings, meanings


def test_calculated_codes_fit_their_attributes() -> None:
    result = probability_percent(
        Nodule(Attenuation.SOLID, 9.0, 8.0, margin=Margin.SMOOTH, upper_lobe=True), Risk(60.0, True, True, 1.0, 1)
    )
    assert isinstance(result, tuple)
    made = [
        codes.lung_rads_category("4B"),
        codes.opacification_grade(5),
        codes.fleischner_class("P1-GE6", "one of several ground-glass nodules, ≥ 6 mm"),
        codes.t_category("T1mi"),
        codes.brock_model(result[1].value),
    ]
    assert [code.value for code in made] == ["LR2022-4B", "OPACITY-5", "FL2017-P1-GE6", "TNM-T1mi", "BROCK-2b"]
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 for code in made)
