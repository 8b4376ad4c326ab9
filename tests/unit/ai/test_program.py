"""A program as a model: left is left wherever its own grid lies, and whatever it does costs one attempt."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from ai.contract import (
    BundleError,
    ModelCancelled,
    ModelCrashed,
    ModelError,
    ModelInvalidOutput,
    ModelOutOfMemory,
    ModelTimeout,
    Volume,
)
from ai.data.nifti import RAS_TO_LPS
from ai.dicom_folder import CLASSES
from ai.label_files import read_labels
from ai.process import ModelProcess
from ai.program import Program
from dicom_node.program import AS_DICOM
from tests.unit.ai import programs
from tests.unit.ai.bundles import two_blobs
from tests.unit.ai.programs import COMMAND, write_program
from tests.unit.ai.test_bundle import ORIENTATIONS, _centre_mm
from tests.unit.ai.test_process import _exists, _within

AS_FILES = {"labels": {}, "structures": ["left side", "right side", "both"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_program(tmp_path_factory.mktemp("p") / "sides")


def volume(mood: int = 0, name: str = "axial, feet to head") -> Volume:
    image = two_blobs(np.stack(ORIENTATIONS[name], axis=1), (3.0, 1.5, 2.0))
    image.array[0, 0, 0] = mood
    return image


def ask(folder: Path, image: Volume, **changes: Any) -> Any:
    return Program(folder, {**COMMAND, **changes}, "cpu").predict(image)


@pytest.mark.parametrize(
    ("name", "takes"), [*((name, "nifti") for name in ORIENTATIONS), ("coronal", "dicom"), ("oblique", "dicom")]
)
def test_left_is_left_in_every_orientation(name: str, takes: str, folder: Path) -> None:
    image = volume(name=name)

    prediction = ask(folder, image, input=takes)

    left, right = prediction.mask("left side"), prediction.mask("right side")
    assert np.array_equal(left | right, image.array > 100)
    assert left.sum() > 3 * right.sum() > 0
    assert _centre_mm(left, image) == pytest.approx((33, -35, 705), abs=1.0)
    assert _centre_mm(right, image) == pytest.approx((-27, -50, 690), abs=1.0)


def test_a_file_for_each_structure_may_overlap_others(folder: Path) -> None:
    image = volume(name="sagittal")

    prediction = ask(folder, image, **AS_FILES)

    assert np.array_equal(prediction.mask("both"), image.array > 100)
    assert np.array_equal(prediction.mask("left side") | prediction.mask("right side"), prediction.mask("both"))
    assert [sorted(labels.names) for labels in prediction.label_maps] == [[1, 2], [1]]


@pytest.mark.parametrize("values", [[-1024.0, 3071.0, 5.0], [0.25, 0.5, 4000.0]])
def test_a_folder_of_dicom_holds_the_values_and_nobody_s_name(values: list[float], tmp_path: Path) -> None:
    from pydicom import dcmread

    from ai.dicom_folder import write_folder

    image = Volume(
        np.resize(np.array(values, np.float32), (2, 3, 4)), np.diag([2.0, 1.0, 1.5, 1.0])[[2, 1, 0, 3]], "MR"
    )
    write_folder(image, tmp_path)

    read = [dcmread(file) for file in sorted(tmp_path.iterdir())]
    back = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in read])
    assert back == pytest.approx(image.array, abs=0.04)
    assert not any(ds.PatientName or ds.PatientID or ds.StudyDate for ds in read)
    assert set(CLASSES) == set(AS_DICOM), "what a card may ask for"


@pytest.mark.parametrize(
    ("mood", "kind", "why"),
    [
        (programs.FAILS, ModelCrashed, "exit status 3"),
        (programs.WRITES_NOTHING, ModelInvalidOutput, "wrote no label map"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(
    mood: int, kind: type[ModelError], why: str, folder: Path
) -> None:
    with pytest.raises(kind, match=why):
        ask(folder, volume(mood))


Change = Callable[[NDArray[np.float32], NDArray[np.float64]], Nifti1Image]


def other(change: Callable[[NDArray[np.float32]], object]) -> Change:
    """The same place, other labels."""

    def changed(labels: NDArray[np.float32], affine: NDArray[np.float64]) -> Nifti1Image:
        found = change(labels)
        return image_of(labels if found is None else np.asarray(found), affine)

    return changed


def image_of(labels: NDArray[Any], affine: NDArray[np.float64] | None) -> Nifti1Image:
    return Nifti1Image(labels, affine)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (other(lambda labels: labels.__setitem__((5, 5, 5), 9)), "holds 9, to which the card gives no name"),
        (other(lambda labels: labels.__setitem__((5, 5, 5), 0.5)), "other values than whole numbers"),
        (other(lambda labels: labels.__setitem__((5, 5, 5), np.nan)), "other values than whole numbers"),
        (other(lambda labels: labels[:-1]), "another grid"),
        (other(lambda labels: labels[..., None] * np.ones(2, np.float32)), "4 dimensions"),
        (lambda labels, affine: image_of(labels, affine + np.eye(4, k=3) * 2), "another grid"),
        (lambda labels, affine: image_of(labels, affine * 0.9), "another grid"),
        (lambda labels, affine: image_of(labels, None), "does not say where it lies"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_a_label_map_that_may_mean_something_else_is_refused(change: Change, why: str, tmp_path: Path) -> None:
    image = volume(name="oblique")
    affine = RAS_TO_LPS @ image.affine[:, [2, 1, 0, 3]]
    change(np.zeros(image.array.shape[::-1], np.float32), affine).to_filename(tmp_path / "labels.nii")

    with pytest.raises(ModelInvalidOutput, match=why):
        read_labels(tmp_path / "labels.nii.gz", {1: "left side"}, image)


def test_a_label_map_without_a_third_direction_is_refused(tmp_path: Path) -> None:
    image, file = volume(), tmp_path / "labels.nii"
    image_of(np.zeros(image.array.shape[::-1], np.uint8), np.eye(4)).to_filename(file)
    header = bytearray(file.read_bytes())
    header[312:328] = header[296:312]  # srow_z says what srow_y says
    file.write_bytes(header)

    with pytest.raises(ModelInvalidOutput, match=r"cannot be inverted|cannot be read"):
        read_labels(file, {1: "left side"}, image)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.nii.gz").write_text("no")
    with pytest.raises(ModelInvalidOutput, match="cannot be read as NIfTI"):
        read_labels(tmp_path / "labels.nii.gz", {1: "left side"}, volume())


def test_a_coarser_label_map_over_the_whole_image_is_brought_to_its_grid(tmp_path: Path) -> None:
    image = volume(name="oblique")
    affine = RAS_TO_LPS @ image.affine[:, [2, 1, 0, 3]]
    fine = (image.array > 100).astype(np.uint8).transpose(2, 1, 0)
    coarse = image_of(fine[::2, ::2], affine @ np.diag([2.0, 2, 1, 1]))
    coarse.to_filename(tmp_path / "labels.nii")

    (labels,) = read_labels(tmp_path / "labels.nii", {1: "bright"}, image)

    truth = image.array > 100
    assert 2 * (truth & (labels.array == 1)).sum() / (truth.sum() + labels.array.sum()) > 0.9


def test_a_structure_without_a_file_is_refused(folder: Path) -> None:
    with pytest.raises(ModelInvalidOutput, match="no file for spleen"):
        ask(folder, volume(), labels={}, structures=["left side", "spleen"])


@pytest.mark.parametrize(
    ("version", "says", "why"),
    [
        (
            ["{python}", "-c", "print('Sides 2.4.10')"],
            "2.4.1",
            "is 'Sides 2.4.10'; its card says version 2",
        ),
        (["no-such-program", "--version"], "1", "cannot be started"),
    ],
)
def test_another_version_than_the_card_says_is_not_run(version: list[str], says: str, why: str, folder: Path) -> None:
    with pytest.raises(BundleError, match=why):
        Program.load(folder, {**COMMAND, "version": version, "says": says}, "cpu", None)


TRICKS = """
import contextlib, multiprocessing, os, socket, subprocess, sys, tempfile
from pathlib import Path

