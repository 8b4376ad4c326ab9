"""The report of a job without a result says so in codes and in words, needs no geometry, and is made once only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage, RawDataStorage, generate_uid

from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.job import FailedJob, Failure, JobInstance
from dicom_node.domain.model import ModelCard
from dicom_node.domain.uids import device_uid, result_uid
from dicom_node.results import Equipment, build_report
from dicom_node.results.unanalysed import MOST_LISTED
from dicom_node.spool import Spool
from tests.ct import small_ct
from tests.stored import header_of
from tests.unit.results.case import CARD, boxes, build, card_with, job_on, make_case
from tests.unit.results.test_sr import items

GAP = "A gap: 5 mm between the slices at -17.5 mm and -12.5 mm, where 2.5 mm is usual."


def failed_job(
    datasets: Sequence[Dataset], failure: Failure = Failure.NOT_ELIGIBLE, reason: str = GAP, **job: Any
) -> FailedJob:
    """A job on these instances that failed for this reason."""
    instances = tuple(
        JobInstance(ds.SOPInstanceUID, ds.SOPClassUID, "1.2.840.10008.1.2.1", "", "", header_of(ds)) for ds in datasets
    )
    return FailedJob(replace(job_on(instances, datasets[0]), **{"attempt": 0, **job}), failure, reason, 1)


def write(failed: FailedJob, header: Dataset, spool: Spool, card: ModelCard = CARD) -> tuple[ResultObject, bytes]:
    [result] = build_report(failed, card, header, Equipment("dicom-node", "0.1.0", "N-1", "General Hospital"), spool)
    return result, spool.path(result.path).read_bytes()


def report(failed: FailedJob, header: Dataset, spool: Spool, card: ModelCard = CARD) -> Dataset:
    return dcmread(BytesIO(write(failed, header, spool, card)[1]))


@pytest.fixture
def received(tmp_path: Path) -> list[Dataset]:
    return [dcmread(path) for path in small_ct(tmp_path / "ct", slices=8)]


def test_a_series_that_is_not_eligible_is_reported_in_codes_and_in_words(received: list[Dataset], spool: Spool) -> None:
    sr = report(failed_job(received), received[0], spool)
    assert sr.SOPClassUID == Comprehensive3DSRStorage
    assert (sr.CompletionFlag, sr.CompletionFlagDescription) == ("PARTIAL", "NOT ANALYSED: not eligible")
    assert (sr.PreliminaryFlag, sr.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert sr.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert sr.SeriesDescription == "NOT ANALYSED (not eligible) AI Lung segmentation (research only)"
    (outcome,) = items(sr, "CAD Processing and Findings Summary")
    assert (outcome.ConceptCodeSequence[0].CodeValue, outcome.ConceptCodeSequence[0].CodingSchemeDesignator) == (
        "111245",
        "DCM",
    )
    (comment,) = items(sr, "Comment")
    assert comment.TextValue.startswith(
        f"NOT ANALYSED (not eligible). {GAP} No model was run. This report says nothing"
    )
    assert "8 instances were received." in comment.TextValue
    assert CARD.training in comment.TextValue
    (equipment,) = (item for item in sr.ContributingEquipmentSequence if "DeviceUID" in item)
    assert equipment.DeviceUID == device_uid(CARD.digest) == next(items(sr, "Device Observer UID")).UID
    listed = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items(sr, "Source")]
    assert listed == [ds.SOPInstanceUID for ds in received]
    parsed = hd.sr.Comprehensive3DSR.from_dataset(sr)
    assert {uid for _, _, uid, _ in parsed.get_evidence()} == {*listed}


def test_a_negative_a_failed_and_a_not_eligible_report_have_three_descriptions(
    received: list[Dataset], tmp_path: Path, spool: Spool
) -> None:
    case = make_case(tmp_path / "negative")
    reason = "The model lung_ct gave no answer within 60 s and was stopped."
    failed = report(failed_job(received, Failure.FAILED, reason, attempt=3), received[0], spool)
    unfit = report(failed_job(received), received[0], spool)
    assert (
        build(case, boxes(case), spool).sr.SeriesDescription == "AI SR, no findings: Lung segmentation (research only)"
    )
    assert failed.SeriesDescription == "NOT ANALYSED (failed) AI Lung segmentation (research only)"
    assert failed.SeriesDescription != unfit.SeriesDescription
    assert f"{reason} 3 attempts ended without a result." in next(items(failed, "Comment")).TextValue


def test_writing_it_again_writes_the_same_bytes_under_the_uids_of_the_job(
    received: list[Dataset], spool: Spool
) -> None:
    failed = failed_job(received)
    first, data = write(failed, received[0], spool)
    again, same = write(replace(failed, tried=2), received[0], spool)
    assert (first, data) == (again, same)
    assert first.sop_instance_uid == result_uid(failed.job.id, "sr")
    run_2, _ = write(
        replace(failed, job=replace(failed.job, id="0" * 8 + failed.job.id[8:-1] + "8")), received[0], spool
    )
    assert run_2.sop_instance_uid != first.sop_instance_uid


def test_no_geometry_is_needed(received: list[Dataset], spool: Spool) -> None:
    for number, ds in enumerate(received):
        if number % 2:
            ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        for keyword in ("ImagePositionPatient", "PixelSpacing", "SliceThickness", "FrameOfReferenceUID", "Columns"):
            del ds[keyword]
    for keyword in ("PatientID", "PatientName", "Modality", "SeriesNumber", "StudyDate", "Manufacturer"):
        del received[0][keyword]
    sr = report(failed_job(received), received[0], spool)
    assert sr.PatientID == ""
    assert len(list(items(sr, "Source"))) == 8


def test_objects_without_pixels_are_evidence_but_no_images(received: list[Dataset], spool: Spool) -> None:
    for ds in received[1:]:
        del ds.Rows
        ds.SOPClassUID = RawDataStorage
    sr = report(failed_job(received), received[0], spool)
    assert len(list(items(sr, "Source"))) == 1
    (series,) = sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert len(series.ReferencedSOPSequence) == 8
    alone = report(failed_job(received[1:]), received[1], spool)
    assert not list(items(alone, "Image Library"))


def test_a_huge_series_is_listed_in_part_and_the_report_says_so(received: list[Dataset], spool: Spool) -> None:
    failed = failed_job(received)
    many = [replace(failed.job.instances[0], sop_instance_uid=generate_uid()) for _ in range(MOST_LISTED + 700)]
    result, data = write(replace(failed, job=replace(failed.job, instances=tuple(many))), received[0], spool)
    sr = dcmread(BytesIO(data))
    assert len(list(items(sr, "Source"))) == MOST_LISTED
    assert "1200 instances were received; the first 500 are listed here." in next(items(sr, "Comment")).TextValue
    assert result.size < 300_000


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            "The model's process cannot import what it needs: [Errno 2] '/opt/models/lung ct/model.pt'\nTraceback",
            "The model's process cannot import what it needs: [Errno 2] (file).",
        ),
        ("The bundle lung_ct cannot be loaded: no models/model.pt", "The bundle lung_ct cannot be loaded: no (file)."),
        (r"cannot open C:\models\x.pt.", "cannot open (file)."),
        ("Instance 1.2.3 cannot be parsed: SYNTHETIC^CHEST, SYN-001", "(removed)^(removed), (removed)."),
        ("lung_ct is made for CT/PT; the series is MR.", "lung_ct is made for CT/PT; the series is MR."),
    ],
)
def test_the_reason_tells_no_path_no_trace_and_no_patient(
    reason: str, said: str, received: list[Dataset], spool: Spool
) -> None:
    comment = next(items(report(failed_job(received, reason=reason), received[0], spool), "Comment")).TextValue
    assert said in comment
    assert "Traceback" not in comment


def test_a_model_that_the_node_no_longer_has_is_named_by_what_is_known(received: list[Dataset], spool: Spool) -> None:
    sr = report(failed_job(received), received[0], spool, card_with(digest="", weights_digest="", segments=()))
    (equipment,) = (item for item in sr.ContributingEquipmentSequence if "DeviceUID" in item)
    assert equipment.SoftwareVersions == "0.1.0"
    assert "sha256" not in equipment.ContributionDescription
