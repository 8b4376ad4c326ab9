"""The report states what was measured, by which model, on which images, and says so too when there is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage

from ai.contract import Detection
from dicom_node.domain.finding import Code, NotRun
from dicom_node.domain.model import ClassCard, Derived, Measure, OutputKind
from dicom_node.domain.uids import device_uid
from dicom_node.results.words import CALCULATED
from dicom_node.spool import Spool
from dicom_node.work.findings import findings_from
from tests.ct import with_attributes
from tests.unit.results.case import (
    ALL,
    CARD,
    NODULES,
    both_lungs,
    boxes,
    build,
    built_of,
    card_with,
    make_case,
    nodules,
    predict,
)


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
    assert sr.SeriesDescription == "AI SR, no findings: Lung segmentation (research only)"
    assert _library(sr) == [ds.SOPInstanceUID for ds in case.volume.datasets]
    assert next(items(sr, "Comment")).TextValue.startswith(
        "Nothing was found in 20 images: no left lung, no right lung."
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


def test_a_nodule_is_a_group_with_its_sizes_its_classes_and_what_they_rest_on(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    built = built_of(case, *nodules(case), spool)
    nodule, other = groups(built.sr)[2:]
    assert nodule.finding_type == codes.SCT.Nodule
    assert nodule.finding_category == codes.SCT.MorphologicallyAbnormalStructure
    assert (nodule.finding_sites[0].value, nodule.finding_sites[0].laterality) == (codes.SCT.Lung, codes.SCT.Left)
    reference = nodule.referenced_segment
    assert reference is not None
    assert list(reference.referenced_segment_numbers or []) == [3]
    numbers = {}
    for each in nodule.get_measurements():
        numbers[each.name.meaning, each.derivation.meaning if each.derivation else ""] = each.value
    assert numbers == {
        ("Long Axis", ""): 8.42,
        ("Short Axis", ""): 6.06,
        ("Volume", ""): 810,
        ("Attenuation Coefficient", "Mean"): 31.2,
        ("Attenuation Coefficient", "Minimum"): -40,
        ("Certainty of Finding", ""): 93,
    }
    coded = nodule.get_qualitative_evaluations()
    classes = {each.name.meaning: each.value.meaning for each in coded if isinstance(each.value, hd.sr.CodedConcept)}
    assert classes.pop("Finding category") == "Morphologically Abnormal Structure"  # highdicom counts it among them
    assert classes == {"Attenuation type": "Part-solid", "Lung-RADS 2022 category": "4A"}
    said = [item.TextValue for item in items(nodule[0], "Comment")]
    assert said == [
        "Attenuation type Part-solid: probability 0.71",
        "Lung-RADS 2022 category 4A: part-solid, 8.4 mm, solid part 6.1 mm",
        "Certainty 93%: the model's own score, not calibrated, and no probability of malignancy.",
        CALCULATED,
    ]
    assert len(other.get_qualitative_evaluations()) == 1


def test_what_is_said_of_the_scan_stands_in_the_summary_with_its_reason(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    sr = built_of(case, *nodules(case), spool).sr
    (summary,) = (
        item for item in items(sr, "Measurement Group") if list(items(item, "CAD Processing and Findings Summary"))
    )
    (category,) = items(summary, "Lung-RADS 2022 category")
    assert category.ConceptCodeSequence[0].CodeValue == "4A"
    said = [item.TextValue for item in items(summary, "Comment")]
    assert said[0] == "Lung-RADS 2022 category 4A: the highest of 2 nodules"
    assert said[-1] == CALCULATED
    (scheme,) = sr.CodingSchemeIdentificationSequence
    assert (scheme.CodingSchemeDesignator, scheme.CodingSchemeResponsibleOrganization) == ("99DICOMNODE", "dicom-node")


@pytest.mark.parametrize(("found", "outcome"), [(True, "111244"), (False, "111243")])
def test_what_was_not_run_makes_the_report_partial(found: bool, outcome: str, tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    masks = both_lungs(case) if found else boxes(case)
    findings = findings_from(predict(masks), CARD, case.volume, case.job.id)
    partial = replace(findings, not_run=(NotRun("Nodule detection", "slice spacing 8 mm"),))
    sr = built_of(case, predict(masks), partial, spool).sr
    (ended,) = items(sr, "CAD Processing and Findings Summary")
    assert ended.ConceptCodeSequence[0].CodeValue == outcome
    assert (sr.CompletionFlag, sr.CompletionFlagDescription) == (
        "PARTIAL",
        "Nodule detection not run: slice spacing 8 mm",
    )
    assert next(items(sr, "Comment")).TextValue == "Nodule detection not run: slice spacing 8 mm."
    what = "SR, partial" if found else "SR, partial, no findings"
    assert sr.SeriesDescription == f"AI {what}: Lung segmentation (research only)"


def test_a_risk_of_cancer_is_in_the_report_when_the_header_holds_its_inputs(tmp_path: Path, spool: Spool) -> None:
    """From the files to the number in the SR: age, sex, an order's answer, and a lobe that was outlined."""

    def coded(value: str, scheme: str, meaning: str) -> list[Dataset]:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        return [item]

    asked = Dataset()
    asked.ValueType = "CODE"
    asked.ConceptNameCodeSequence = coded("FAMILY-LUNG-CA", "99DICOMNODE", "Family history of lung cancer")
    asked.ConceptCodeSequence = coded("373066001", "SCT", "Yes")
    person = {"PatientAge": "060Y", "PatientSex": "F"}
    case = make_case(tmp_path / "ct", change=with_attributes(**person, AcquisitionContextSequence=[asked]))
    lobe = replace(
        CARD.segments[0],
        type=Code("44714003", "SCT", "Upper lobe of left lung"),
        measurements=(Measure.EMPHYSEMA_INDEX,),
    )
    kinds = {name: Code(name.upper(), "99TEST", name) for name in ("solid", "part-solid", "ground-glass")}
    nodule = replace(
        NODULES,
        measurements=(Measure.LONG_AXIS,),
        classes={"attenuation": ClassCard(Code("112118", "DCM", "Density"), kinds)},
        derive=(Derived.BROCK,),
    )
    card = card_with(segments=(lobe, CARD.segments[1]), detections=(nodule,))
    prediction = replace(
        nodules(case)[0],
        detections=(Detection("nodule", 0.93, {"attenuation": dict(zip(kinds, (0.9, 0.1, 0.0), strict=True))}),),
    )
    assert prediction.instances is not None
    prediction.instances[prediction.instances == 2] = 0

    findings = findings_from(prediction, card, case.volume, case.job.id)
    sr = built_of(case, prediction, findings, spool, card).sr

    (risk,) = items(sr, "Probability of cancer")
    assert 0 < float(risk.MeasuredValueSequence[0].NumericValue) < 100
    assert risk.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "%"
    said = sr.to_json()
    assert "Brock full model 2a" in said
    assert "woman, 65 years, a family history, no emphysema" in said
    assert "upper lobe, 1 nodule" in said
    assert "Malignancy risk not calculated" not in said


