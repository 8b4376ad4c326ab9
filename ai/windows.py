"""How many sliding windows are computed at once: as many as the free memory takes."""

from __future__ import annotations

import os
import resource
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch

_SHARE = 0.5  # of what is free: the stitched answer and what the allocator loses need room, too
_MOST = 32


def fit_windows(inferer: Any, network: torch.nn.Module, image: torch.Tensor, free_bytes: int) -> int | None:
    """Set `sw_batch_size` of a sliding-window inferer by the memory that there is.

    What one window takes is found by computing one: everything that the parts of the network give, as if all of it had
    to be kept at the same time. It is less in truth, so the batch is never too large by that.

    Parameters
    ----------
    inferer : object
        The bundle's own. One that has no `roi_size` and `sw_batch_size` as whole numbers stays as it is.
    image : torch.Tensor, shape (1, channels, …)
        What it is to be asked about.
    free_bytes : int
        On the device of the network.

    Returns
    -------
    int or None
        The number of windows; None where it was left alone.
    """
    size = getattr(inferer, "roi_size", None)
    if not isinstance(getattr(inferer, "sw_batch_size", None), int) or size is None:
        return None
    whole = tuple(image.shape[2:])
    sizes = [size] * len(whole) if isinstance(size, int) else list(size)
    window = tuple(wanted if wanted and wanted > 0 else full for wanted, full in zip(sizes, whole, strict=True))
    each = _bytes_of_one(network, image.new_zeros((1, image.shape[1], *window)))
    if not each:
        return None
    windows = prod(ceil(2 * full / wanted) for full, wanted in zip(whole, window, strict=True))
    inferer.sw_batch_size = max(1, min(int(_SHARE * free_bytes / each), windows, _MOST))
    return int(inferer.sw_batch_size)


def free_bytes(device: torch.device) -> int:
    """Memory that this process can still take on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    left = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit != resource.RLIM_INFINITY:
        left = min(left, limit - _data_bytes())
    return max(0, left)


def _data_bytes() -> int:
    """What counts against RLIMIT_DATA (proc_pid_statm(5): data and stack, in pages)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * os.sysconf("SC_PAGE_SIZE")


def _bytes_of_one(network: torch.nn.Module, window: torch.Tensor) -> int:
    taken = window.nbytes

    def count(module: torch.nn.Module, given: Any, output: Any) -> None:
        nonlocal taken
        if isinstance(output, torch.Tensor):
            taken += output.nbytes

    if isinstance(network, torch.jit.ScriptModule):
        return 0  # its parts cannot be watched
    parts = [part for part in network.modules() if not list(part.children())]
    hooks = [part.register_forward_hook(count) for part in parts]
    try:
        network(window)
    finally:
        for hook in hooks:
            hook.remove()
    return taken if len(parts) > 1 else 0
