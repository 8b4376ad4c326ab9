"""What a bundle's transforms are given in place of what its loader would have read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy import ndimage

from ai.contract import BundleError, Images, Volume
from ai.interface import Input

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_COLOURS = ("R", "G", "B")


@dataclass(frozen=True, slots=True, eq=False)
class Fed:
    """One run of a bundle: its data, and the grid of the source.

    Attributes
    ----------
    affine : numpy.ndarray of float64, shape (4, 4)
        Index (column, row, slice) of the source to RAS; of a 2-D image to mm along its own rows and columns.
    shape : (int, int, int)
        Columns, rows, slices.
    """

    data: dict[str, Any]
    affine: NDArray[np.float64]
    shape: tuple[int, int, int]


def feed(images: Images, wanted: Input) -> Iterator[Fed]:
    """Lay images out as MONAI's readers would have: once for volumes, slice by slice for what works on 2-D images.

    Parameters
    ----------
    images : Volume, or mapping of str to Volume
        Several by their roles; all are brought to the grid of the first that is given, whichever the bundle names
        first. A colour image has the roles R, G and B.
    wanted : Input
        What the bundle takes.

    Yields
    ------
    Fed
        Arrays of (channel, columns, rows, slices), or of (channel, columns, rows).

    Raises
    ------
    BundleError
        If an image is missing.
    """
    first = images if isinstance(images, Volume) else next(iter(images.values()))
    volumes = [_resampled(volume, first) for volume in _chosen(images, wanted)]
    if wanted.dimensions != 2 and volumes[0].is_single:
        raise BundleError("The model works on volumes; this is a single image.")
    per_key = [[volume] for volume in volumes] if len(wanted.keys) > 1 else [volumes]
    if wanted.dimensions != 2:
        yield _fed(wanted.keys, per_key, None)
        return
    for number in range(volumes[0].array.shape[0]):
        yield _fed(wanted.keys, per_key, number)


def as_read(image: MetaTensor, axes: int) -> MetaTensor:
    """Lay an image out as a reader that knows no channels gives it: columns, rows, then axes of one value each.

    Parameters
    ----------
    image : monai.data.MetaTensor, shape (1, columns, rows) or (1, columns, rows, slices)
    axes : int
        From `ai.configuration.array_axes`; 0 leaves it as it is.
    """
    if not axes:
        return image
    plane = image.as_tensor()[0]
    return MetaTensor(plane.reshape(*plane.shape, *[1] * (axes - plane.ndim)), affine=image.affine.clone())


def _chosen(images: Images, wanted: Input) -> list[Volume]:
    given = {"": images} if isinstance(images, Volume) else dict(images)
    if wanted.roles:
        if missing := [role for role in wanted.roles if role not in given]:
            raise BundleError(f"The model needs {', '.join(wanted.roles)}; it was not given {', '.join(missing)}.")
        return [given[role] for role in wanted.roles]
    if set(_COLOURS) <= set(given):
        planes = [given[colour] for colour in _COLOURS]
        if wanted.has_colour:
            return planes
        grey = sum(w * plane.array for w, plane in zip((0.299, 0.587, 0.114), planes, strict=True))  # ITU-R BT.601
        return [replace(planes[0], array=np.asarray(grey, np.float32))]
    if len(given) != 1:
        raise BundleError(f"The model takes one image; it was given {', '.join(given)}.")
    (only,) = given.values()
    return [only] * len(_COLOURS) if wanted.has_colour else [only]


def _resampled(volume: Volume, onto: Volume) -> Volume:
    """Bring a volume to the grid of another, by its place in the patient; outside of it is its least value."""
    if volume.array.shape == onto.array.shape and np.allclose(volume.affine, onto.affine, atol=1e-3):
        return volume
    index = np.linalg.inv(volume.affine) @ onto.affine
    array = ndimage.affine_transform(
        volume.array,
        index[:3, :3],
        index[:3, 3],
        output_shape=onto.array.shape,
        order=1,
        mode="constant",
        cval=float(volume.array.min(initial=0)),
    )
    return Volume(array.astype(np.float32), onto.affine, volume.modality)


def _fed(keys: Sequence[str], per_key: Sequence[Sequence[Volume]], number: int | None) -> Fed:
    first = per_key[0][0]
    columns, rows, slices = first.array.shape[::-1]
    if number is None:
        affine, shape = LPS_TO_RAS @ first.affine[:, [2, 1, 0, 3]], (columns, rows, slices)
    else:
        down, right = first.spacing_mm[1:]
        affine, shape = np.diag([right, down, 1.0, 1.0]), (columns, rows, 1)
    data: dict[str, Any] = {}
    for key, volumes in zip(keys, per_key, strict=True):
        planes = [volume.array if number is None else volume.array[number] for volume in volumes]
        data[key] = _meta_tensor(planes, affine)
        data[f"{key}_meta_dict"] = dict(data[key].meta)  # as readers give it beside the image, for those who look there
    return Fed(data, affine, shape)


def _meta_tensor(planes: Sequence[NDArray[np.float32]], affine: NDArray[np.float64]) -> MetaTensor:
    array = torch.stack([torch.from_numpy(plane.astype(np.float32).T.copy()) for plane in planes])
    meta: Mapping[str, Any] = {
        "original_affine": torch.from_numpy(affine.copy()),
        "spatial_shape": np.array(array.shape[1:]),
        "original_channel_dim": 0,
        "space": "RAS",
        "filename_or_obj": "image",
    }
    return MetaTensor(array, affine=torch.from_numpy(affine.copy()), meta=dict(meta))
