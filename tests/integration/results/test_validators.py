"""The field's own checkers find nothing to say of our objects but their known false alarms."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.spool import Spool
from tests.ct import Change
from tests.peers.validators import problems
from tests.unit.results.case import both_lungs, boxes, build, make_case
from tests.unit.results.test_header import with_attributes

SOURCES: dict[str, Change] = {
    "plain": with_attributes(),
    "Latin": with_attributes(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg"),
    "Japanese": with_attributes(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎"),
    "no order": with_attributes(AccessionNumber=""),
    "lossy": with_attributes(
        LossyImageCompression="01", LossyImageCompressionRatio=15, LossyImageCompressionMethod="ISO_15444_1"
    ),
    "other zone": with_attributes(TimezoneOffsetFromUTC="-0500"),
}
OTHER_BYTES = ("Latin", "Japanese")


@pytest.mark.parametrize("source", SOURCES)
def test_the_validators_find_nothing_to_say(source: str, tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct", change=SOURCES[source])
    built = build(case, both_lungs(case), spool)
    found = problems(built.files["seg"], built.files["sr"], sources=case.sources)
    # dcentvfy compares bytes: the same name in another character set is another name to it
    assert [message for message in found if source not in OTHER_BYTES or "<PatientName>" not in message] == []


@pytest.mark.parametrize("orientation", [(0, 1, 0, 0, 0, -1), (0.8, 0, -0.6, 0, 1, 0)])
def test_the_validators_find_nothing_to_say_of_other_planes(
    orientation: tuple[float, ...], tmp_path: Path, spool: Spool
) -> None:
    case = make_case(tmp_path / "ct", cosines=orientation, rows=43, columns=51)
    built = build(case, both_lungs(case), spool)
    assert problems(built.files["seg"], built.files["sr"], sources=case.sources) == []


def test_the_validators_find_nothing_to_say_of_a_negative_report(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    assert problems(build(case, boxes(case), spool).files["sr"], sources=case.sources) == []
