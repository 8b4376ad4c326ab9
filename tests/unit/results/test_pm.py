"""What spoke for the detections, as values that a viewer can read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom.uid import ParametricMapStorage

from dicom_node.spool import Spool
from tests.unit.results.case import ALL, boxes, build, built_of, card_with, make_case, nodules

CARD = card_with(outputs=ALL)


def test_the_map_shows_the_saliency_on_the_slices_that_have_any(tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    pm = built_of(case, prediction, findings, spool, CARD).pm
    assert pm.SOPClassUID == ParametricMapStorage
    assert pm.SeriesDescription == "AI saliency: Lung segmentation (research only)"
    uids = [ds.SOPInstanceUID for ds in case.volume.datasets]
    named = [
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for frame in pm.PerFrameFunctionalGroupsSequence
    ]
    assert sorted(named, key=uids.index) == uids[5:13]
    volume = hd.pm.ParametricMap.from_dataset(pm).get_volume(apply_real_world_transform=True)
    assert prediction.saliency is not None
    assert volume.array.max() == 1.0
    np.testing.assert_allclose(np.sort(volume.array.ravel()), np.sort(prediction.saliency[5:13].ravel()) / 255)
    (mapping,) = pm.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    (quantity,) = mapping.QuantityDefinitionSequence
    assert quantity.ConceptCodeSequence[0].CodeValue == "130404"
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"


@pytest.mark.parametrize("nothing", [None, 0])
def test_nothing_that_spoke_for_anything_makes_no_map(nothing: int | None, tmp_path: Path, spool: Spool) -> None:
    case = make_case(tmp_path / "ct")
    prediction, findings = nodules(case)
    assert prediction.saliency is not None
    saliency = None if nothing is None else prediction.saliency * 0
    built = built_of(case, replace(prediction, saliency=saliency), findings, spool, CARD)
    assert "pm" not in built.files
    assert "pm" not in build(case, boxes(case), spool, CARD).files