secret = Path("SECRET")
tricks = {
    "read a file of the node": secret.read_text,
    "overwrite it": lambda: secret.write_text("overwritten"),
    "open a connection": lambda: socket.create_connection(("127.0.0.1", 9), timeout=2),
    "talk to a local service": lambda: socket.socket(socket.AF_UNIX),
    "leave the group that is killed": os.setsid,
    "make a group of its own": lambda: os.setpgid(0, 0),
    "do so in a child": lambda: subprocess.run([sys.executable, "-c", ""], start_new_session=True, check=True),
    "be root elsewhere": lambda: os.unshare(os.CLONE_NEWUSER) if hasattr(os, "unshare") else secret.read_text(),
    "change its own folder": lambda: Path(__file__).write_text("changed"),
}
for name, trick in tricks.items():
    with contextlib.suppress(PermissionError, subprocess.SubprocessError):
        trick()
        sys.exit(f"it could {name}")
subprocess.run([sys.executable, "-c", f"import pathlib; pathlib.Path({tempfile.gettempdir()!r}, 'x').write_text('')"])
left_behind = subprocess.Popen(["sleep", "600"])
print("it left behind", left_behind.pid, flush=True)
"""


def test_a_program_can_do_its_work_and_nothing_else_and_leaves_nothing_behind(tmp_path: Path) -> None:
    secret = tmp_path / "node" / "secret.toml"
    secret.parent.mkdir()
    secret.write_text("password")
    folder = write_program(tmp_path / "tricks", code=TRICKS.replace("SECRET", str(secret)) + programs.SIDES)
    version = ["{python}", "-c", "print('version 1.2.3')"]

    with ModelProcess(folder, confine="always", command={**COMMAND, "version": version}) as model:
        prediction = model.predict(volume(), timeout_s=60)

        assert model.pid is None, "a program is not kept"
    assert prediction.mask("left side").any()
    assert "device the processor home True" in prediction.printed
    assert prediction.memory_mib > 10
    assert list(prediction.steps_s) == ["load", "preprocess", "infer", "postprocess"]
    found = re.search(r"it left behind (\d+)", prediction.printed)
    assert found
    assert _within(20, lambda: not _exists(int(found[1])))
    assert secret.read_text() == "password"


def test_a_program_that_is_stopped_is_killed_with_all_it_started_and_its_last_words_are_kept(folder: Path) -> None:
    with ModelProcess(folder, command=COMMAND) as model, pytest.raises(ModelCancelled) as raised:
        model.predict(volume(programs.HANGS), timeout_s=100, cancelled=lambda: "it started" in model.printed)

    found = re.search(r"it started (\d+)", raised.value.printed)
    assert found
    assert _within(20, lambda: not _exists(int(found[1])))


def test_a_program_that_does_not_end_is_stopped_when_its_time_is_up(folder: Path) -> None:
    with ModelProcess(folder, command=COMMAND) as model, pytest.raises(ModelTimeout, match=r"within 0\.5 s"):
        model.predict(volume(programs.HANGS), timeout_s=0.5)


def test_the_memory_of_all_its_processes_counts_and_what_it_printed_is_told(tmp_path: Path) -> None:
    hoard = "print('hoards', flush=True); x = b'x' * (250 << 20); import time; time.sleep(600)"
    twice = f"for _ in '12': subprocess.Popen([sys.executable, '-c', {hoard!r}])"
    code = "\n".join(("import subprocess, sys", twice, f"exec({hoard!r})"))
    folder = write_program(tmp_path / "hoards", code=code)

    with ModelProcess(folder, memory_mib=600, command=COMMAND) as model, pytest.raises(ModelOutOfMemory) as raised:
        model.predict(volume(), timeout_s=100)

    assert "more than 600 MiB" in str(raised.value)
    assert "hoards" in raised.value.printed


def test_kill_9_of_the_parent_takes_the_program_with_it(folder: Path) -> None:
    code = f"""
        import sys, numpy as np
        from pathlib import Path
        from ai.contract import Volume
        from ai.process import ModelProcess
        image = Volume(np.full((4, 5, 6), {programs.HANGS}, np.float32), np.eye(4))
        model = ModelProcess(Path({str(folder)!r}), command={COMMAND!r})
        model.predict(image, timeout_s=600, cancelled=lambda: print(model.pid, model.printed, flush=True))
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        told = next(found for line in parent.stdout if (found := re.search(r"it started (\d+)", line)))
        assert _exists(int(told[1]))
        parent.kill()
        parent.stdout.read()

    assert _within(20, lambda: not _exists(int(told[1])))


