"""What the driver says of the GPUs of this machine, by its own tool; nothing where there is none."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

_ASKED = "index,name,memory.used,memory.total,utilization.gpu"
_TIMEOUT_S = 5.0
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. `utilization` is from 0 to 1."""

    index: str
    name: str
    used_bytes: int
    total_bytes: int
    utilization: float


def read_gpus() -> list[Gpu]:
    """Ask ``nvidia-smi``; an empty list when there is none or it has no answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={_ASKED}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [gpu for line in said.splitlines() if (gpu := parse(line)) is not None]


def parse(line: str) -> Gpu | None:
    """Read one line; None for what is no GPU with memory of its own (``[N/A]``)."""
    words = [word.strip() for word in line.split(",")]
    try:
        index, name, used, total, busy = words
        return Gpu(index, name, int(used) * _MIB, int(total) * _MIB, float(busy) / 100)
    except ValueError:
        return None
