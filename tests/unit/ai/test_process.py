"""A model may hang, crash, lie or eat the memory: it costs one answer, and the next one comes from a fresh process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ai.contract import (
    BundleError,
    ModelCancelled,
    ModelCrashed,
    ModelInvalidOutput,
    ModelOutOfMemory,
    ModelTimeout,
    Volume,
)
from ai.process import ModelProcess
from tests.unit.ai.bundles import SIDES, two_blobs, write_bundle

# What the model does is decided by the first voxel it sees.
MOODS = SIDES.replace(
    "        bright = (",
    """
        import os, signal, sys, time
        mood = int(image.flatten()[0])
        if mood == 1:
            time.sleep(600)
        if mood == 2:
            print("the last words of the model", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if mood == 3:
            self.hoard = torch.ones(2 << 30)
        if mood == 4:
            return image / 0 * torch.ones(1, 3, 1, 1, 1)
        if mood == 5:
            print("x" * 1_000_000)
            sys.stdout.flush()
        bright = (""",
)
SOUND, HANGS, CRASHES, HOARDS, NAN, PRINTS = range(6)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("p") / "moods", network=MOODS, preprocessing=[])


@pytest.fixture(scope="module")
def model(bundle: Path) -> Iterator[ModelProcess]:
    with ModelProcess(bundle, memory_mib=4096) as process:
        yield process


def _volume(mood: int = SOUND) -> Volume:
    volume = two_blobs(np.stack([*np.eye(3)[::-1]], axis=1), (5.0, 4.0, 4.0))
    volume.array[0, 0, 0] = mood
    return volume


def test_a_warm_model_answers_again_without_loading(model: ModelProcess) -> None:
    first = model.predict(_volume(), timeout_s=60)
    pid = model.pid
    second = model.predict(_volume(PRINTS), timeout_s=60)  # a megabyte of chatter does not disturb it

    assert np.array_equal(first.mask("left side") | first.mask("right side"), _volume().array > 100)
    assert np.array_equal(first.label_maps[0].array, second.label_maps[0].array)
    assert list(first.steps_s) == ["load", "preprocess", "infer", "postprocess"]
    assert first.steps_s["load"] > 0 == second.steps_s["load"]
    assert model.pid == pid


def test_volumes_of_any_size_follow_one_another(model: ModelProcess) -> None:
    for shape in ((9, 40, 50), (3, 8, 7), (20, 30, 10)):
        volume = Volume(np.zeros(shape, np.float32), np.eye(4))
        assert model.predict(volume, timeout_s=60).label_maps[0].array.shape == shape


def test_the_child_s_process_outlives_the_thread_that_started_it(bundle: Path) -> None:
    with ModelProcess(bundle) as process:
        thread = threading.Thread(target=lambda: process.predict(_volume(), timeout_s=60))
        thread.start()
        thread.join()
        pid = process.pid
        time.sleep(0.3)

        process.predict(_volume(), timeout_s=60)

        assert process.pid == pid is not None


def test_nan_is_refused_and_the_process_stays_warm(model: ModelProcess) -> None:
    model.predict(_volume(), timeout_s=60)
    pid = model.pid

    with pytest.raises(ModelInvalidOutput, match="NaN"):
        model.predict(_volume(NAN), timeout_s=60)

    assert model.pid == pid


def test_a_hanging_model_is_killed_when_its_time_is_up(model: ModelProcess) -> None:
    model.predict(_volume(), timeout_s=60)
    pid = model.pid

    with pytest.raises(ModelTimeout, match=r"within 0\.5 s"):
        model.predict(_volume(HANGS), timeout_s=0.5)

    assert model.pid is None
    assert not _exists(pid)


def test_a_cancelled_prediction_is_killed_at_once(model: ModelProcess) -> None:
    model.predict(_volume(), timeout_s=60)
    changed_mind = time.monotonic() + 0.3

    with pytest.raises(ModelCancelled):
        model.predict(_volume(HANGS), timeout_s=60, cancelled=lambda: time.monotonic() > changed_mind)

    assert time.monotonic() - changed_mind < 40  # not the 60 s that it had


def test_a_crash_says_how_it_died_and_the_next_answer_is_sound(
    model: ModelProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ModelCrashed, match="crashed: its process was ended by SIGSEGV"):
        model.predict(_volume(CRASHES), timeout_s=60)

    assert "the last words of the model" in caplog.text
    assert model.predict(_volume(), timeout_s=60).mask("left side").any()


def test_kill_9_of_the_child_mid_prediction_is_a_crash(model: ModelProcess) -> None:
    model.predict(_volume(), timeout_s=60)
    assert model.pid is not None
    threading.Timer(0.3, os.kill, (model.pid, signal.SIGKILL)).start()

    with pytest.raises(ModelCrashed, match="SIGKILL"):
        model.predict(_volume(HANGS), timeout_s=60)


def test_a_model_that_hoards_memory_meets_its_limit(model: ModelProcess) -> None:
    with pytest.raises(ModelOutOfMemory):
        model.predict(_volume(HOARDS), timeout_s=60)

    assert model.predict(_volume(), timeout_s=60).mask("left side").any()


def test_memory_that_runs_out_inside_a_transform_is_told_apart_from_a_crash(tmp_path: Path) -> None:
    hoard = {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x + __import__('torch').ones(2 << 30)[0]"}
    folder = write_bundle(tmp_path / "hoards", preprocessing=[hoard])

    with ModelProcess(folder, memory_mib=4096) as process, pytest.raises(ModelOutOfMemory):
        process.predict(_volume(), timeout_s=60)


def test_a_model_that_does_not_fit_its_limit_cannot_be_loaded(bundle: Path) -> None:
    with ModelProcess(bundle, memory_mib=64) as process, pytest.raises(ModelCrashed):
        process.predict(_volume(), timeout_s=60)


def test_a_folder_that_is_no_bundle_is_a_bundle_error(tmp_path: Path) -> None:
    with ModelProcess(tmp_path) as process, pytest.raises(BundleError, match="not a bundle"):
        process.predict(_volume(), timeout_s=60)


def test_a_dead_model_leaves_no_open_files_behind(bundle: Path) -> None:
    before = _open_files()

    with ModelProcess(bundle) as process:
        process.predict(_volume(), timeout_s=60)
        with pytest.raises(ModelTimeout):
            process.predict(_volume(HANGS), timeout_s=0.2)

    assert _within(60, lambda: _open_files() == before)


def test_kill_9_of_the_parent_takes_the_model_with_it(bundle: Path) -> None:
    code = f"""
        import numpy as np
        from pathlib import Path
        from ai.contract import Volume
        from ai.process import ModelProcess
        model = ModelProcess(Path({str(bundle)!r}))
        volume = Volume(np.zeros((4, 5, 6), np.float32), np.eye(4))
        model.predict(volume, timeout_s=60)
        print(model.pid, flush=True)
        volume.array[0, 0, 0] = {HANGS}
        model.predict(volume, timeout_s=60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _exists(child)
        parent.kill()

    assert _within(60, lambda: not _exists(child))


def _exists(pid: int | None) -> bool:
    """Whether the process runs; one that is dead and waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()
