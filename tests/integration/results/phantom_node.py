"""A whole node with a model that knows the phantom's parts by their values, and nothing of where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from dicom_node.deliver.dimse import send_files
from tests.integration.results.test_geometry_orthanc import given_back
from tests.node import RunningNode
from tests.peers.orthanc import Orthanc
from tests.unit.ai.bundles import ARGMAX, INVERT, TO_RAS, write_bundle
from tests.unit.results.test_geometry import GRIDS, frames, truth, write

NETWORK = """
import torch

class Sides(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        parts = [((image - value).abs() < 0.25).float() for value in (-851, -850, 25)]
        return torch.cat([1 - sum(parts), *parts], dim=1)
"""
CARD = """\
name = "phantom"
version = "1.0.0"
title = "Phantom"
manufacturer = "test"
summary = "Marks the parts of a phantom."
training = "not trained; not for clinical use"
timeout_s = 60
outputs = ["seg", "rtstruct", "sr"]
[accepts]
modality = ["CT"]
"""
SEGMENT = """\
[[segments]]
output = "{output}"
label = "{label}"
category = {{ value = "{category}", scheme = "SCT", meaning = "{category_meaning}" }}
type = {{ value = "{value}", scheme = "SCT", meaning = "{meaning}" }}
"""
RULE = 'model = "phantom"\ndestinations = ["pacs"]\n[when]\nModality = "CT"\n'
LEFT_LUNG = 1  # HU below the right one's, by which the model tells them apart


def phantom_node(home: Path, orthanc: Orthanc, database_url: str) -> RunningNode:
    """Prepare a node; what it makes goes to `orthanc`."""
    node = RunningNode(home, orthanc.dicom_port, orthanc.ae, database_url=database_url, quiet_s=0.5)
    names = ("left lung", "right lung", "nodule")
    bundle = write_bundle(
        home / "models" / "phantom",
        network=NETWORK,
        preprocessing=[TO_RAS],
        postprocessing=[INVERT, ARGMAX],
        channels=("background", *names),
    )
    organ = {"category": "91723000", "category_meaning": "Anatomical Structure", "value": "39607008", "meaning": "Lung"}
    lesion = {"category": "49755003", "category_meaning": "Morphologically Abnormal Structure"}
    lesion |= {"value": "27925004", "meaning": "Nodule"}
    parts = [SEGMENT.format(output=n, label=n.capitalize(), **(lesion if n == "nodule" else organ)) for n in names]
    (bundle / "card.toml").write_text(CARD + "".join(parts))
    node.settings.write_text('models = ["models"]\n' + node.settings.read_text())
    (home / "rules" / "chest_ct.toml").write_text(RULE)
    return node


def prove_cell(name: str, node: RunningNode, orthanc: Orthanc, folder: Path) -> int:
    """Send one way of cutting the patient to node and archive; compare what the archive gives back, voxel by voxel.

    Returns
    -------
    int
        How many voxels were compared that the model marked.
    """
    shift_mm = np.array(GRIDS[name].get("shift_mm", (0, 0, 0)), float)

    def tell_lungs_apart(number: int, ds: Dataset) -> Dataset:
        stored = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).copy()
        stored[truth(ds, shift_mm)["Left lung"]] -= LEFT_LUNG
        ds.PixelData = stored.tobytes()
        return ds

    paths, _ = write(folder, GRIDS[name], tell_lungs_apart)
    source = dcmread(paths[0], stop_before_pixels=True)
    for port, called in ((orthanc.dicom_port, orthanc.ae), (node.port, "AINODE")):
        sent = send_files(paths, "127.0.0.1", port, called, "SCANNER", timeout_s=120)
        assert {(file.status, file.problem) for file in sent} == {(0x0000, "")}, (
            called,
            {(file.status, file.problem) for file in sent},
        )
    job = node.finished(str(source.SeriesInstanceUID))
    assert job["state"] == "completed", node.ask("explain", job["id"])
    assert [d["state"] for d in job["deliveries"]] == ["delivered"] * 3, node.ask("explain", job["id"])

    back = given_back(orthanc, str(source.StudyInstanceUID))
    [seg] = [ds for ds in back if ds.Modality == "SEG"]
    expected = {str(ds.SOPInstanceUID): truth(ds, shift_mm) for ds in back if ds.Modality == "CT"}
    assert len(expected) == len(paths)
    shown, compared = frames(seg), 0
    for label in ("Left lung", "Right lung", "Nodule"):
        for uid, masks in expected.items():
            pixels = shown.get((label, uid))
            assert np.array_equal(np.zeros_like(masks[label]) if pixels is None else pixels, masks[label]), (label, uid)
        compared += sum(int(masks[label].sum()) for masks in expected.values())
    return compared
