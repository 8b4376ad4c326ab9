"""A result belongs to its patient and study, whatever the source's header looks like, and is made once only."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, config, dcmread
from pydicom.uid import JPEGBaseline8Bit

from dicom_node.domain.uids import IMPLEMENTATION_CLASS_UID
from dicom_node.spool import Spool
from tests.ct import Change
from tests.unit.results.case import Case, both_lungs, boxes, build, card_with, case_of, make_case

PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def with_attributes(**attributes: object) -> Change:
    """Set attributes on every slice, in the VR of the standard and unchecked; None removes one."""

    def change(number: int, ds: Dataset) -> Dataset:
        with config.disable_value_validation():
            for keyword, value in attributes.items():
                ds.pop(keyword, None)
                if value is not None:
                    setattr(ds, keyword, value)
        return ds

    return change


def objects(case: Case, spool: Spool) -> list[Dataset]:
    built = build(case, both_lungs(case), spool)
    return [built.seg, built.sr]


def test_patient_and_study_are_those_of_the_source(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    for result in objects(case, spool):
        for keyword in PATIENT_AND_STUDY:
            assert result[keyword].value == case.volume.datasets[0][keyword].value, keyword
        assert result.SpecificCharacterSet == "ISO_IR 192"
        assert result.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID


def test_two_attempts_write_the_same_bytes(tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(tmp_path / "ct")
    first = build(case, both_lungs(case), spool)
    random.seed(1)
    monkeypatch.setenv("TZ", "Pacific/Auckland")  # tzset is not called: the zone of a running process stays
    retried = replace(case, job=replace(case.job, attempt=2))
    assert build(retried, both_lungs(case), spool).files == first.files
    other = replace(case, job=replace(case.job, id="00000000-0000-0000-0000-000000000009"))
    assert build(other, both_lungs(case), spool).seg.SOPInstanceUID != first.seg.SOPInstanceUID


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 144", "Петров^Иван"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 192", "Παπαδόπουλος^Νίκος"),
    ],
)
def test_a_name_survives_its_character_set(
    character_set: str | list[str], name: str, tmp_path: Path, spool: Spool
) -> None:
    change = with_attributes(SpecificCharacterSet=character_set, PatientName=name, ReferringPhysicianName=name)
    case = make_case(tmp_path / "ct", change=change)
    for result in objects(case, spool):
        assert str(result.PatientName) == name
        assert str(result.ReferringPhysicianName) == name
        assert name.encode() in build(case, boxes(case), spool).files["sr"]


@pytest.mark.parametrize(("sex", "expected"), [("U", ""), ("m", "M"), ("X", ""), ("Female", "F"), ("", ""), ("O", "O")])
def test_a_sex_that_the_standard_does_not_know_is_left_empty(
    sex: str, expected: str, tmp_path: Path, spool: Spool
) -> None:
    case = make_case(tmp_path / "ct", change=with_attributes(PatientSex=sex))
    assert {result.PatientSex or "" for result in objects(case, spool)} == {expected}


def test_a_header_with_nothing_optional_is_enough(tmp_path: Path, spool: Spool) -> None:
    missing = (
        *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "PatientID", "PatientBirthDate", "PatientSex"),
        *("PatientName", "PatientAge", "ReferringPhysicianName", "StudyDescription", "SeriesNumber", "SliceThickness"),
        *("BodyPartExamined", "FrameOfReferenceUID", "PositionReferenceIndicator", "SpecificCharacterSet"),
        *("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"),
    )
    case = make_case(tmp_path / "ct", change=with_attributes(**dict.fromkeys(missing)))
    seg, sr = objects(case, spool)
    for result in (seg, sr):
        for keyword in ("PatientName", "PatientID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
            assert result[keyword].is_empty
    assert seg.FrameOfReferenceUID
    assert "BodyPartExamined" not in seg
    assert "ReferencedRequestSequence" not in sr


def test_what_is_invalid_is_emptied_or_left_out_but_identity_stays(tmp_path: Path, spool: Spool) -> None:
    change = with_attributes(
        PatientID="P" * 70,
        AccessionNumber="A" * 20,
        PatientBirthDate="1960.01.02",
        StudyDate="someday",
        StudyTime="10:15:00",
        PatientAge="65",
        StudyDescription="D" * 80,
    )
    case = make_case(tmp_path / "ct", change=change)
    with config.disable_value_validation():
        for result in objects(case, spool):
            assert (result.PatientID, result.AccessionNumber) == ("P" * 70, "A" * 20)
            assert (result.PatientBirthDate, result.StudyDate, result.StudyTime) == ("19600102", "", "101500")
            assert "PatientAge" not in result
            assert "StudyDescription" not in result


def test_a_name_of_blanks_stays_blank(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    path = case.sources[0]
    before = b"\x10\x00\x10\x00PN\x10\x00SYNTHETIC^CHEST "
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, before[:8] + b" " * 16))
    again = case_of([dcmread(path) for path in case.sources], case.sources)
    built = build(again, boxes(again), spool)
    assert b"\x10\x00\x10\x00PN\x02\x00  " in built.files["sr"]


def test_times_are_on_the_clock_of_the_source(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct", change=with_attributes(TimezoneOffsetFromUTC="+0530"))
    for result in objects(case, spool):
        assert (result.ContentDate, result.ContentTime) == ("20250301", "180015.123456")
        assert result.TimezoneOffsetFromUTC == "+0530"


def test_lossy_compression_of_the_source_is_carried_over(tmp_path: Path, spool: Spool) -> None:
    change = with_attributes(LossyImageCompression="01", LossyImageCompressionRatio=15)
    seg, _ = objects(make_case(tmp_path / "flag", change=change), spool)
    assert (seg.LossyImageCompression, seg.LossyImageCompressionRatio) == ("01", 15)
    case = make_case(tmp_path / "syntax")
    instances = tuple(replace(each, transfer_syntax_uid=JPEGBaseline8Bit) for each in case.job.instances)
    seg, _ = objects(replace(case, job=replace(case.job, instances=instances)), spool)
    assert (seg.LossyImageCompression, seg.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    seg, _ = objects(make_case(tmp_path / "lossless"), spool)
    assert seg.LossyImageCompression == "00"


def test_long_names_and_odd_characters_are_made_to_fit(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    card = card_with(
        name="a_very_long_model_name_with_ümlaut",
        title="Segmentation of the left and the right lung in computed tomography of the chest",
        manufacturer="A\\B\nC" * 20,
        training="Trained on much. " * 100,
        version="1.2.3-rc.4+build.5678901234567",
    )
    built = build(case, both_lungs(case), spool, card)
    for result, what in ((built.seg, "SEG"), (built.sr, "SR")):
        assert result.SeriesDescription.startswith(f"AI {what}: Segmentation of the left")
        assert result.SeriesDescription.endswith("(research only)")
        assert len(result.SeriesDescription) <= 64
    assert built.seg.ContentLabel == "A_VERY_LONG_MODE"


def test_private_and_retired_clutter_is_not_copied(tmp_path: Path, spool: Spool) -> None:
    def clutter(number: int, ds: Dataset) -> Dataset:
        ds.private_block(0x0011, "SOMEONE", create=True).add_new(1, "LO", "SECRET")
        return ds

    case = make_case(tmp_path / "ct", change=clutter)
    built = build(case, both_lungs(case), spool)
    assert all(b"SECRET" not in content for content in built.files.values())