def test_what_was_not_calculated_is_said_in_a_complete_report(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    findings = findings_from(predict(both_lungs(case)), CARD, case.volume, case.job.id)
    findings = replace(findings, not_run=(NotRun("Malignancy risk", "lobe unknown", "not calculated"),))
    sr = built_of(case, predict(both_lungs(case)), findings, spool).sr
    assert sr.CompletionFlag == "COMPLETE"
    assert next(items(sr, "Comment")).TextValue == "Malignancy risk not calculated: lobe unknown."
    assert sr.SeriesDescription == "AI SR: Lung segmentation (research only)"


def test_lungs_are_no_finding_of_a_model_that_looks_for_nodules(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    card, masks = card_with(detections=(NODULES,), outputs=ALL), both_lungs(case)
    findings = findings_from(predict(masks), card, case.volume, case.job.id)
    built = built_of(case, predict(masks), findings, spool, card)
    (ended,) = items(built.sr, "CAD Processing and Findings Summary")
    assert ended.ConceptCodeSequence[0].CodeValue == "111241"
    assert built.sr.SeriesDescription == "AI SR, no findings: Lung segmentation (research only)"
    assert next(items(built.sr, "Comment")).TextValue == "Nothing was found in 20 images: no nodule."
    assert [group.tracking_identifier for group in groups(built.sr)] == ["Left lung", "Right lung"]
    assert len(_library(built.sr)) == 20
    barred = findings_from(predict(masks), card, case.volume, case.job.id, not_run={"nodule": "slice spacing 8 mm"})
    sr = built_of(case, predict(masks), barred, spool, card).sr
    (ended,) = items(sr, "CAD Processing and Findings Summary")
    assert (ended.ConceptCodeSequence[0].CodeValue, sr.CompletionFlag) == ("111244", "PARTIAL")


def test_the_report_leads_to_every_other_result(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    built = built_of(case, *nodules(case), spool, card_with(outputs=ALL))
    evidence = {uid for _, _, uid, _ in hd.sr.Comprehensive3DSR.from_dataset(built.sr).get_evidence()}
    others = {dcmread(BytesIO(data)).SOPInstanceUID for kind, data in built.files.items() if kind != "sr"}
    assert evidence == others | {ds.SOPInstanceUID for ds in case.volume.datasets}


def test_nothing_found_and_what_was_not_run_are_reported_by_a_model_without_reports(
    tmp_path: Path, spool: Spool
) -> None:
    case, card = make_case(tmp_path / "ct"), card_with(outputs=(OutputKind.SEG,))
    assert list(build(case, boxes(case), spool, card).files) == ["sr"]
    masks = both_lungs(case)
    findings = findings_from(predict(masks), card, case.volume, case.job.id)
    assert list(built_of(case, predict(masks), findings, spool, card).files) == ["seg"]
    partial = replace(findings, not_run=(NotRun("Nodule detection", "slice spacing 8 mm"),))
    assert list(built_of(case, predict(masks), partial, spool, card).files) == ["seg", "sr"]
