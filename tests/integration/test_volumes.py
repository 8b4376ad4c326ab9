"""Series that hold several volumes, and copies, on the node's own road: stored, examined, routed, analysed, written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless, generate_uid

from dicom_node.run_folder import FolderRun, run_folder
from tests.ct import Change, small_ct, with_attributes
from tests.enhanced import as_enhanced
from tests.unit.ai.bundles import write_bundle

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

CARD = """\
name = "sides"
version = "1"
title = "Sides"
manufacturer = "test"
summary = "Marks what is bright."
training = "not trained; not for clinical use"
timeout_s = 120

[accepts]
modality = ["CT"]

[volume]
EchoTime = 40

[[segments]]
output = "left side"
label = "Left side"
category = { value = "91723000", scheme = "SCT", meaning = "Anatomical Structure" }
type = { value = "85756007", scheme = "SCT", meaning = "Tissue" }
"""


def echoes(folder: Path) -> tuple[list[Path], list[Path]]:
    """One series of two echoes that overlap in every place; the second shows something else."""
    shared = {keyword: generate_uid() for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}

    def of(time: str) -> Change:
        def change(number: int, ds: Dataset) -> Dataset:
            for keyword, value in shared.items():
                setattr(ds, keyword, value)
            ds.EchoTime = time
            if time == "40":
                ds.PixelData = np.roll(np.frombuffer(ds.PixelData, "<u2").reshape(64, 64), 7, axis=0).tobytes()
            return ds

        return change

    first, second = (small_ct(folder / time, slices=12, change=of(time)) for time in ("20", "40"))
    return first, second


def copied(folder: Path) -> list[Path]:
    """A series of which two slices came again under other UIDs, one of them compressed."""
    paths = small_ct(folder, slices=12, change=with_attributes(EchoTime="40"))
    for number, compressed in ((4, False), (7, True)):
        ds = dcmread(paths[number])
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.InstanceNumber = 100 + number
        if compressed:
            ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(folder / f"copy{number}.dcm")
    return paths


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, FolderRun]]:
    home = tmp_path_factory.mktemp("volumes")
    write_bundle(home / "models" / "sides", threshold=-300.0)
    (home / "models" / "sides" / "card.toml").write_text(CARD)
    echoes(home / "in" / "echoes")
    first, second = echoes(home / "frames")
    (home / "in" / "enhanced").mkdir()
    as_enhanced([*first, *second], home / "in" / "enhanced" / "one.dcm")
    copied(home / "in" / "copied")
    small_ct(home / "in" / "other", slices=12, change=with_attributes(EchoTime="20"))
    runs = run_folder(home / "in", home / "out", model="sides", device="cpu", models=[home / "models" / "sides"])
    return home, {run.series_instance_uid: run for run in runs}


def uid_of(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).SeriesInstanceUID)


def references(item: Dataset) -> Iterator[Dataset]:
    for element in item:
        if element.VR == "SQ":
            for child in element.value:
                if "ReferencedSOPInstanceUID" in child:
                    yield child
                yield from references(child)


def seg_of(ended: tuple[Path, dict[str, FolderRun]], series: str) -> Dataset:
    run = ended[1][series]
    assert run.problem == ""
    return dcmread(dict(run.results)["seg"])


def test_results_are_made_of_the_chosen_echo_and_name_its_slices_alone(
    ended: tuple[Path, dict[str, FolderRun]],
) -> None:
    folder = ended[0] / "in" / "echoes" / "40"
    sources = [dcmread(path) for path in sorted(folder.iterdir())]
    seg = seg_of(ended, uid_of(next(folder.iterdir())))
    marked = {str(item.ReferencedSOPInstanceUID) for item in references(seg)}
    assert marked == {str(ds.SOPInstanceUID) for ds in sources}
    middle = next(ds for ds in sources if ds.InstanceNumber == 7)
    frames = zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True)
    (drawn,) = [
        pixels for group, pixels in frames if next(references(group)).ReferencedSOPInstanceUID == middle.SOPInstanceUID
    ]
    expected = middle.pixel_array.astype(int) - 1024 > -300
    expected[:, :32] = False  # rows run to the patient's left, and the model marks the left side alone
    assert np.array_equal(drawn.astype(bool), expected)


def test_results_are_made_of_the_frames_of_the_chosen_echo(ended: tuple[Path, dict[str, FolderRun]]) -> None:
    source = dcmread(ended[0] / "in" / "enhanced" / "one.dcm")
    seg = seg_of(ended, str(source.SeriesInstanceUID))
    groups = source.PerFrameFunctionalGroupsSequence
    theirs = [number for number, one in enumerate(groups, 1) if one.MREchoSequence[0].EffectiveEchoTime == 40]
    named = [int(item.ReferencedFrameNumber) for item in references(seg) if "ReferencedFrameNumber" in item]
    assert sorted(named) == theirs
    for group, drawn in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        number = int(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
        expected = source.pixel_array[number - 1].astype(int) - 1024 > -300
        expected[:, :32] = False
        assert np.array_equal(drawn.astype(bool), expected)


def test_copies_of_slices_are_set_aside(ended: tuple[Path, dict[str, FolderRun]]) -> None:
    folder = ended[0] / "in" / "copied"
    sources = [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in sorted(folder.glob("0*.dcm"))]
    seg = seg_of(ended, uid_of(folder / "000.dcm"))
    assert {str(item.ReferencedSOPInstanceUID) for item in references(seg)} == {*sources}


def test_a_series_without_the_volume_that_the_card_takes_is_refused(ended: tuple[Path, dict[str, FolderRun]]) -> None:
    run = ended[1][uid_of(ended[0] / "in" / "other" / "000.dcm")]
    assert run.problem == "No volume with EchoTime 40: the series has 20."
