"""The process that a model lives in: ``python -m ai.child``, started by `ai.process` and by nothing else.

Requests come and answers go as lines of JSON on one socket; voxels lie in two anonymous memory files that the parent
opened and handed over. Whatever the model prints goes to the parent's log, never into that conversation.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ai.contract import LabelMap, ModelCrashed, ModelError, ModelOutOfMemory, Prediction, Volume

if TYPE_CHECKING:
    from ai.bundle import Bundle

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve one bundle until the parent closes the socket or dies."""
    order = json.loads(sys.argv[1])
    _die_with(order["parent"])
    _limit_memory(order["memory_mib"])
    with socket.socket(fileno=order["control"]) as control, control.makefile("rw", encoding="utf-8") as lines:
        started = time.perf_counter()
        try:
            bundle = _load(order)
        except ModelError as error:
            _say(lines, _refusal(error))
            return
        _say(lines, {"loaded_s": time.perf_counter() - started})
        for line in lines:
            _say(lines, _answer(bundle, json.loads(line), order))


def _die_with(parent: int) -> None:
    """Ask Linux for SIGKILL when the parent dies, however it dies: no model outlives its worker."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(1)


def _limit_memory(memory_mib: int | None) -> None:
    """Bound the memory this process may write to; and if the machine itself runs out, let it take us, not the node.

    RLIMIT_DATA counts private writable memory. RLIMIT_AS would also count address space that torch and CUDA reserve
    and never touch.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    if memory_mib is not None:
        limit = memory_mib * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _load(order: Mapping[str, Any]) -> Bundle:
    try:
        from ai.bundle import Bundle  # here, not above: torch comes only after the limits are set

        return Bundle.load(Path(order["bundle"]), _device(order["device"]))
    except MemoryError as error:
        raise ModelOutOfMemory("The model could not be loaded in the memory it may have.") from error
    except ImportError as error:
        if "failed to map" in str(error) or "allocate memory" in str(error):
            raise ModelOutOfMemory("The model could not be loaded in the memory it may have.") from error
        raise ModelCrashed(f"The model's process cannot import what it needs: {error}") from error


def _device(wanted: str) -> str:
    """Name the device to compute on: ``auto`` is the GPU where there is one."""
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _answer(bundle: Bundle, request: Mapping[str, Any], order: Mapping[str, Any]) -> dict[str, Any]:
    try:
        volume = _take_volume(request, order["volume"])
        prediction = bundle.predict(volume, without=request["without"])
    except ModelError as error:
        return _refusal(error)
    _give_maps(prediction, order["labels"])
    return {
        "label_maps": [_names(label_map) for label_map in prediction.label_maps],
        "detections": [asdict(detection) for detection in prediction.detections],
        "instances": prediction.instances is not None,
        "saliency": prediction.saliency is not None,
        "steps_s": dict(prediction.steps_s),
        "device": prediction.device,
    }


def _take_volume(request: Mapping[str, Any], descriptor: int) -> Volume:
    shape = tuple(request["shape"])
    with mmap.mmap(descriptor, int(np.prod(shape)) * 4, prot=mmap.PROT_READ) as view:
        array = np.frombuffer(view, dtype=np.float32).reshape(shape).copy()
    return Volume(array, np.array(request["affine"], dtype=np.float64).reshape(4, 4), request["modality"])


def _give_maps(prediction: Prediction, descriptor: int) -> None:
    """Lay down the label maps, then the instances, then the saliency: a byte for each voxel of each."""
    os.ftruncate(descriptor, 0)
    offset = 0
    maps = [*(label_map.array for label_map in prediction.label_maps), prediction.instances, prediction.saliency]
    for array in maps:
        voxels = memoryview(b"") if array is None else np.ascontiguousarray(array).data.cast("B")
        while voxels:
            written = os.pwrite(descriptor, voxels, offset)
            offset, voxels = offset + written, voxels[written:]


def _names(label_map: LabelMap) -> dict[str, str]:
    return {str(value): name for value, name in label_map.names.items()}


def _refusal(error: ModelError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": str(error)}


def _say(lines: Any, message: Mapping[str, Any]) -> None:
    lines.write(json.dumps(message) + "\n")
    lines.flush()


if __name__ == "__main__":
    main()
