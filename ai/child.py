"""The process that a model lives in: ``python -m ai.child``, started by `ai.process` and by nothing else.

Requests come and answers go as lines of JSON on one socket; voxels lie in two anonymous memory files that the parent
opened and handed over. Whatever the model prints goes to the parent's log, never into that conversation.

Limits first: this module imports nothing that starts a thread or reads a bundle before the process is shut in.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from ai.confine import ConfinementError, become, confine

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve one model until the parent closes the socket or dies."""
    order = json.loads(sys.argv[1])
    with socket.socket(fileno=order["control"]) as control, control.makefile("rw", encoding="utf-8") as lines:
        try:
            start = _shut_in(order)
            from ai.answers import serve  # here, not above: numpy and torch come only after the limits are set
        except ConfinementError as error:
            _refuse(lines, "BundleError", f"No model was loaded: {error}.")
        except MemoryError:
            _refuse(lines, "ModelOutOfMemory", "The model could not be loaded in the memory it may have.")
        except ImportError as error:
            _refuse(lines, "ModelCrashed", f"The model's process cannot import what it needs: {error}")
        else:
            serve(order, lines, start)


def _refuse(lines: TextIO, error: str, message: str) -> None:
    lines.write(json.dumps({"error": error, "message": message}) + "\n")


def _shut_in(order: Mapping[str, Any]) -> dict[str, Any]:
    """Set every limit; return which mechanisms are in force, or why none is."""
    _offer_to_die_first()
    if order["account"]:
        become(order["account"])
    _die_with(order["parent"], whole_group=order["command"] is not None)
    _limit_memory(order["memory_mib"])
    if order["confine"] == "never":
        return {"confined": [], "why_not": "switched off"}
    command = order["command"] or {"reads": (), "parallel": False}
    if order["command"] is None and ("cuda" in order["device"] or order["device"] == "auto"):
        _wake_gpu(order["device"])
    readable = [Path(order["bundle"]), *map(Path, command["reads"])]
    may = {"may_start": order["command"] is not None, "may_share": command["parallel"]}
    try:
        return {"confined": confine(readable, [Path(order["scratch"])], **may), "why_not": ""}
    except ConfinementError as error:
        if order["confine"] == "always":
            raise
        return {"confined": [], "why_not": str(error)}


def _offer_to_die_first() -> None:
    """If the machine runs out of memory, let it take us, not the node."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")


def _die_with(parent: int, *, whole_group: bool) -> None:
    """Ask Linux for a signal when the parent dies, however it dies: no model outlives its worker.

    That goes to this process alone; where it has started others, it takes them with it.
    """
    wanted = signal.SIGKILL
    if whole_group:
        wanted = signal.SIGTERM
        signal.signal(signal.SIGTERM, lambda number, frame: os.killpg(0, signal.SIGKILL))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, wanted, 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(1)


def _limit_memory(memory_mib: int | None) -> None:
    """Bound the memory this process may write to.

    RLIMIT_DATA counts private writable memory. RLIMIT_AS would also count address space that torch and CUDA reserve
    and never touch.
    """
    if memory_mib is not None:
        limit = memory_mib * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _wake_gpu(device: str) -> None:
    """Let the driver open what it needs, before nothing more can be opened."""
    if not Path("/dev/nvidiactl").exists():
        return
    import torch

    if torch.cuda.is_available():
        torch.zeros(1, device="cuda" if device == "auto" else device)


if __name__ == "__main__":
    main()
