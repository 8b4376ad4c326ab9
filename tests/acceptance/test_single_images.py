"""A mammogram of two views goes in by C-STORE, and what a model marked in each comes back on that view."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from tests.node import RunningNode
from tests.peers.orthanc import Orthanc
from tests.peers.tools import dcmtk
from tests.single import marks, single_image
from tests.unit.ai.bundles import ABOVE, ARGMAX, write_bundle

CARD = """\
name = "breast_marks"
version = "1.2.3"
title = "Marks in mammograms"
manufacturer = "tests"
summary = "Marks what is bright."
training = "Trained on nothing."
timeout_s = 300

[accepts]
modality = ["MG"]
views = ["CC", "MLO"]

[[segments]]
output = "bright"
label = "Bright"
category = { value = "49755003", scheme = "SCT", meaning = "Morphologically Abnormal Structure" }
type = { value = "52988006", scheme = "SCT", meaning = "Lesion" }
"""
RULE = 'model = "breast_marks"\ndestinations = ["pacs"]\n[when]\nModality = "MG"\n'


@pytest.fixture
def node(orthanc: Orthanc, tmp_path: Path) -> Iterator[RunningNode]:
    running = RunningNode(tmp_path / "home", orthanc.dicom_port, orthanc.ae)
    wanted = 'objects = ["seg", "gsps", "pdf", "sr"]\n'  # more than the card makes; it is the last section
    running.settings.write_text('models = ["models"]\n' + running.settings.read_text() + wanted)
    (running.home / "rules" / "chest_ct.toml").write_text(RULE)
    folder = write_bundle(
        running.home / "models" / "breast_marks",
        network=ABOVE,
        class_name="Bright",
        preprocessing=[],
        postprocessing=[ARGMAX],
        channels=("background", "bright"),
        threshold=1000.0,
    )
    file = folder / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["network_data_format"]["inputs"] = {"image": {"num_channels": 1, "spatial_shape": [64, 64]}}
    metadata["network_data_format"]["outputs"]["pred"]["format"] = "segmentation"
    file.write_text(json.dumps(metadata))
    (folder / "card.toml").write_text(CARD)
    running.start()
    yield running
    running.stop()


@pytest.mark.timeout(600)
def test_two_views_come_back_with_what_was_marked_in_each(node: RunningNode, orthanc: Orthanc, tmp_path: Path) -> None:
    study, series = generate_uid(), generate_uid()
    sent = [
        single_image(tmp_path / "in", "MG", number=1, study=study, series=series, ViewPosition="CC", white_is_low=True),
        single_image(tmp_path / "in", "MG", number=2, study=study, series=series, Rows=70, Columns=96),
    ]

    dcmtk("storescu", "-aet", "SCANNER", "-aec", "AINODE", "127.0.0.1", str(node.port), *map(str, sent))
    job = node.finished(series)

    assert job["state"] == "completed", node.ask("explain", job["id"])
    results = [ds for content in orthanc.files(study) if (ds := dcmread(BytesIO(content))).Modality != "MG"]
    assert sorted(ds.Modality for ds in results) == ["DOC", "PR", "PR", "SEG", "SEG", "SR"]
    by_source = {_source(seg): seg for seg in results if seg.Modality == "SEG"}
    for file in sent:
        view = dcmread(file)
        seg = by_source[str(view.SOPInstanceUID)]
        assert np.array_equal(seg.pixel_array > 0, marks(view.Rows, view.Columns))
        assert seg.PatientID == view.PatientID
    shown = [ds.ReferencedSeriesSequence[0].ReferencedImageSequence for ds in results if ds.Modality == "PR"]
    assert {item.ReferencedSOPInstanceUID for items in shown for item in items} == {*by_source}
    story = node.ask("explain", job["id"])
    assert "2 single images" in story
    assert "Bright, image 2 (R MLO)" in story


def _source(seg: Dataset) -> str:
    groups = seg.PerFrameFunctionalGroupsSequence[0]
    return str(groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
