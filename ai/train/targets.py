"""The maps that a detector learns, drawn on the grid of its image: where centres are, and what lies inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from numpy.typing import NDArray

_SHARPEST = 0.8
_SIGMAS = 7.0  # so many of them fit into a nodule


class DrawNodules(MapTransform):
    """Draws the nodules of a case.

    Reads ``nodules`` (mappings with ``centre_mm``, ``diameter_mm`` and ``instance``), and their map of instances under
    ``label`` where there is one; writes ``label``, two channels: 1 at each centre falling off around it, and 1 in each
    nodule. A nodule without an outline is drawn as a ball. Where patches may have their middle is written to
    ``label_fg_indices`` and ``label_bg_indices``.

    Parameters
    ----------
    keys : str
        The image.
    patch : sequence of int
        Size of a patch: its middle lies within a quarter of it from a nodule's centre.
    """

    def __init__(self, keys: str, patch: Sequence[int]) -> None:
        super().__init__(keys)
        self.patch = tuple(patch)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Draw."""
        image = data[str(self.keys[0])]
        shape = tuple(int(size) for size in image.shape[1:])
        to_index = np.linalg.inv(np.asarray(image.affine)) @ np.diag([-1.0, -1.0, 1.0, 1.0])
        spacing = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
        instances = np.asarray(data["label"])[0] if "label" in data else None
        maps = np.zeros((2, *shape), dtype=np.float32)
        near = np.zeros(shape, dtype=np.bool_)
        for nodule in data["nodules"]:
            place = (to_index @ [*nodule["centre_mm"], 1.0])[:3]
            if (place < -0.5).any() or (place > np.array(shape) - 0.5).any():
                continue  # prepared with a crop that left it out
            centre = np.clip(np.rint(place), 0, np.array(shape) - 1)
            diameter = float(nodule["diameter_mm"]) / spacing
            np.maximum(maps[0], _peak(shape, centre, np.maximum(_SHARPEST, diameter / _SIGMAS)), out=maps[0])
            number = nodule.get("instance")
            known = instances is not None and number is not None and bool((instances == number).any())
            body = instances == number if known else _ball(shape, place, diameter / 2)
            maps[1][body] = 1
            near[
                tuple(
                    slice(max(0, int(c) - s // 4), int(c) + s // 4 + 1) for c, s in zip(centre, self.patch, strict=True)
                )
            ] = True
        return {
            **data,
            "label": MetaTensor(torch.from_numpy(maps), affine=image.affine),
            "label_fg_indices": np.flatnonzero(near),
            "label_bg_indices": np.flatnonzero(~near),
        }


def _peak(shape: tuple[int, ...], centre: NDArray[np.float64], sigmas: NDArray[np.float64]) -> NDArray[np.float32]:
    """A Gaussian of height 1, exactly 1 at the voxel `centre`."""
    x, y, z = (
        np.exp(-((np.arange(size) - c) ** 2) / (2 * sigma**2))
        for size, c, sigma in zip(shape, centre, sigmas, strict=True)
    )
    return np.asarray(x[:, None, None] * y[None, :, None] * z[None, None, :], dtype=np.float32)


def _ball(shape: tuple[int, ...], place: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.bool_]:
    x, y, z = (((np.arange(size) - p) / max(r, 0.6)) ** 2 for size, p, r in zip(shape, place, radii, strict=True))
    return np.asarray(x[:, None, None] + y[None, :, None] + z[None, None, :] <= 1, dtype=np.bool_)
