"""One model in one killable child process, kept warm.

A model that hangs, crashes or eats the memory costs one answer, never the process that asked. This module imports
neither torch nor MONAI; the child does. The child is trusted less than we are: it gets a few environment variables and
no open files but its own, its answers are JSON and plain bytes that are checked, and nothing it says is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pwd
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ai.contract import (
    BundleError,
    Images,
    ModelCancelled,
    ModelCrashed,
    ModelError,
    ModelInvalidOutput,
    ModelOutOfMemory,
    ModelTimeout,
    Prediction,
    Volume,
)
from ai.reply import prediction_of

_log = logging.getLogger(__name__)

Confine = Literal["auto", "always", "never"]

_POLL_S = 0.2
_TAIL_BYTES = 16_384  # of what a model prints
_MOST_READS = 64  # at a time: it may print faster than it is read
_LONGEST_ANSWER = 1_048_576
_KEPT_ENVIRONMENT = (
    *("PATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
)
_ERRORS: Mapping[str, type[ModelError]] = {
    error.__name__: error for error in (BundleError, ModelCrashed, ModelOutOfMemory, ModelInvalidOutput)
}


class ModelProcess:
    """A bundle, kept loaded in a child process between predictions; or a program that is run for each of them.

    The child starts with the first prediction and again after each one that ended it, as every prediction of a program
    does: nothing that it started outlives its answer. One prediction at a time; other threads wait. `close` may be
    called from any thread and ends a running prediction.

    Parameters
    ----------
    bundle_path : pathlib.Path
        The bundle's folder.
    device : str
        A torch device: ``cpu``, ``cuda:0``; ``auto`` is the GPU where there is one.
    memory_mib : int, optional
        Main memory that the child may fill, beyond what it shares with us. No limit without it.
    confine : {"auto", "always", "never"}
        Whether the child is shut in (`ai.confine`): where the system can, always (else nothing is run), or never.
    account : str
        Account of the system that the child takes on; ours without it. Only a node that runs as root can change it.
    changes : mapping of str to Any, optional
        Values in place of those of the bundle's inference configuration.
    amp : bool
        Whether a bundle is run with automatic mixed precision.
    windows : {"bundle", "auto"}
        How many sliding windows are computed at once: as the bundle says, or as the free memory takes.
    command : mapping of str to Any, optional
        How to call the program that is the model, as `ai.program.Program` takes it. A bundle has none.
    """

    def __init__(
        self,
        bundle_path: Path,
        *,
        device: str = "cpu",
        memory_mib: int | None = None,
        confine: Confine = "auto",
        account: str = "",
        changes: Mapping[str, Any] | None = None,
        amp: bool = False,
        windows: str = "bundle",
        command: Mapping[str, Any] | None = None,
    ) -> None:
        self._order: dict[str, Any] = {
            "bundle": str(bundle_path.resolve()),
            "device": device,
            "memory_mib": memory_mib,
            "confine": confine,
            "account": account,
            "changes": dict(changes or {}),
            "amp": amp,
            "windows": windows,
            "command": dict(command) if command is not None else None,
        }
        self._name = bundle_path.name
        self._child: _Child | None = None
        self._last_words = ""
        self._one_at_a_time = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None while there is none."""
        child = self._child
        return child.pid if child is not None and child.alive else None

    def predict(
        self,
        images: Images,
        *,
        timeout_s: float,
        cancelled: Callable[[], bool] = lambda: False,
        without: Collection[str] = (),
    ) -> Prediction:
        """Ask the model.

        Parameters
        ----------
        images : Volume, or mapping of str to Volume
            What to look at: several by their roles, for a model that needs them.
        timeout_s : float
            Seconds for everything, loading the model included.
        cancelled : callable
            Asked five times a second; when it says True the child is killed.
        without : collection of str
            Detections that the volume is not fit for: they are not run.

        Returns
        -------
        Prediction
            Everything on the grid of the first image.

        Raises
        ------
        ModelTimeout, ModelCancelled
            If the time ran out or the caller changed its mind. The child is dead.
        ModelCrashed, ModelOutOfMemory
            If the child died or its code failed. The next call starts a fresh one.
        ModelInvalidOutput
            If the answer cannot be used.
        BundleError
            If the bundle cannot be loaded; asking again does not help.
        """
        with self._one_at_a_time:
            wait = _Wait(time.monotonic() + timeout_s, timeout_s, cancelled, self._name)
            try:
                prediction = self._ask(images, wait, without)
            except ModelInvalidOutput as error:
                self._end_program()
                error.printed = self.printed
                raise  # the process is sound; only its answer was not
            except BaseException as error:
                self.close()
                if isinstance(error, ModelError):
                    error.printed = self.printed
                raise
            self._end_program()
            return replace(prediction, printed=self.printed)

    def close(self) -> None:
        """Kill the child, if there is one, with all it started."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            self._last_words = child.printed

    def _end_program(self) -> None:
        """End the process after the answer of a program; the next one need not ask for its version again."""
        if self._order["command"] is not None:
            self.close()
            self._order["command"]["version"] = ()

    @property
    def printed(self) -> str:
        """The last that the model printed during the prediction that runs, or that ran last."""
        child = self._child
        return self._last_words if child is None else child.printed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, images: Images, wait: _Wait, without: Collection[str]) -> Prediction:
        load_s = 0.0
        child = self._child
        if child is None or not child.alive:
            self.close()
            child = self._child = _Child(self._order, self._name)
            load_s = child.started(wait)
        else:
            child.forget_printed()
        given = {"": images} if isinstance(images, Volume) else images
        child.give([volume.array for volume in given.values()])
        child.say({"images": {role: _described(volume) for role, volume in given.items()}, "without": sorted(without)})
        answer = child.hear(wait)
        try:
            return prediction_of(answer, child.take, next(iter(given.values())).array.shape, load_s)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelCrashed(f"The process of model {self._name} sent an answer that makes no sense.") from error
        finally:
            child.forget_voxels()


class _Wait:
    """How long to wait for the child, and whether anybody still wants the answer."""

    def __init__(self, until: float, timeout_s: float, cancelled: Callable[[], bool], name: str) -> None:
        self._until, self._timeout_s, self._cancelled, self._name = until, timeout_s, cancelled, name

    def check(self) -> None:
        if self._cancelled():
            raise ModelCancelled(f"The model {self._name} was stopped because its answer is no longer wanted.")
        if time.monotonic() >= self._until:
            raise ModelTimeout(f"The model {self._name} gave no answer within {self._timeout_s:g} s and was stopped.")

    def left_s(self) -> float:
        return max(0.0, min(_POLL_S, self._until - time.monotonic()))


class _Child:
    """The child process: its socket, its two memory files, and the last it printed."""

    def __init__(self, order: Mapping[str, Any], name: str) -> None:
        self._name = name
        self._tail = b""
        self._killed = False
        self._oom_kills = _oom_kills()
        self._received = b""
        self._out = -1
        self._control, theirs = socket.socketpair()
        self._volume, self._labels = os.memfd_create("volume"), os.memfd_create("labels")
        self._scratch = _scratch(order["account"])
        descriptors = {"control": theirs.fileno(), "volume": self._volume, "labels": self._labels}
        line = json.dumps({**order, **descriptors, "scratch": str(self._scratch), "parent": os.getpid()})
        started: list[subprocess.Popen[bytes] | OSError] = []
        running = threading.Event()
        # Linux ends a child with PR_SET_PDEATHSIG when the *thread* that started it ends, so a thread stays for it.
        self._keeper = threading.Thread(
            target=self._keep, args=(line, tuple(descriptors.values()), started, running), name="model", daemon=True
        )
        self._keeper.start()
        running.wait()
        theirs.close()
        if isinstance(started[0], OSError):
            self._close_files()
            raise ModelCrashed(f"The process of model {name} could not be started: {started[0]}") from started[0]
        self._process = started[0]
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._out, False)

    @property
    def printed(self) -> str:
        """The last that it printed."""
        return self._tail.decode("utf-8", "replace").strip()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def started(self, wait: _Wait) -> float:
        """Wait until the bundle is loaded; return the seconds that it took."""
        said = self.hear(wait)
        if said["confined"]:
            _log.info("model %s is shut in: %s", self._name, ", ".join(map(str, said["confined"])))
        else:
            _log.warning("model %s is not shut in: %s", self._name, said["why_not"])
        return float(said["loaded_s"])

    def give(self, arrays: Sequence[NDArray[np.float32]]) -> None:
        """Lay the voxels where the child can see them, one image after the other."""
        os.ftruncate(self._volume, 4 * sum(array.size for array in arrays))
        offset = 0
        for array in arrays:
            voxels = np.ascontiguousarray(array, dtype=np.float32).data.cast("B")
            while voxels:
                written = os.pwrite(self._volume, voxels[: 1 << 26], offset)
                offset, voxels = offset + written, voxels[written:]

    def say(self, message: Mapping[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise self._death() from error

    def hear(self, wait: _Wait) -> dict[str, Any]:
        """The next line the child says, or the error that it says or is."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._out, selectors.EVENT_READ)
            while b"\n" not in self._received:
                wait.check()
                if self._killed:
                    raise self._death()
                for ready, _ in selector.select(wait.left_s()):
                    if ready.fileobj is self._control:
                        self._receive()
                    elif not self._read_printed():
                        selector.unregister(self._out)
        self._read_printed()
        line, _, self._received = self._received.partition(b"\n")
        try:
            message = json.loads(line)
            error = _ERRORS.get(message.get("error", ""), ModelCrashed) if "error" in message else None
        except (ValueError, AttributeError, TypeError) as failure:
            raise ModelCrashed(f"The process of model {self._name} sent an answer that makes no sense.") from failure
        if error is not None:
            self._log_tail()
            refusal = error(str(message.get("message", ""))[:500])
            refusal.steps_s = _seconds(message.get("steps_s"))
            raise refusal
        return dict(message)

    def take(self, count: int) -> NDArray[np.uint8]:
        """Copy `count` bytes of labels out. A copy: the child could still cut the file short under a mapping."""
        labels = np.empty(count, dtype=np.uint8)
        view = labels.data
        offset = 0
        while offset < count:
            read = os.preadv(self._labels, [view[offset:]], offset)
            if read == 0:
                raise ModelInvalidOutput(f"The model {self._name} gave fewer voxels than it was asked about.")
            offset += read
        return labels

    def forget_voxels(self) -> None:
        for descriptor in (self._volume, self._labels):
            os.ftruncate(descriptor, 0)

    def kill(self) -> None:
        self._killed = True
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self._process.kill()
        self._process.wait()
        self._keeper.join(timeout=5)
        self._read_printed()
        self._close_files()

    def forget_printed(self) -> None:
        self._read_printed()
        self._tail = b""

    def _read_printed(self) -> bool:
        """Take what is there of what it printed, or much of it; False when there will be no more."""
        try:
            for _ in range(_MOST_READS):
                if not (chunk := os.read(self._out, 65_536)):
                    return False
                self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def _receive(self) -> None:
        try:
            received = self._control.recv(65_536)
        except OSError:
            received = b""
        if not received:
            raise self._death()
        self._received += received
        if len(self._received) > _LONGEST_ANSWER:
            raise ModelCrashed(f"The process of model {self._name} talks without end.")

    def _death(self) -> ModelError:
        """What ended the child, as an error to raise."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return ModelCrashed(f"The process of model {self._name} closed its connection.")
        if self._killed:
            return ModelCancelled(f"The model {self._name} was stopped.")
        self._read_printed()
        self._log_tail()
        if code == -signal.SIGKILL and _oom_kills() > self._oom_kills:
            return ModelOutOfMemory(f"The machine ran out of memory and ended the process of model {self._name}.")
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        return ModelCrashed(f"The model {self._name} crashed: its process {how}.")

    def _log_tail(self) -> None:
        if self._tail:
            _log.warning("model %s printed last: %s", self._name, self.printed)

    def _keep(
        self,
        order: str,
        descriptors: tuple[int, ...],
        started: list[subprocess.Popen[bytes] | OSError],
        running: threading.Event,
    ) -> None:
        """Start the child, and stay until it is gone."""
        home = str(Path(__file__).resolve().parent.parent)
        environment = {key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ}
        try:
            process = subprocess.Popen(
                [sys.executable, "-B", "-P", "-m", "ai.child", order],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                env={**environment, "PYTHONPATH": home, "HOME": str(self._scratch), "TMPDIR": str(self._scratch)},
                start_new_session=True,  # a group of its own, so that what the model starts dies with it
            )
        except OSError as error:
            started.append(error)
            return
        else:
            started.append(process)
        finally:
            running.set()
        process.wait()

    def _close_files(self) -> None:
        self._control.close()
        if self._out >= 0 and self._process.stdout is not None:
            self._process.stdout.close()
        for descriptor in (self._volume, self._labels):
            os.close(descriptor)
        shutil.rmtree(self._scratch, ignore_errors=True)


def _described(volume: Volume) -> dict[str, Any]:
    affine = [float(value) for value in volume.affine.ravel()]
    shape = list(volume.array.shape)
    return {"shape": shape, "affine": affine, "modality": volume.modality, "is_single": volume.is_single}


def _scratch(account: str) -> Path:
    """Make the only folder that a child may write into; it goes with the child."""
    folder = Path(tempfile.mkdtemp(prefix="dicom-node-model-"))
    if account and os.getuid() == 0:
        with contextlib.suppress(KeyError):  # the child says it better
            entry = pwd.getpwnam(account)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
    return folder


def _seconds(steps: Any) -> dict[str, float]:
    """Read the steps of an answer that there was none of; they are told as far as they can be read."""
    if not isinstance(steps, Mapping):
        return {}
    return {str(step): float(took) for step, took in steps.items() if isinstance(took, int | float)}


def _oom_kills() -> int:
    """How often Linux has ended a process for want of memory since it booted."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
