"""What was marked has to be able to be what it is called; disease may not break that, a turned mask must."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dicom_node.domain.finding import Code, Findings
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis
from dicom_node.results.anatomy import prove_anatomy
from dicom_node.results.header import Origin
from tests.unit.results.case import CARD, EQUIPMENT, LEFT, RIGHT, Case, make_case, nodules


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("ct"))


@pytest.fixture
def analysis(case: Case) -> Analysis:
    prediction, findings = nodules(case)
    return Analysis(Origin.of(case.job, CARD, case.volume, EQUIPMENT), case.volume, findings, prediction)


def having(analysis: Analysis, **changes: dict[str, object]) -> Analysis:
    """The same with some segments changed, by label."""
    segments = tuple(
        replace(each, **changes.get(each.label.replace(" ", "_"), {}))  # type: ignore[arg-type]
        for each in analysis.findings.segments
    )
    return replace(analysis, findings=replace(analysis.findings, segments=segments))


def test_lungs_and_their_nodules_are_believed(analysis: Analysis) -> None:
    prove_anatomy(analysis)


def test_a_lung_without_air_is_no_lung_and_half_of_it_may_be_ill(analysis: Analysis, case: Case) -> None:
    hu = case.volume.array.copy()
    half = replace(analysis, volume=replace(case.volume, array=hu))
    hu[:9] = 20
    prove_anatomy(half)
    hu[:] = np.where(hu < -400, 20, hu)
    with pytest.raises(ResultError, match=r"0% of it is below -400 HU, and at least 30% would be"):
        prove_anatomy(half)


def test_other_modalities_have_no_hounsfield_units(analysis: Analysis, case: Case) -> None:
    for header in analysis.origin.slices:
        header.Modality = "MR"
    prove_anatomy(replace(analysis, volume=replace(case.volume, array=np.zeros_like(case.volume.array))))


def test_exchanged_sides_are_found_out(analysis: Analysis) -> None:
    exchanged = having(analysis, Left_lung={"laterality": RIGHT}, Right_lung={"laterality": LEFT})
    with pytest.raises(ResultError, match="'Right lung' does not lie to the left of 'Left lung'"):
        prove_anatomy(exchanged)
    few = {"laterality": RIGHT, "voxels": 300}
    prove_anatomy(replace(exchanged, findings=Findings(having(exchanged, Left_lung=few).findings.segments[:2])))


def test_a_nodule_of_the_other_side_or_of_no_lung_is_found_out(analysis: Analysis) -> None:
    with pytest.raises(ResultError, match="'Nodule 1' lies in no right lung, nor within 5 mm of one"):
        prove_anatomy(having(analysis, Nodule_1={"laterality": RIGHT}))
    empty = having(analysis, Left_lung={"voxels": 0, "number": 0}, Right_lung={"voxels": 0, "number": 0})
    with pytest.raises(ResultError, match="'Nodule 1' lies in no left lung"):
        prove_anatomy(empty)


def test_a_nodule_that_the_lung_leaves_out_may_touch_it(case: Case) -> None:
    prediction, findings = nodules(case)
    assert prediction.instances is not None
    origin = Origin.of(case.job, CARD, case.volume, EQUIPMENT)
    for columns, fits in ((slice(25, 27), True), (slice(29, 32), False)):  # the lung ends before column 25; 1.5 mm each
        instances = np.where(prediction.instances == 2, 0, prediction.instances).astype(np.uint8)
        instances[5:7, 20:23, columns] = 2
        moved = Analysis(origin, case.volume, findings, replace(prediction, instances=instances))
        if fits:
            prove_anatomy(moved)
        else:
            with pytest.raises(ResultError, match="'Nodule 2' lies in no right lung"):
                prove_anatomy(moved)


def test_a_nodule_may_lie_in_a_lobe_instead_of_a_lung(analysis: Analysis) -> None:
    lobe = Code("44714003", "SCT", "Upper lobe of left lung")
    prove_anatomy(having(analysis, Left_lung={"type": lobe}))
    with pytest.raises(ResultError, match="'Nodule 1' lies in no left lung"):
        prove_anatomy(having(analysis, Left_lung={"type": Code("69536005", "SCT", "Head")}))


def test_without_lungs_on_its_card_a_nodule_is_not_measured_by_them(analysis: Analysis) -> None:
    prove_anatomy(replace(analysis, findings=Findings(analysis.findings.segments[2:])))
