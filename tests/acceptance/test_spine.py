"""A PACS sends a real chest CT and gets SEG and SR back, whatever the encoding: real series, real model, real peers."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.seg import segread
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from tests.node import RunningNode
from tests.peers.orthanc import Orthanc
from tests.peers.tools import dcmtk
from tests.peers.validators import problems

# The options of storescu with which each syntax is proposed, the way to make it, and which of the slices are sent:
# one whole series shows that its size is borne, the others what their encoding does.
SYNTAXES = {
    "explicit little endian": (ExplicitVRLittleEndian, "-xe", 1),
    "JPEG-LS": (JPEGLSLossless, "-xt", 3),
    "JPEG 2000 lossless": (JPEG2000Lossless, "-xv", 3),
    "RLE": (RLELossless, "-xr", 3),
}


@pytest.fixture(scope="module")
def node(orthanc_module: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    running = RunningNode(tmp_path_factory.mktemp("node") / "home", orthanc_module.dicom_port, orthanc_module.ae)
    running.start()
    yield running
    running.stop()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SYNTAXES)
def test_the_demo_series_ends_as_one_seg_and_one_sr(
    name: str, node: RunningNode, orthanc_module: Orthanc, chest_ct: list[Path], tmp_path: Path
) -> None:
    syntax, option, each = SYNTAXES[name]
    sent = recode(chest_ct[::each], tmp_path / "sent", syntax)
    arguments = [
        "-aet",
        "SCANNER",
        "-aec",
        "AINODE",
        option,
        "+sd",
        "127.0.0.1",
        str(node.port),
        str(tmp_path / "sent"),
    ]
    dcmtk("storescu", *arguments)

    job = node.finished(str(sent[0].SeriesInstanceUID))

    assert job["state"] == "completed", node.ask("explain", job["id"])
    held = results_in(orthanc_module, str(sent[0].StudyInstanceUID))
    assert sorted(held) == ["SEG", "SR"], "exactly one of each"
    assert {str(ds.SOPInstanceUID) for ds, _ in held.values()} == {r["sop_instance_uid"] for r in job["results"]}
    assert_same_patient(held, sent[0])
    assert_covers_what_was_marked(held["SEG"][1], job, sent)
    assert problems(held["SEG"][1], held["SR"][1], sources=sorted((tmp_path / "sent").iterdir())) == []
    stored_as_sent(node, sent, syntax)


def recode(files: list[Path], folder: Path, syntax: UID) -> list[Dataset]:
    """Write the series anew in another encoding, under UIDs of its own, so that one PACS can hold all of them."""
    folder.mkdir()
    study, series = generate_uid(), generate_uid()
    written: list[Dataset] = []
    for number, file in enumerate(files):
        ds = dcmread(file)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        if ds.file_meta.TransferSyntaxUID != syntax:
            ds.decompress(generate_instance_uid=False)
            if syntax.is_compressed:
                ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
        del ds.PixelData
        written.append(ds)
    return written


def results_in(orthanc: Orthanc, study_uid: str) -> dict[str, tuple[Dataset, bytes]]:
    """What the PACS holds for a study beside images: by modality, which must not repeat."""
    found: dict[str, tuple[Dataset, bytes]] = {}
    for content in orthanc.files(study_uid):
        ds = dcmread(BytesIO(content))
        if ds.Modality != "CT":
            assert ds.Modality not in found, f"two {ds.Modality} objects in one study"
            found[ds.Modality] = (ds, content)
    return found


def assert_same_patient(held: dict[str, tuple[Dataset, bytes]], source: Dataset) -> None:
    for ds, _ in held.values():
        for keyword in ("PatientID", "PatientName", "PatientSex", "StudyInstanceUID", "AccessionNumber"):
            assert ds[keyword].value == source[keyword].value, keyword


def assert_covers_what_was_marked(seg: bytes, job: dict[str, Any], sources: list[Dataset]) -> None:
    """Each segment read back has exactly the voxels that the model marked, over both lungs of this patient."""
    volume = segread(BytesIO(seg)).get_volume(combine_segments=False)
    marked = {
        s["label"]: s["voxels"] for s in next(r for r in job["results"] if r["kind"] == "seg")["summary"]["segments"]
    }
    counted = volume.array.reshape(-1, volume.array.shape[-1]).sum(axis=0)
    ds = dcmread(BytesIO(seg), stop_before_pixels=True)
    assert dict(zip([s.SegmentLabel for s in ds.SegmentSequence], counted.tolist(), strict=True)) == marked
    x = {s.SegmentLabel: np.argwhere(volume.array[..., n])[:, 2].mean() for n, s in enumerate(ds.SegmentSequence)}
    assert x["Right lung"] < x["Left lung"], "patient right is image left in an axial CT with row cosines 1\\0\\0"


def stored_as_sent(node: RunningNode, sent: list[Dataset], syntax: UID) -> None:
    story = node.ask("explain", str(sent[0].SOPInstanceUID))
    assert f"{len(sent)} instances" in story, story
    assert str(sent[0].SeriesInstanceUID) in story
    kept = (node.home / "spool" / "instances").rglob("*.dcm")
    assert syntax in {dcmread(p, stop_before_pixels=True).file_meta.TransferSyntaxUID for p in kept}
