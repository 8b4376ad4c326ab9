"""Findings are measured on the voxels of the source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from ai.contract import ModelInvalidOutput
from dicom_node.domain.finding import Code
from dicom_node.errors import ConfigurationError, GeometryError
from dicom_node.work.findings import findings_from
from dicom_node.work.measures import voxel_volume_ml
from tests.unit.results.case import CARD, LEFT_BOX, both_lungs, boxes, card_with, make_case, predict


def test_volume_counts_the_distance_between_slices_not_their_thickness(tmp_path: Path) -> None:
    tilted = (0.8, 0.0, -0.6, 0.0, 1.0, 0.0)
    case = make_case(tmp_path / "ct", spacing_mm=(0.7, 1.25, 0.8), cosines=tilted)
    for ds in case.volume.datasets:
        ds.SliceThickness = "5"
    left, right = findings_from(predict(both_lungs(case)), CARD, case.volume, case.job.id).segments
    assert left.voxels == 11 * 31 * 10
    assert left.volume_ml == pytest.approx(left.voxels * 0.7 * 1.25 * 0.8 / 1000, abs=1e-3)
    assert left.measurements[0].value == pytest.approx(1000 * left.volume_ml, abs=1)
    assert (left.number, right.number) == (1, 2)


def test_mean_attenuation_is_taken_over_the_marked_voxels(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    mask = boxes(case, left_lung=LEFT_BOX)
    case.volume.array[LEFT_BOX] = -850.04
    (left, _) = findings_from(predict(mask), CARD, case.volume, case.job.id).segments
    assert left.measurements[1].value == -850.0
    assert left.measurements[1].derivation == Code("373098007", "SCT", "Mean")


def test_an_empty_segment_is_a_finding_of_nothing_not_an_error(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    findings = findings_from(predict(boxes(case)), CARD, case.volume, case.job.id)
    assert findings.is_negative
    assert [segment.number for segment in findings.segments] == [0, 0]
    volume, attenuation = findings.segments[0].measurements
    assert volume.value == 0
    assert attenuation.value is None
    assert attenuation.reason is not None
    assert attenuation.reason.value == "114007"


def test_tracking_uids_stay_the_same_in_a_later_job_on_the_series(
    tmp_path: Path,
) -> None:
    case = make_case(tmp_path / "ct")
    prediction = predict(both_lungs(case))
    first, later, other_series = (
        [it.tracking_uid for it in findings_from(prediction, card, case.volume, job, series_id=of).segments]
        for card, job, of in (
            (CARD, case.job.id, case.job.series_id),
            (replace(CARD, version="9"), str(UUID(int=99)), case.job.series_id),
            (CARD, case.job.id, ""),
        )
    )
    assert first == later
    assert len({*first, *other_series}) == 4


def test_an_output_that_the_model_does_not_have_is_an_error(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    card = card_with(segments=(replace(CARD.segments[0], output="liver"),))
    with pytest.raises(ModelInvalidOutput, match="liver"):
        findings_from(predict(both_lungs(case)), card, case.volume, case.job.id)


def test_an_unknown_measurement_names_card_segment_and_choices(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    card = card_with(segments=(replace(CARD.segments[0], measurements=("weight",)),))
    with pytest.raises(ConfigurationError, match=r"lung_ct.*left lung.*weight.*volume, mean_attenuation"):
        findings_from(predict(both_lungs(case)), card, case.volume, case.job.id)


def test_voxels_without_volume_are_refused() -> None:
    with pytest.raises(GeometryError):
        voxel_volume_ml(np.zeros((4, 4)))
