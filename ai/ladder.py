"""What is tried when a model asks for more memory than the GPU has, step by step, before the attempt is given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

_CPU = torch.device("cpu")


def climb(
    ask: Callable[[torch.device], Any],
    inferer: Any,
    network: torch.nn.Module,
    device: torch.device,
    told: Callable[[str], None],
) -> Any:
    """Ask a model; where memory runs out, ask again with less: one window at a time, stitched on the CPU, on the CPU.

    What made it fit stays for the next time, but for the last step: the network goes back to where it was.

    Parameters
    ----------
    ask : callable
        Given where the image is to be put, calls the inferer.
    inferer : object
        The bundle's own; `sw_batch_size` and `device` are those of MONAI's sliding windows.
    told : callable
        Called with each try that failed, in words.

    Raises
    ------
    torch.OutOfMemoryError
        If even the last step does not fit, or there is none.
    """
    steps = _steps(inferer, network, device)
    what, where = "all at once", device
    try:
        while True:
            try:
                return ask(where)
            except torch.OutOfMemoryError:
                told(f"out of memory, {what}")
                if (step := next(steps, None)) is None:
                    raise
                what, where = step
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    finally:
        if where != device:
            network.to(device)


def _steps(inferer: Any, network: torch.nn.Module, device: torch.device) -> Iterator[tuple[str, torch.device]]:
    """Make each change, and say what it is and where the image goes."""
    batch = getattr(inferer, "sw_batch_size", 1)
    if isinstance(batch, int) and batch > 1:
        inferer.sw_batch_size = 1
        yield "one window at a time", device
    if hasattr(inferer, "roi_size") and getattr(inferer, "device", _CPU) not in (_CPU, "cpu"):
        inferer.device = _CPU
        yield "stitched on the CPU", device
    if device.type != "cpu":
        network.to(_CPU)
        yield "on the CPU", _CPU
