"""Boxes that a bundle draws around what it detects, brought to the grid of the source whatever space they are in.

A bundle may leave its boxes in the image that its network saw, or take them to patient coordinates (RAS or, with
``affine_lps_to_ras``, LPS). MONAI takes two corners of a box there, which is no longer its box where the image lies
oblique; so the bundle is given the image as if it lay straight, and its boxes are turned back afterwards.

In patient coordinates a whole number of steps from the origin is the centre of a voxel. In image coordinates it is the
voxel's edge: MONAI's box of the voxel n alone is [n, n + 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.data.box_utils import convert_box_mode
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from ai.configuration import target
from ai.contract import Detection, Index, ModelInvalidOutput
from ai.detections import MOST, Detected
from ai.feed import LPS_TO_RAS

_HALF = 0.5


@dataclass(frozen=True, slots=True)
class BoxForm:
    """How a bundle writes its boxes.

    Attributes
    ----------
    mode : str
        MONAI's name of the order of their numbers: ``xyzxyz``, ``cccwhd``; empty for MONAI's own.
    is_world : bool
        Whether they lie in the patient, not in the image.
    is_lps : bool
        Whether left and posterior are positive there.
    """

    mode: str = ""
    is_world: bool = False
    is_lps: bool = False

    @classmethod
    def of(cls, transforms: Iterable[Mapping[str, Any]]) -> BoxForm:
        """Read it from the configuration of what comes after the network."""
        mode, is_world, is_lps = "", False, False
        for item in transforms:
            name = target(item)
            if name.startswith("ConvertBoxMode"):
                mode = str(item.get("dst_mode") or "")
            elif name.startswith("ConvertBoxToStandardMode"):
                mode = ""
            elif name.startswith("AffineBoxToWorldCoordinate"):
                is_world, is_lps = True, bool(item.get("affine_lps_to_ras", False))
            elif name.startswith("AffineBoxToImageCoordinate"):
                is_world = False
        return cls(mode, is_world, is_lps)


def are_boxes(answer: Any) -> bool:
    """Whether an inferer answered with boxes: a list of one table for each image."""
    return isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], Mapping)


def straightened(image: MetaTensor) -> MetaTensor:
    """The image as if it lay straight: its axes along those of the patient that they are next to."""
    straight = MetaTensor(image.as_tensor(), affine=torch.from_numpy(_straight(_affine(image))))
    straight.applied_operations = list(image.applied_operations)
    return straight


def detections_of_boxes(
    data: Mapping[str, Any],
    form: BoxForm,
    names: Sequence[str],
    image: MetaTensor,
    grid: tuple[NDArray[np.float64], tuple[int, int, int]],
) -> Detected:
    """Read boxes out of post-processed data, surest first.

    Parameters
    ----------
    data : mapping
        One table of numbers, four or six for each box, one row of scores and one of labels; whatever their names.
    form : BoxForm
        How the boxes are written after post-processing.
    names : sequence of str
        Of the labels.
    image : MetaTensor
        The image that was given to the network, as it truly lies.
    grid : (numpy.ndarray of float64 of shape (4, 4), (int, int, int))
        Affine and size of the source.

    Returns
    -------
    Detected
        The mask of each is its box; of two that overlap, the surer one has the voxels.

    Raises
    ------
    ModelInvalidOutput
        If boxes, scores and labels do not fit together or are not finite.
    """
    boxes, scores, labels = _tables(data)
    order = np.argsort(-scores, kind="stable")[:MOST]
    affine = _affine(image)
    centres = _in_index(boxes[order], form, affine)
    inverse = np.linalg.inv(affine) @ grid[0]
    instances = np.zeros(grid[1], np.uint8)
    for number in range(len(order), 0, -1):
        _draw(instances, number, centres[number - 1], inverse)
    found = tuple(
        Detection(_name(int(labels[n]), names), float(scores[n]), outlined=False, box=_corners(centre, inverse))
        for n, centre in zip(order, centres, strict=True)
    )
    return Detected(found, instances)


def _corners(box: NDArray[np.float64], inverse: NDArray[np.float64]) -> tuple[Index, Index]:
    """Lowest and highest (slice, row, column) of the source that a box in the image reaches."""
    reached = _reached(box, inverse)
    low, high = (tuple(map(float, end[::-1])) for end in (reached.min(axis=0), reached.max(axis=0)))
    return low, high  # type: ignore[return-value]


def _reached(box: NDArray[np.float64], inverse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners of a box of the image in indices (column, row, slice) of the source, shape (8, 3)."""
    back = np.linalg.inv(inverse)
    corners = np.array(list(product(*box.T)))
    return np.asarray(corners @ back[:3, :3].T + back[:3, 3], np.float64)


