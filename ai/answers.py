"""What the process of a model does once it is shut in: it loads the model, then answers one request after another."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from ai.contract import (
    Images,
    LabelMap,
    ModelCrashed,
    ModelError,
    ModelOutOfMemory,
    Prediction,
    Registration,
    Volume,
)
from ai.device import device_of


class _Model(Protocol):
    """What answers: a bundle, or a program."""

    def predict(self, images: Images, without: Collection[str] = ()) -> Prediction:
        """Answer about one volume."""


def serve(order: Mapping[str, Any], lines: TextIO, start: Mapping[str, Any]) -> None:
    """Load a model, say so, and answer until there is no more to read.

    Parameters
    ----------
    order : mapping
        As `ai.process` gives it.
    lines : io.TextIOWrapper
        Requests are read from it, and answers written to it.
    start : mapping
        What else to say once the model is loaded.
    """
    started = time.perf_counter()
    try:
        model = _load(order)
    except ModelError as error:
        _say(lines, _refusal(error))
        return
    _say(lines, {**start, "loaded_s": time.perf_counter() - started})
    for line in lines:
        _say(lines, _answer(model, json.loads(line), order))


def _load(order: Mapping[str, Any]) -> _Model:
    folder, command = Path(order["bundle"]), order["command"]
    try:
        if command is not None:
            from ai.program import Program

            return Program.load(folder, command, order["device"], order["memory_mib"])
        from ai.bundle import Bundle  # here, not above: what cannot be imported is told to the parent

        return Bundle.load(
            folder, device_of(order["device"]), order["changes"], amp=order["amp"], fit=order["windows"] == "auto"
        )
    except MemoryError as error:
        raise ModelOutOfMemory("The model could not be loaded in the memory it may have.") from error
    except ImportError as error:
        if "failed to map" in str(error) or "allocate memory" in str(error):
            raise ModelOutOfMemory("The model could not be loaded in the memory it may have.") from error
        raise ModelCrashed(f"The model's process cannot import what it needs: {error}") from error


def _answer(model: _Model, request: Mapping[str, Any], order: Mapping[str, Any]) -> dict[str, Any]:
    try:
        images = _take_images(request["images"], order["volume"])
        prediction = model.predict(images, without=request["without"])
    except ModelError as error:
        return _refusal(error)
    _give_maps(prediction, order["labels"])
    return {
        "label_maps": [_names(label_map) for label_map in prediction.label_maps],
        "detections": [asdict(detection) for detection in prediction.detections],
        "instances": prediction.instances is not None,
        "saliency": prediction.saliency is not None,
        "probabilities": list(prediction.probabilities),
        "classes": prediction.classes,
        "values": prediction.values,
        "points": [asdict(point) for point in prediction.points],
        "registration": _described(prediction.registration),
        "images": list(prediction.images),
        "steps_s": dict(prediction.steps_s),
        "device": prediction.device,
        "memory_mib": prediction.memory_mib or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "gpu_memory_mib": prediction.gpu_memory_mib,
    }


def _take_images(described: Mapping[str, Mapping[str, Any]], descriptor: int) -> Images:
    """Copy the images out, which lie one after the other."""
    images, offset = {}, 0
    for role, said in described.items():
        count = int(np.prod(said["shape"]))
        array = np.empty(count, dtype=np.float32)
        _read_into(array, descriptor, offset)
        affine = np.array(said["affine"], dtype=np.float64).reshape(4, 4)
        images[role] = Volume(array.reshape(said["shape"]), affine, said["modality"], said["is_single"])
        offset += 4 * count
    return images[""] if list(images) == [""] else images


def _read_into(array: NDArray[np.float32], descriptor: int, offset: int) -> None:
    left = array.data.cast("B")
    while left:
        read = os.preadv(descriptor, [left[: 1 << 26]], offset)
        if not read:
            raise ModelCrashed("The images that the model was to look at are not all there.")
        offset, left = offset + read, left[read:]


def _give_maps(prediction: Prediction, descriptor: int) -> None:
    """Lay down vectors and images, then label maps, instances, saliency, probabilities: a byte for each voxel."""
    os.ftruncate(descriptor, 0)
    offset = 0
    vectors = None if prediction.registration is None else prediction.registration.vectors
    maps = [*(label_map.array for label_map in prediction.label_maps), prediction.instances, prediction.saliency]
    for array in (vectors, *prediction.images.values(), *maps, *prediction.probabilities.values()):
        voxels = memoryview(b"") if array is None else np.ascontiguousarray(array).data.cast("B")
        while voxels:
            written = os.pwrite(descriptor, voxels, offset)
            offset, voxels = offset + written, voxels[written:]


def _described(registration: Registration | None) -> dict[str, Any] | None:
    if registration is None:
        return None
    vectors, affine = registration.vectors, registration.affine
    shape = [] if vectors is None else list(vectors.shape[:3])
    own = [] if affine is None else affine.ravel().tolist()
    return {"shape": shape, "affine": own, "matrix": registration.matrix.ravel().tolist()}


def _names(label_map: LabelMap) -> dict[str, str]:
    return {str(value): name for value, name in label_map.names.items()}


def _refusal(error: ModelError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": str(error), "steps_s": dict(error.steps_s)}


def _say(lines: TextIO, message: Mapping[str, Any]) -> None:
    sys.stdout.flush()  # what the model printed comes before its answer
    lines.write(json.dumps(message) + "\n")
    lines.flush()
