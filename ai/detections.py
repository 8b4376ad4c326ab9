"""What a bundle detects one by one: read from its post-processed output, checked, brought to the grid of the source."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy import ndimage

from ai.contract import Detection, ModelInvalidOutput
from ai.regrid import to_grid

_FORMAT = "instances"
MOST = 255
_Grid = tuple[NDArray[np.float64], tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """Detections, surest first, and their maps on the grid of the source: uint8, shape (columns, rows, slices)."""

    found: tuple[Detection, ...] = ()
    instances: NDArray[np.uint8] | None = None
    saliency: NDArray[np.uint8] | None = None


def instances_key(metadata: Mapping[str, Any]) -> str | None:
    """Name of the output with the format ``instances`` in a bundle's metadata; None where there is none."""
    outputs = metadata.get("network_data_format", {}).get("outputs", {})
    named = (key for key, value in outputs.items() if isinstance(value, Mapping) and value.get("format") == _FORMAT)
    return next(named, None)


def detections_in(
    data: Mapping[str, Any], key: str | None, image: MetaTensor, grid: _Grid, without: Collection[str]
) -> Detected:
    """Read the detections out of post-processed data.

    Parameters
    ----------
    data : mapping
        ``KEY``: a label map, n where the n-th detection is. ``KEY_found``: for each a mapping with ``output``,
        ``score`` and ``classes``. Optional: ``KEY_membership``, how surely a voxel belongs to the detection at hand,
        with which its outline is drawn between the voxels of the label map; ``KEY_saliency``, 0 to 1.
    key : str, optional
        From `instances_key`.
    image : MetaTensor
        The image that was given to the network, with the geometry of the maps.
    grid : (numpy.ndarray of float64 of shape (4, 4), (int, int, int))
        Affine and size of the source.
    without : collection of str
        What was left out.

    Raises
    ------
    ModelInvalidOutput
        If a score is no probability, or maps and table do not fit together.
    """
    if key is None or (without and key not in data):
        return Detected()
    found = tuple(_detection(entry) for entry in data.get(f"{key}_found", ()))
    if len(found) > MOST or list(found) != sorted(found, key=lambda each: -each.score):
        raise ModelInvalidOutput(f"The model's detections are more than {MOST} or not in the order of their scores.")
    labels = _array(data, key)
    if int(labels.max(initial=0)) > len(found):
        raise ModelInvalidOutput(f"The model marked {int(labels.max())} detections and described {len(found)}.")
    index = np.linalg.inv(image.affine.cpu().numpy().astype(np.float64)) @ grid[0]
    membership = _array(data, f"{key}_membership") if f"{key}_membership" in data else None
    instances = _fine(labels, membership, index, grid[1]) if membership is not None else _coarse(labels, image, grid)
    saliency = None
    if f"{key}_saliency" in data:
        spoke = np.rint(_array(data, f"{key}_saliency").astype(np.float32) * 255).clip(0, 255).astype(np.uint8)
        saliency = _linear(spoke, index, grid[1])
    return Detected(found, instances, saliency)


def _detection(entry: Mapping[str, Any]) -> Detection:
    classes = {
        str(question): {str(answer): float(share) for answer, share in answers.items()}
        for question, answers in entry.get("classes", {}).items()
    }
    shares = [share for answers in classes.values() for share in answers.values()]
    if not all(math.isfinite(share) and 0 <= share <= 1 for share in (float(entry["score"]), *shares)):
        raise ModelInvalidOutput("The model gave a detection a score that is no probability.")
    return Detection(str(entry["output"]), float(entry["score"]), classes)


def _array(data: Mapping[str, Any], key: str) -> NDArray[Any]:
    value = data.get(key)
    if not isinstance(value, MetaTensor) or value.ndim != 4 or len(value) != 1:
        raise ModelInvalidOutput(f"The model's output {key} is not one image with one channel.")
    return np.asarray(value.as_tensor().cpu().numpy()[0])


def _coarse(labels: NDArray[Any], image: MetaTensor, grid: _Grid) -> NDArray[np.uint8]:
    own = image.affine.cpu().numpy().astype(np.float64)
    return np.asarray(to_grid(labels[None].astype(np.uint8), own, *grid)[0], dtype=np.uint8)


def _fine(
    labels: NDArray[Any], membership: NDArray[Any], index: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Each detection where its interpolated membership is above one half: a smooth outline on a finer grid."""
    out = np.zeros(shape, dtype=np.uint8)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        low = [max(0, part.start - 2) for part in box]
        part = tuple(slice(a, p.stop + 2) for a, p in zip(low, box, strict=True))
        others = (labels[part] != number) & (labels[part] != 0)
        soft = np.where(others, 0, membership[part]).astype(np.float32)
        soft[ndimage.distance_transform_cdt(labels[part] != number, metric="chessboard") > 1] = 0
        target, values = _sampled(soft, low, index, shape)
        chosen = out[target]
        chosen[(values > 0.5) & (chosen == 0)] = number
    return out


def _linear(values: NDArray[np.uint8], index: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    out = np.zeros(shape, dtype=np.uint8)
    marks, _ = ndimage.label(values > 0, structure=np.ones((3, 3, 3)))
    for box in ndimage.find_objects(marks):
        target, sampled = _sampled(values[box].astype(np.float32), [part.start for part in box], index, shape)
        np.maximum(out[target], np.rint(sampled).astype(np.uint8), out=out[target])
    return out


def _sampled(
    block: NDArray[np.float32], start: Sequence[int], index: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
    """`block`, which begins at voxel `start`, at the source voxels that it covers: which those are, and the values."""
    corners = np.array(np.meshgrid(*((s - 1, s + n) for s, n in zip(start, block.shape, strict=True)))).reshape(3, -1)
    back = np.linalg.inv(index)
    reached = back[:3, :3] @ corners + back[:3, 3:]
    low = np.clip(np.floor(reached.min(axis=1)).astype(int), 0, np.array(shape))
    high = np.clip(np.ceil(reached.max(axis=1)).astype(int) + 1, low, np.array(shape))
    target = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    offset = index[:3, :3] @ low + index[:3, 3] - np.array(start)
    size = tuple(int(n) for n in high - low)
    sampled = ndimage.affine_transform(
        block, index[:3, :3], offset, output_shape=size, order=1, mode="grid-constant", cval=0.0
    )
    return target, np.asarray(sampled, dtype=np.float32)