@pytest.mark.parametrize(("parallel", "can"), [(True, "talked"), (False, "PermissionError")])
def test_processes_that_work_in_parallel_may_talk_to_each_other_where_the_card_says_so(
    parallel: bool, can: str, tmp_path: Path
) -> None:
    code = """
        import multiprocessing, socket, sys
        from multiprocessing.connection import Client, Listener
        def talk(address):
            with Client(address) as client:
                client.send("talked")
        if __name__ == "__main__":
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
                try:
                    socket.socket(family, socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_STREAM)
                    sys.exit("a network!")
                except PermissionError:
                    pass
            try:
                with Listener(family="AF_UNIX") as listener:
                    context = multiprocessing.get_context("spawn")
                    lock = context.Lock()
                    other = context.Process(target=talk, args=(listener.address,))
                    other.start()
                    with listener.accept() as connection:
                        sys.exit(connection.recv())
            except OSError as error:
                sys.exit(type(error).__name__)
    """
    folder = write_program(tmp_path / "parallel", code=textwrap.dedent(code))
    with (
        ModelProcess(folder, confine="always", command={**COMMAND, "parallel": parallel}) as model,
        pytest.raises(ModelCrashed) as raised,
    ):
        model.predict(volume(), timeout_s=60)

    assert raised.value.printed.splitlines()[-1] == can


def test_the_children_s_memory_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from ai.program import group_memory_mib

    before = group_memory_mib()
    held: Callable[[], int] = group_memory_mib
    block = bytearray(64 << 20)
    block[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(block[:: os.sysconf("SC_PAGE_SIZE")])
    assert held() - before >= 60
    del block
