"""Series in which no nodule should be looked for are sent to a node with the chest model, and it says why.

Two real series are the pattern: Lung_Dx-A0002 of TCIA's Lung-PET-CT-Dx, a chest of 8 mm slices, and C3L-00189 of
CPTAC-PDA, an abdomen whose series is called "LUNG BASES 5MM". What is sent has the values of their headers and their
distances between slices; its pixels are drawn, with something dense in what looks like a lung.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from tests.ct import small_ct, with_attributes
from tests.node import RunningNode, wait_for
from tests.peers.orthanc import Orthanc
from tests.peers.tools import dcmtk

CHEST: dict[str, Any] = {
    "Manufacturer": "SIEMENS",
    "ManufacturerModelName": "Sensation 10",
    "StudyDescription": "Thorax^AThoraxRoutine (Adult)",
    "SeriesDescription": "ThoraxRoutine  8.0.0  B40f",
    "BodyPartExamined": "CHEST",
    "ConvolutionKernel": "B40f",
    "PatientSex": "F",
    "PatientBirthDate": "",
    "PatientAge": "053Y",
}
ABDOMEN: dict[str, Any] = {
    "Manufacturer": "GE MEDICAL SYSTEMS",
    "ManufacturerModelName": "Revolution CT",
    "StudyDescription": "CT ABDOMEN & PELVIS ENHANCED=AB",
    "SeriesDescription": "LUNG BASES 5MM",
    "BodyPartExamined": "PANCREAS",
    "ConvolutionKernel": "LUNG",
    "ContrastBolusRoute": "IV",
    "PatientPosition": "FFS",
    "PatientSex": "F",
    "PatientBirthDate": "",
    "PatientAge": "068Y",
}
EXAMPLE = Path(__file__).parents[2] / "deploy" / "rules" / "chest_ct.toml"


@pytest.fixture
def node(orthanc_module: Orthanc, tmp_path: Path) -> Iterator[RunningNode]:
    running = RunningNode(tmp_path / "home", orthanc_module.dicom_port, orthanc_module.ae, quiet_s=1.0)
    (running.home / "rules" / "chest_ct.toml").write_text(EXAMPLE.read_text())
    yield running.start()
    running.stop()


@pytest.mark.timeout(300)
def test_no_nodule_is_reported_where_none_was_to_be_looked_for(
    node: RunningNode, orthanc_module: Orthanc, tmp_path: Path
) -> None:
    chest, abdomen = (
        send(node, tmp_path / name, slices, mm, header)
        for name, slices, mm, header in (("chest", 30, 8.0, CHEST), ("abdomen", 35, 5.0, ABDOMEN))
    )

    wait_for(orthanc_module.instances, 240, lambda: node.log.read_text()[-4000:], every_s=1)
    job = node.finished(abdomen)

    assert "rule chest_ct did not match: slice_spacing_mm at most 5: no, 8" in node.ask("explain", chest)
    story = node.ask("explain", abdomen)
    assert job["state"] == "completed", story
    why = "Nodule detection not run: slice spacing 5 mm, made for up to 3 mm; slice thickness 5 mm"
    assert why in story
    for result in job["results"]:
        assert {segment["label"] for segment in result["summary"]["segments"]} <= {"Left lung", "Right lung"}
    reports = [ds for ds in map(dcmread, map(BytesIO, orthanc_module.files())) if ds.Modality == "SR"]
    assert reports
    for sr in reports:
        assert "partial" in sr.SeriesDescription
        assert why in sr.to_json()
        assert "Lung-RADS v2022" not in sr.to_json(), "a scan that was not searched has no category"


def send(node: RunningNode, folder: Path, slices: int, spacing_mm: float, header: dict[str, Any]) -> str:
    files = small_ct(
        folder, slices=slices, rows=96, columns=96, spacing_mm=(spacing_mm, 1.1, 1.1), change=with_attributes(**header)
    )
    dcmtk("storescu", "-aet", "SCANNER", "-aec", "AINODE", "127.0.0.1", str(node.port), *map(str, files))
    first: Dataset = dcmread(files[0], stop_before_pixels=True)
    return str(first.SeriesInstanceUID)