def _tables(data: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    boxes = scores = labels = None
    for value in data.values():
        if not isinstance(value, torch.Tensor) or (isinstance(value, MetaTensor) and value.ndim > 2):
            continue
        array = value.detach().cpu().numpy()
        if array.ndim == 2 and array.shape[1] in (4, 6):
            boxes = array.astype(np.float64)
        elif array.ndim == 1 and np.issubdtype(array.dtype, np.floating):
            scores = array.astype(np.float64)
        elif array.ndim == 1:
            labels = array.astype(np.int64)
    if boxes is None or scores is None:
        raise ModelInvalidOutput("The model's detections have no boxes, or no scores.")
    labels = np.zeros(len(scores), np.int64) if labels is None else labels
    if not len(boxes) == len(scores) == len(labels):
        raise ModelInvalidOutput(f"The model gave {len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels.")
    if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
        raise ModelInvalidOutput("The model's boxes or their scores contain NaN or infinity.")
    if ((scores < 0) | (scores > 1)).any():
        raise ModelInvalidOutput("The model gave a detection a score that is no probability.")
    return boxes, scores, labels


def _name(label: int, names: Sequence[str]) -> str:
    if not 0 <= label < len(names):
        raise ModelInvalidOutput(f"The model gave a box the label {label}; its metadata names {len(names)}.")
    return names[label]


def _in_index(boxes: NDArray[np.float64], form: BoxForm, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes as (low, high) in indices of the image, whole at the centres of voxels: shape (boxes, 2, 3)."""
    dimensions = boxes.shape[1] // 2
    if form.mode:
        boxes = np.asarray(convert_box_mode(boxes, src_mode=form.mode), dtype=np.float64)
    corners = np.zeros((len(boxes), 2, 3))
    corners[:, 0, :dimensions], corners[:, 1, :dimensions] = boxes[:, :dimensions], boxes[:, dimensions:]
    if form.is_world:
        world = _straight(affine) if not form.is_lps else LPS_TO_RAS @ _straight(affine)
        inverse = np.linalg.inv(world)
        corners = corners @ inverse[:3, :3].T + inverse[:3, 3]
    else:
        corners = corners - _HALF
    if dimensions == 2:
        corners[:, 0, 2], corners[:, 1, 2] = -_HALF, _HALF
    return np.sort(corners, axis=1)


def _draw(instances: NDArray[np.uint8], number: int, box: NDArray[np.float64], inverse: NDArray[np.float64]) -> None:
    """Fill the voxels of the source whose centres lie in the box; where it is smaller than a voxel, the nearest one."""
    reached = _reached(box, inverse)
    shape = np.array(instances.shape)
    low = np.clip(np.floor(reached.min(axis=0)).astype(int), 0, shape)
    high = np.clip(np.ceil(reached.max(axis=0)).astype(int) + 1, low, shape)
    part = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    index = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    at = index @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((at >= box[0] - 1e-6) & (at <= box[1] + 1e-6)).all(axis=-1)
    instances[part][inside] = number
    if not inside.any():
        centre = np.rint(reached.mean(axis=0)).astype(int)
        if ((centre >= 0) & (centre < shape)).all():
            instances[tuple(centre)] = number


def _affine(image: MetaTensor) -> NDArray[np.float64]:
    return np.asarray(image.affine.cpu().numpy(), dtype=np.float64)


def _straight(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine without what turns it: each axis along the nearest one of the patient, its spacing and origin kept."""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / steps
    straight = np.zeros((4, 4))
    straight[:, 3] = affine[:, 3]
    left = [0, 1, 2]
    for axis in np.argsort(-np.abs(cosines).max(axis=0)):
        row = max(left, key=lambda each: abs(cosines[each, axis]))
        left.remove(row)
        straight[row, axis] = np.sign(cosines[row, axis]) * steps[axis]
    return straight
