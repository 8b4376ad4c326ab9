"""A model of two series of a study, in a whole node: sent by dcmtk in any order, late, twice, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.seg import segread
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from tests.mr import Study
from tests.node import RunningNode
from tests.peers.tools import dcmtk
from tests.peers.validators import problems
from tests.unit.ai.bundles import write_bundle
from tests.unit.ai.registering import finds_shift
from tests.unit.results.test_registration import led

# Marks what is bright in both images: its first channel is the one that the bundle, not the rule, names first.
BOTH = """
import torch

class Both(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        bright = ((image[:, :1] > self.threshold) & (image[:, 1:] > self.threshold)).float()
        return torch.cat([1 - bright, bright], dim=1)
"""
CARD = """\
name = "both"
version = "1"
title = "Bright in both"
manufacturer = "Test"
summary = "Marks what is bright in T1 and in FLAIR."
training = "not trained; for tests"
timeout_s = 120.0

[accepts]
modality = ["MR"]

[[segments]]
output = "lesion"
label = "Lesion"
category = { value = "49755003", scheme = "SCT", meaning = "Morphologically Abnormal Structure" }
type = { value = "52988006", scheme = "SCT", meaning = "Lesion" }
"""
RULE = """\
model = "both"
destinations = ["out"]
wait_s = 8

[when]
Modality = "MR"

[inputs.T1]
SeriesDescription = { contains = "t1" }

[inputs.FLAIR]
SeriesDescription = { contains = "flair" }
"""
FOLLOWS = """\
name = "follows"
version = "1.2.3"
title = "Finds what moved"
manufacturer = "Test"
summary = "Finds how what is bright has moved since."
training = "not trained; for tests"
timeout_s = 120.0

[accepts]
modality = ["MR"]

[registration]
fixed = "fixed"
moving = "moving"
"""
FOLLOW = """\
model = "follows"
destinations = ["out"]
wait_s = 8

[when]
Modality = "MR"

[inputs.fixed]
SeriesDescription = { contains = "before" }

[inputs.moving]
SeriesDescription = { contains = "after" }
"""
T1_BOX = ((-20.0, -10.0, -10.0), (20.0, 22.0, 14.0))  # LPS, mm; each shows less than the other somewhere
FLAIR_BOX = ((-8.0, -16.0, -6.0), (28.0, 12.0, 20.0))
AXIAL: dict[str, Any] = {"slices": 24, "spacing_mm": (2.5, 1.5, 1.5), "origin_mm": (-48.0, -48.0, -30.0)}
SAGITTAL: dict[str, Any] = {
    "slices": 32,
    "spacing_mm": (3.0, 2.0, 2.0),
    "origin_mm": (48.0, -60.0, 60.0),  # slices go towards the right
    "cosines": (0, 1, 0, 0, 0, -1),
}
Box = tuple[tuple[float, ...], tuple[float, ...]] | NDArray[np.float64]
MIDDLES_APART = np.array([1.5, 3.0, -3.0]) - (-0.75, -0.75, -1.25)  # of the two grids


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    home = tmp_path_factory.mktemp("study") / "home"
    running = RunningNode(home, 1, "NOBODY", quiet_s=1.0)
    settings = running.settings.read_text()
    running.settings.write_text(f'models = ["models"]\n{settings}\n[destinations.out]\nkind = "folder"\npath = "out"\n')
    bundle = write_bundle(home / "models" / "both", network=BOTH, class_name="Both", channels=("background", "lesion"))
    (bundle / "card.toml").write_text(CARD)
    file = bundle / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    image = {"num_channels": 2, "channel_def": {"0": "FLAIR", "1": "T1"}}
    metadata["network_data_format"]["inputs"] = {"image": image}
    file.write_text(json.dumps(metadata))
    (finds_shift(home / "models" / "follows", threshold=20.0, stretch=(0, 0, 0)) / "card.toml").write_text(FOLLOWS)
    (home / "out").mkdir()
    (home / "rules" / "chest_ct.toml").unlink()
    (home / "rules" / "both.toml").write_text(RULE)
    (home / "rules" / "follow.toml").write_text(FOLLOW)
    running.start()
    yield running
    running.stop()


def bright(box: Box, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    inside = (points > np.array(box[0])) & (points < np.array(box[1]))
    return np.asarray(inside.all(axis=-1), np.bool_)


def points_of(ds: Dataset) -> NDArray[np.float64]:
    """LPS of every pixel's centre, shape (rows, columns, 3)."""
    across, down = np.array(ds.ImageOrientationPatient[:3], float), np.array(ds.ImageOrientationPatient[3:], float)
    row, column = np.indices((ds.Rows, ds.Columns))[..., None] * np.array(ds.PixelSpacing, float)[:, None, None, None]
    places: NDArray[np.float64] = np.array(ds.ImagePositionPatient, float) + column * across + row * down
    return places


def made(study: Study, description: str, box: Box, **grid: Any) -> list[Path]:
    def draw(_: int, ds: Dataset) -> Dataset:
        values = np.where(bright(box, points_of(ds)), 500, 20)
        ds.PixelData = (values + 1024).astype("<u2").tobytes()
        return ds

    return study.series(description, rows=64, columns=64, change=draw, **grid)


def send(node: RunningNode, *series: list[Path]) -> None:
    folders = [str(paths[0].parent) for paths in series]
    dcmtk("storescu", "-aet", "SCANNER", "-aec", "AINODE", "-xe", "+sd", "127.0.0.1", str(node.port), *folders)


def uid_of(paths: list[Path]) -> str:
    return str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)


