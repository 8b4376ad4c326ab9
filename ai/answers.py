"""What the process of a model does once it is shut in: it loads the bundle, then answers one request after another."""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from ai.contract import LabelMap, ModelCrashed, ModelError, ModelOutOfMemory, Prediction, Volume

if TYPE_CHECKING:
    from ai.bundle import Bundle


def serve(order: Mapping[str, Any], lines: TextIO, start: Mapping[str, Any]) -> None:
    """Load a bundle, say so, and answer until there is no more to read.

    Parameters
    ----------
    order : mapping
        As `ai.process` gives it.
    lines : io.TextIOWrapper
        Requests are read from it, and answers written to it.
    start : mapping
        What else to say once the bundle is loaded.
    """
    started = time.perf_counter()
    try:
        bundle = _load(order)
    except ModelError as error:
        _say(lines, _refusal(error))
        return
    _say(lines, {**start, "loaded_s": time.perf_counter() - started})
    for line in lines:
        _say(lines, _answer(bundle, json.loads(line), order))


def _load(order: Mapping[str, Any]) -> Bundle:
    try:
        from ai.bundle import Bundle  # here, not above: what cannot be imported is told to the parent

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
        "probabilities": list(prediction.probabilities),
        "steps_s": dict(prediction.steps_s),
        "device": prediction.device,
    }


def _take_volume(request: Mapping[str, Any], descriptor: int) -> Volume:
    shape = tuple(request["shape"])
    with mmap.mmap(descriptor, int(np.prod(shape)) * 4, prot=mmap.PROT_READ) as view:
        array = np.frombuffer(view, dtype=np.float32).reshape(shape).copy()
    return Volume(array, np.array(request["affine"], dtype=np.float64).reshape(4, 4), request["modality"])


def _give_maps(prediction: Prediction, descriptor: int) -> None:
    """Lay down label maps, instances, saliency, then the probabilities: a byte for each voxel of each."""
    os.ftruncate(descriptor, 0)
    offset = 0
    maps = [*(label_map.array for label_map in prediction.label_maps), prediction.instances, prediction.saliency]
    for array in (*maps, *prediction.probabilities.values()):
        voxels = memoryview(b"") if array is None else np.ascontiguousarray(array).data.cast("B")
        while voxels:
            written = os.pwrite(descriptor, voxels, offset)
            offset, voxels = offset + written, voxels[written:]


def _names(label_map: LabelMap) -> dict[str, str]:
    return {str(value): name for value, name in label_map.names.items()}


def _refusal(error: ModelError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": str(error)}


def _say(lines: TextIO, message: Mapping[str, Any]) -> None:
    lines.write(json.dumps(message) + "\n")
    lines.flush()
