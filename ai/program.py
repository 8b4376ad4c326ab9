"""Runs a program outside of the node as a model: an image in, label maps out.

It runs in the process of a model, as bundles do: shut in, within its limits, in the group that is killed once it has
answered. What it wrote is read here, too, where a file that is made to harm its reader harms nothing.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ai.contract import (
    BundleError,
    Images,
    LabelMap,
    ModelCrashed,
    ModelOutOfMemory,
    Prediction,
    Volume,
)
from ai.dicom_folder import write_folder
from ai.label_files import read_labels, read_structures

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_LABELS = "labels.nii.gz"
_WATCH_S = 0.25
_NOT_FOUND = "The program {} of {} cannot be started: {}."


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is ready to be asked.

    Parameters
    ----------
    folder : pathlib.Path
        The model's folder: ``{model}``.
    command : mapping
        As the card says it: ``argv``, ``input``, ``labels`` or ``structures``, ``version``, ``says``, ``devices``,
        ``environment``.
    device : str
        ``cpu``, ``cuda:0``; ``auto`` is the GPU where there is one.
    memory_mib : int, optional
        What all its processes together may fill.
    """

    folder: Path
    command: Mapping[str, Any]
    device: str
    memory_mib: int | None = None

    @classmethod
    def load(cls, folder: Path, command: Mapping[str, Any], device: str, memory_mib: int | None) -> Program:
        """Ask the program for its version, where the card says how.

        Raises
        ------
        BundleError
            If it cannot be started, or is another version than the card says.
        """
        if device == "auto":
            device = "cuda" if any(Path("/dev").glob("nvidia[0-9]*")) else "cpu"
        program = cls(folder, command, device, memory_mib)
        if command["version"]:
            program._check_version()
        return program

    def predict(self, images: Images, without: Collection[str] = ()) -> Prediction:
        """Run the program once.

        Parameters
        ----------
        images : Volume
            Any orientation.
        without : collection of str
            Has to be empty: a program finds nothing one by one.

        Returns
        -------
        Prediction
            On the grid of the image, wherever the program's own grid lies over it.

        Raises
        ------
        BundleError
            If it cannot be started, or is given several images.
        ModelCrashed, ModelOutOfMemory
            If it ends with another exit status than 0, or takes more memory than it may.
        ModelInvalidOutput
            If it writes no label map, one on another place, or labels without a name.
        """
        if not isinstance(images, Volume):
            raise BundleError(f"The program of {self.folder.name} takes one image; it was given {', '.join(images)}.")
        laps = [time.perf_counter()]
        with tempfile.TemporaryDirectory() as scratch:
            source, target = self._places(Path(scratch))
            if self.command["input"] == "dicom":
                write_folder(images, source)
            else:
                from ai.data.nifti import write_nifti

                write_nifti(images.array, images.affine, source)
            laps.append(time.perf_counter())
            used_mib = self._run(self.command["argv"], {"input": str(source), "output": str(target)})
            laps.append(time.perf_counter())
            maps = self._read(target, images)
            laps.append(time.perf_counter())
        steps = dict(zip(("preprocess", "infer", "postprocess"), np.diff(laps).tolist(), strict=True))
        return Prediction(maps, steps, self.device, memory_mib=used_mib)

    def _places(self, scratch: Path) -> tuple[Path, Path]:
        """Where the program finds its image, and where it is to put its answer."""
        (scratch / "in").mkdir()
        (scratch / "out").mkdir()
        source = scratch / "in" if self.command["input"] == "dicom" else scratch / "in" / "image.nii.gz"
        return source, scratch / "out" / _LABELS if self.command["labels"] else scratch / "out"

    def _read(self, target: Path, image: Volume) -> tuple[LabelMap, ...]:
        if self.command["labels"]:
            return read_labels(target, {int(value): name for value, name in self.command["labels"].items()}, image)
        return read_structures(target, self.command["structures"], image)

    def _check_version(self) -> None:
        try:
            done = subprocess.run(
                self._words(self.command["version"], {}),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except OSError as error:
            raise self._unstartable(self.command["version"], error) from error
        said = done.stdout.decode("utf-8", "replace").strip()
        if not re.search(rf"(?<![\w.]){re.escape(self.command['says'])}(?![\w.])", said):
            raise BundleError(
                f"The program of {self.folder.name} says that it is {said[-80:] or 'nothing'!r}; its card says version "
                f"{self.command['says']}."
            )

    def _run(self, argv: Collection[str], values: Mapping[str, str]) -> int:
        """Run it to its end; return the most memory that was seen in use, in MiB."""
        most_mib = 0
        try:
            process = subprocess.Popen(
                self._words(argv, values), env=self._environment(), stdin=subprocess.DEVNULL, cwd=tempfile.gettempdir()
            )
        except OSError as error:
            raise self._unstartable(argv, error) from error
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_WATCH_S)
            most_mib = max(most_mib, group_memory_mib() if process.returncode is None else 0)
            if self.memory_mib is not None and most_mib > self.memory_mib:
                process.kill()
                raise ModelOutOfMemory(f"The program of {self.folder.name} took more than {self.memory_mib} MiB.")
        if process.returncode:
            how = f"ended with exit status {process.returncode}"
            if process.returncode < 0:
                how = f"was ended by {signal.Signals(-process.returncode).name}"
            raise ModelCrashed(f"The program of {self.folder.name} {how}.")
        return max(most_mib, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)

    def _words(self, argv: Collection[str], values: Mapping[str, str]) -> list[str]:
        known = {"model": str(self.folder), "python": sys.executable, "device": self._device_word(), **values}
        known["home"] = str(Path.home())
        return [_PLACEHOLDER.sub(lambda found: known.get(found[1], found[0]), word) for word in argv]

    def _device_word(self) -> str:
        """The program's own word for the device: ``gpu:1`` for ``cuda:1``, where the card calls ``cuda`` ``gpu``."""
        words = self.command["devices"]
        kind, colon, number = self.device.partition(":")
        return str(words.get(self.device, words.get(kind, kind) + colon + number))

    def _environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        added = self.command["environment"]
        return {**ours, **dict(zip(added, self._words(added.values(), {}), strict=True))}

    def _unstartable(self, argv: Collection[str], error: OSError) -> BundleError:
        return BundleError(_NOT_FOUND.format(next(iter(argv)), self.folder.name, error.strerror or error))


def group_memory_mib() -> int:
    """Memory that all processes of this process's group hold for themselves, each shared page counted once, in MiB."""
    return sum(_held_kib(folder) for folder in _group()) // 1024


def _held_kib(process: Path) -> int:
    with suppress(OSError, ValueError):
        lines = (process / "smaps_rollup").read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return 0


def _group() -> list[Path]:
    """The folders in /proc of the processes of this process's group."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, IndexError, ValueError):
            if folder.name.isdigit() and int(_status(folder)[2]) == os.getpgrp():
                found.append(folder)
    return found


def _status(process: Path) -> list[str]:
    """State, parent, group, … of a process (proc_pid_stat(5)), after its name, which may hold anything."""
    return (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