def delivered(node: RunningNode, sop_instance_uid: str) -> bytes:
    """The object of that UID in the folder that results go to."""
    found = [path for path in (node.home / "out").rglob("*") if path.is_file()]
    (path,) = [one for one in found if dcmread(one, stop_before_pixels=True).SOPInstanceUID == sop_instance_uid]
    return path.read_bytes()


@pytest.mark.timeout(600)
def test_two_series_on_different_grids_end_as_one_seg_over_the_right_voxels_of_the_first_role(
    node: RunningNode, tmp_path: Path
) -> None:
    study = Study(tmp_path / "mr")
    t1, flair = made(study, "t1 ax", T1_BOX, **AXIAL), made(study, "flair sag", FLAIR_BOX, **SAGITTAL)
    localizer = study.series("localizer", slices=3)
    send(node, flair, localizer)
    send(node, t1)
    send(node, flair)  # again: nothing comes of it

    job = node.finished(uid_of(t1))

    assert job["state"] == "completed", node.ask("explain", job["id"])
    objects = {result["kind"]: delivered(node, result["sop_instance_uid"]) for result in job["results"]}
    assert sorted(objects) == ["seg", "sr"]
    assert problems(objects["seg"], objects["sr"], sources=[*t1, *flair]) == []
    seg, sr = (dcmread(BytesIO(objects[kind])) for kind in ("seg", "sr"))

    headers = [dcmread(path, stop_before_pixels=True) for path in t1]
    truth = np.stack([bright(T1_BOX, points_of(ds)) & bright(FLAIR_BOX, points_of(ds)) for ds in headers])
    marked = np.zeros_like(truth)
    place = {str(ds.SOPInstanceUID): number for number, ds in enumerate(headers)}
    frames = segread(BytesIO(objects["seg"])).get_pixels_by_source_instance(
        list(place), combine_segments=True, assert_missing_frames_are_empty=True
    )
    marked[:] = frames > 0
    assert 2 * (marked & truth).sum() > 0.93 * (marked.sum() + truth.sum())
    centre, wanted = (np.argwhere(mask).mean(axis=0) for mask in (marked, truth))
    assert centre == pytest.approx(wanted, abs=0.5)

    assert [item.SeriesInstanceUID for item in seg.ReferencedSeriesSequence] == [uid_of(t1), uid_of(flair)]
    assert len(seg.SourceImageSequence) == len(t1) + len(flair)
    named = {
        item.SeriesInstanceUID: len(item.ReferencedSOPSequence)
        for sequence in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for of_study in sr.get(sequence, ())
        for item in of_study.ReferencedSeriesSequence
    }
    assert (named[uid_of(t1)], named[uid_of(flair)]) == (len(t1), len(flair))
    assert b"Made from 2 series: T1 (t1 ax), FLAIR (flair sag). All places are those of T1." in objects["sr"]
    assert len(node.jobs(uid_of(t1))) == 1
    assert node.jobs(uid_of(localizer)) == []


@pytest.mark.timeout(600)
def test_a_series_that_is_missing_is_told_of_and_the_result_made_when_it_comes(
    node: RunningNode, tmp_path: Path
) -> None:
    study = Study(tmp_path / "mr")
    t1, flair = made(study, "t1 ax", T1_BOX, **AXIAL), made(study, "flair sag", FLAIR_BOX, **SAGITTAL)
    send(node, flair)

    failed = node.finished(uid_of(flair))

    assert (failed["state"], failed["failure"]) == ("failed", "not eligible")
    (report,) = failed["results"]
    told = delivered(node, report["sop_instance_uid"])
    assert "NOT ANALYSED" in dcmread(BytesIO(told)).SeriesDescription
    assert b"no series of the study fits T1" in told

    send(node, t1)
    job = node.finished(uid_of(t1))

    assert job["state"] == "completed", node.ask("explain", job["id"])
    assert job["supersedes"] == failed["id"]
    sr = dcmread(BytesIO(delivered(node, next(r for r in job["results"] if r["kind"] == "sr")["sop_instance_uid"])))
    replaced = sr.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert replaced.ReferencedSOPInstanceUID == report["sop_instance_uid"]


@pytest.mark.timeout(600)
def test_a_series_of_another_day_is_registered_onto_the_first_across_frames_of_reference(
    node: RunningNode, tmp_path: Path
) -> None:
    study = Study(tmp_path / "mr")
    before = made(study, "before", T1_BOX, **AXIAL)
    apart, moved = np.array([200.0, 50.0, -80.0]), np.array([4.0, -6.0, 3.0])
    there = np.array(T1_BOX) + apart + MIDDLES_APART + moved
    study.frame = str(generate_uid())
    after = made(study, "after", there, **SAGITTAL | {"origin_mm": tuple(SAGITTAL["origin_mm"] + apart)})
    send(node, after)
    send(node, before)

    job = node.finished(uid_of(before))

    assert job["state"] == "completed", node.ask("explain", job["id"])
    objects = {result["kind"]: delivered(node, result["sop_instance_uid"]) for result in job["results"]}
    assert sorted(objects) == ["deformation", "sr"]
    assert problems(objects["deformation"], objects["sr"], sources=[*before, *after]) == []
    ds = dcmread(BytesIO(objects["deformation"]))
    found = led(ds, np.array([np.mean(T1_BOX, axis=0)]))
    assert found == pytest.approx(there.mean(axis=0)[None], abs=1.0)
    assert ds.DeformableRegistrationSequence[1].SourceFrameOfReferenceUID == study.frame
    assert b"Registration of moving on fixed: what is in the body moved" in objects["sr"]
    assert "moving on fixed: moved" in node.ask("explain", job["id"])
