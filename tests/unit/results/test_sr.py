"""The report states what was measured, by which model, on which images, and says so too when there is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node.domain.model import OutputKind
from dicom_node.domain.uids import device_uid
from dicom_node.spool import Spool
from tests.unit.results.case import CARD, both_lungs, boxes, build, card_with, make_case


def items(sr: Dataset, meaning: str) -> Iterator[Dataset]:
    """Content items by the meaning of their concept, anywhere in the tree."""
    for item in sr.ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeMeaning == meaning:
            yield item
        if "ContentSequence" in item:
            yield from items(item, meaning)


def groups(sr: Dataset) -> list[hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    report = hd.sr.Comprehensive3DSR.from_dataset(sr)
    assert isinstance(report.content, hd.sr.MeasurementReport)
    return report.content.get_volumetric_roi_measurement_groups()


def test_each_segment_has_a_group_with_its_measurements(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    built = build(case, both_lungs(case), spool)
    found = groups(built.sr)
    assert [group.tracking_identifier for group in found] == ["Left lung", "Right lung"]
    volume, attenuation = found[0].get_measurements()
    assert volume.name == codes.SCT.Volume
    assert volume.value == pytest.approx(11 * 31 * 10 * 2.5 * 1.5 * 1.5, abs=0.06)
    assert volume.unit.value == "mm3"
    mask = both_lungs(case)["left lung"]
    assert attenuation.value == pytest.approx(case.volume.array[mask].mean(), abs=0.06)
    assert attenuation.derivation == codes.SCT.Mean
    assert found[0].finding_type == codes.SCT.Lung
    assert found[0].finding_sites[0].laterality == codes.SCT.Left


def test_the_groups_point_at_the_segments_of_the_segmentation(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    built = build(case, both_lungs(case), spool)
    for group, segment in zip(groups(built.sr), built.seg.SegmentSequence, strict=True):
        reference = group.referenced_segment
        assert reference is not None
        assert reference.referenced_sop_instance_uid == built.seg.SOPInstanceUID
        assert list(reference.referenced_segment_numbers or []) == [segment.SegmentNumber]
        assert (group.tracking_identifier, group.tracking_uid) == (segment.TrackingID, segment.TrackingUID)


def test_the_report_is_complete_preliminary_and_unverified(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    sr = build(case, both_lungs(case), spool).sr
    assert sr.SOPClassUID == Comprehensive3DSRStorage
    assert (sr.CompletionFlag, sr.PreliminaryFlag, sr.VerificationFlag) == ("COMPLETE", "PRELIMINARY", "UNVERIFIED")
    assert "VerifyingObserverSequence" not in sr
    assert sr.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert sr.ReferencedRequestSequence[0].AccessionNumber == "ACC0001"


def test_the_model_is_named_alike_as_observer_and_as_equipment(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    sr = build(case, both_lungs(case), spool).sr
    (equipment,) = (item for item in sr.ContributingEquipmentSequence if "DeviceUID" in item)
    assert equipment.DeviceUID == device_uid(CARD.digest)
    assert equipment.DeviceUID == next(items(sr, "Device Observer UID")).UID
    assert next(items(sr, "Device Observer Model Name")).TextValue == equipment.ManufacturerModelName == "lung_ct"
    versions = {item.TextValue for item in items(sr, "Algorithm Version")}
    assert versions == {equipment.SoftwareVersions} == {"0.1.0+sha256.cdcdcdcdcdcd"}
    assert CARD.weights_digest in equipment.ContributionDescription
    assert CARD.training in equipment.ContributionDescription
    assert CARD.training in next(items(sr, "Comment")).TextValue


def test_all_images_are_evidence_and_the_used_ones_are_in_the_library(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    built = build(case, both_lungs(case), spool)
    uids = [ds.SOPInstanceUID for ds in case.volume.datasets]
    evidence = hd.sr.Comprehensive3DSR.from_dataset(built.sr).get_evidence()
    assert {sop_uid for _, _, sop_uid, _ in evidence} == {*uids, built.seg.SOPInstanceUID}
    assert _library(built.sr) == [uids[2], uids[3], uids[13], uids[15]]


def test_nothing_found_is_said_of_every_image(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    sr = build(case, boxes(case), spool).sr
    (outcome,) = items(sr, "CAD Processing and Findings Summary")
    assert outcome.ConceptCodeSequence[0].CodeValue == "111241"
    assert sr.SeriesDescription == "AI Lung segmentation SR: no findings (research only)"
    assert _library(sr) == [ds.SOPInstanceUID for ds in case.volume.datasets]
    assert next(items(sr, "Comment")).TextValue.startswith(
        "None of these was found in 20 images: Left lung, Right lung."
    )
    assert not groups(sr)


def test_a_number_that_could_not_be_computed_is_empty_and_says_why(tmp_path: Path, spool: Spool) -> None:
    def make_mr(number: int, ds: Dataset) -> Dataset:
        ds.Modality = "MR"
        return ds

    case = make_case(tmp_path / "ct", change=make_mr)
    sr = build(case, both_lungs(case), spool).sr
    attenuations = list(items(sr, "Attenuation Coefficient"))
    assert len(attenuations) == 2
    for item in attenuations:
        assert len(item.MeasuredValueSequence) == 0
        assert item.NumericValueQualifierCodeSequence[0].CodeValue == "114007"


def test_the_procedure_is_the_scan_and_local_codes_are_declared(tmp_path: Path, spool: Spool) -> None:
    def ordered(number: int, ds: Dataset) -> Dataset:
        ds.ProcedureCodeSequence = [hd.sr.CodedConcept("CTTHX", "99HOSP", "CT Thorax")]
        return ds

    plain = build(make_case(tmp_path / "plain"), boxes(make_case(tmp_path / "same")), spool).sr
    assert next(items(plain, "Procedure reported")).ConceptCodeSequence[0].CodeValue == "25045-6"
    case = make_case(tmp_path / "ct", change=ordered)
    sr = build(case, boxes(case), spool).sr
    assert next(items(sr, "Procedure reported")).ConceptCodeSequence[0].CodeValue == "CTTHX"
    assert [item.CodingSchemeDesignator for item in sr.CodingSchemeIdentificationSequence] == ["99HOSP"]


def test_a_model_without_segmentation_reports_without_pointing_at_one(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    built = build(case, both_lungs(case), spool, card_with(outputs=(OutputKind.SR,)))
    assert list(built.files) == ["sr"]
    assert not groups(built.sr)
    assert len(list(items(built.sr, "Volume"))) == 2


def _library(sr: Dataset) -> list[str]:
    return [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items(sr, "Source")]
