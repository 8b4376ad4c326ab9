"""What a model's process answered, checked: it is trusted less than we are, so nothing of it is taken unseen.

Numbers are finite, scores are probabilities, label maps hold named values alone, arrays are as large as what was asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai.contract import Detection, Index, LabelMap, Landmark, ModelInvalidOutput, Prediction, Registration
from ai.outputs import values_in

MOST_VECTORS = 2**25  # 400 MB of an object
MOST_IMAGES = 16
_AXES, _FLAT = 3, 1e-9


def prediction_of(
    answer: Mapping[str, Any], take: Callable[[int], NDArray[np.uint8]], shape: tuple[int, ...], load_s: float
) -> Prediction:
    """Check what a model's process said against what it was asked.

    Parameters
    ----------
    answer : mapping
        Its words, decoded from JSON.
    take : callable
        Gives so many bytes of the arrays that it wrote beside them.
    shape : (int, int, int)
        Of the volume that it was given.
    load_s : float
        How long the model took to load.

    Returns
    -------
    Prediction

    Raises
    ------
    ModelInvalidOutput
        If it says what no model may say.
    """
    named = [{int(value): str(name) for value, name in names.items()} for names in answer["label_maps"]]
    found = tuple(_detection(entry) for entry in answer["detections"])
    extra = [bool(answer[name]) for name in ("instances", "saliency")]
    likely = [str(name) for name in answer["probabilities"]]
    field, pictured = _field_size(answer["registration"]), [str(name) for name in answer["images"]]
    wide = field + 4 * int(np.prod(shape)) * len(pictured)
    if len(pictured) > MOST_IMAGES:
        raise ModelInvalidOutput(f"The model answers with {len(pictured)} images; at most {MOST_IMAGES} are sent.")
    given = take(wide + int(np.prod(shape)) * (len(named) + sum(extra) + len(likely)))
    registration = _registration(answer["registration"], given[:field])
    images = _images(pictured, given[field:wide].view(np.float32).reshape(-1, *shape))
    arrays = list(given[wide:].reshape(-1, *shape))
    maps = [LabelMap(_checked(arrays.pop(0), set(names)), names) for names in named]
    instances = _checked(arrays.pop(0), set(range(1, len(found) + 1))) if extra[0] else None
    saliency = arrays.pop(0) if extra[1] else None
    probabilities = dict(zip(likely, arrays, strict=True))
    steps_s = {"load": load_s, **{str(step): float(seconds) for step, seconds in answer["steps_s"].items()}}
    classes = {str(question): _shares(answers) for question, answers in answer["classes"].items()}
    values = {str(name): float(value) for name, value in answer["values"].items()}
    if not all(map(math.isfinite, values.values())):
        raise ModelInvalidOutput("The model gave a number that is none.")
    device, memory = str(answer["device"]), (int(answer["memory_mib"]), int(answer["gpu_memory_mib"]))
    points = tuple(_landmark(entry) for entry in answer["points"])
    said = (found, instances, saliency, probabilities, classes, values, *memory)
    return Prediction(tuple(maps), steps_s, device, *said, points=points, registration=registration, images=images)


def _detection(entry: Mapping[str, Any]) -> Detection:
    score = float(entry["score"])
    if not 0 <= score <= 1:
        raise ModelInvalidOutput("The model gave a detection a score that is no probability.")
    classes = {str(question): _shares(answers) for question, answers in entry["classes"].items()}
    return Detection(str(entry["output"]), score, classes, bool(entry["outlined"]), _box(entry["box"]))


def _box(corners: Any) -> tuple[Index, Index] | None:
    if corners is None:
        return None
    low, high = ((float(k), float(j), float(i)) for k, j, i in corners)
    if not all(map(math.isfinite, (*low, *high))):
        raise ModelInvalidOutput("The model drew a box that lies nowhere.")
    return low, high


def _landmark(entry: Mapping[str, Any]) -> Landmark:
    k, j, i = (float(index) for index in entry["at"])
    if not all(map(math.isfinite, (k, j, i))):
        raise ModelInvalidOutput("The model gave a point that lies nowhere.")
    return Landmark(str(entry["output"]), (k, j, i))


def _field_size(entry: Mapping[str, Any] | None) -> int:
    """How many bytes the vectors of a registration have."""
    if entry is None or not entry["shape"]:
        return 0
    points = math.prod(int(size) for size in entry["shape"])
    if len(entry["shape"]) != _AXES or not 0 < points <= MOST_VECTORS:
        raise ModelInvalidOutput(
            f"The model's displacement field has {points:,} vectors; at most {MOST_VECTORS:,} are sent: let the bundle "
            "answer on a coarser grid."
        )
    return 4 * _AXES * points


def _registration(entry: Mapping[str, Any] | None, given: NDArray[np.uint8]) -> Registration | None:
    if entry is None:
        return None
    matrix = _square(entry["matrix"])
    if not given.size:
        return Registration(matrix=matrix)
    vectors = given.view(np.float32).reshape(*map(int, entry["shape"]), _AXES)
    if not np.isfinite(vectors).all():
        raise ModelInvalidOutput("The model gave a displacement that is no number.")
    return Registration(vectors, _square(entry["affine"]), matrix)


def _images(names: Sequence[str], arrays: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    if not np.isfinite(arrays).all():
        raise ModelInvalidOutput("The model gave an image with a value that is no number.")
    return dict(zip(names, arrays, strict=True))


def _square(numbers: Any) -> NDArray[np.float64]:
    """Read a matrix that maps places to places."""
    matrix = np.array([float(number) for number in numbers]).reshape(4, 4)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < _FLAT:
        raise ModelInvalidOutput("The model gave a matrix that maps nowhere.")
    return matrix


def _shares(answers: Mapping[str, Any]) -> dict[str, float]:
    shares = {str(name): float(share) for name, share in answers.items()}
    if not all(0 <= share <= 1 for share in shares.values()):
        raise ModelInvalidOutput("The model gave an answer a score that is no probability.")
    return shares


def _checked(labels: NDArray[np.uint8], known: set[int]) -> NDArray[np.uint8]:
    if not values_in(labels) <= {0, *known}:
        raise ModelInvalidOutput("The model's labels hold values that it gave no name.")
    return labels
