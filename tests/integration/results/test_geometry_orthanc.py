"""Whatever way a patient was cut, what a real archive gives back lies on the voxels that were meant, exactly.

Images and results go to Orthanc by C-STORE; only what comes back is compared.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from dicom_node.deliver.dimse import send_files
from dicom_node.domain.model import OutputKind
from dicom_node.spool import Spool
from dicom_node.work.findings import findings_from
from tests.peers.orthanc import Orthanc
from tests.unit.results.case import built_of, make_case, nodules
from tests.unit.results.test_geometry import CARD, GRIDS, frames, predict, read, truth, write

CELLS = (
    "axial",
    "axial, from the head down",
    "axial, feet first",
    "axial, transposed",
    "coronal",
    "sagittal",
    "oblique about two axes",
    "anisotropic: thick slices",
    "pixels not square, image not square",
    "far from the origin",
    "positions with one decimal",
)


@pytest.mark.parametrize("name", CELLS)
def test_what_orthanc_gives_back_lies_where_the_patient_has_it(
    name: str, tmp_path: Path, spool: Spool, orthanc_module: Orthanc
) -> None:
    card = replace(CARD, outputs=(OutputKind.SEG, OutputKind.PM))
    paths, shift_mm = write(tmp_path / "ct", GRIDS[name])
    case = read(paths, spool)
    case = replace(case, job=replace(case.job, id=str(uuid4())))  # UIDs derive from it, and the cells share an archive
    prediction = predict(case, shift_mm)
    built = built_of(case, prediction, findings_from(prediction, card, case.volume, case.job.id), spool, card)
    results = [tmp_path / f"{kind}.dcm" for kind in built.files]
    for path in results:
        path.write_bytes(built.files[path.stem])
    sent = send_files([*paths, *results], "127.0.0.1", orthanc_module.dicom_port, orthanc_module.ae, "AINODE")
    assert {(file.status, file.problem) for file in sent} == {(0x0000, "")}

    back = given_back(orthanc_module, case.job.study_instance_uid)
    seg, pm = (next(ds for ds in back if ds.SOPInstanceUID == it.SOPInstanceUID) for it in (built.seg, built.pm))
    sources = {str(ds.SOPInstanceUID): ds for ds in back if ds.Modality == "CT"}
    assert len(sources) == len(paths)
    expected = {uid: truth(ds, shift_mm) for uid, ds in sources.items()}
    shown = frames(seg)
    for label in ("Left lung", "Right lung", "Nodule"):
        found = dict.fromkeys(sources, 0)
        for (segment, uid), pixels in shown.items():
            if segment.startswith(label):
                assert not (pixels & ~expected[uid][label]).any(), (label, uid)
                found[uid] += int(pixels.sum())
        assert found == {uid: int(masks[label].sum()) for uid, masks in expected.items()}
        assert sum(found.values()) > 50
    for (_, uid), pixels in frames(pm).items():
        stored = sources[uid].pixel_array.astype(int)
        assert np.array_equal(pixels, np.where(expected[uid]["Nodule"], np.clip(stored, 0, 255), 0))


def given_back(orthanc: Orthanc, study: str) -> list[Dataset]:
    return [dcmread(BytesIO(data)) for data in orthanc.files(study)]


def test_orthanc_draws_the_overlay_pixel_for_pixel(tmp_path: Path, spool: Spool, orthanc_module: Orthanc) -> None:
    """As it comes, without plugins for more encodings: what it shows is what most archives show."""
    case = make_case(tmp_path / "ct")
    card = replace(CARD, outputs=(OutputKind.OVERLAY,))
    built = built_of(case, *nodules(case), spool, card)
    path = tmp_path / "overlay.dcm"
    path.write_bytes(built.files["overlay"])
    [sent] = send_files([path], "127.0.0.1", orthanc_module.dicom_port, orthanc_module.ae, "AINODE")
    assert (sent.status, sent.problem) == (0x0000, "")
    [instance] = orthanc_module.instances(case.job.study_instance_uid)
    with urlopen(f"{orthanc_module.url}/instances/{instance}/frames/9/preview") as answer:
        shown = np.asarray(Image.open(BytesIO(answer.read())).convert("RGB"))
    assert np.array_equal(shown, dcmread(path).pixel_array[9])
