"""What a bundle answers for every voxel, on the grid of the source: its maps, and images such as a denoised scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from ai.contract import ModelInvalidOutput
from ai.interface import Output
from ai.regrid import to_grid, values_to_grid

Grid = tuple[NDArray[np.float64], tuple[int, int, int]]  # index to RAS in mm, and columns, rows, slices


def images_in(
    data: Mapping[str, Any], outputs: Sequence[Output], image: MetaTensor, grid: Grid
) -> dict[str, NDArray[np.float32]]:
    """Take the images beside a main answer, as far as the bundle's transforms have left them; arguments as `image_in`.

    Returns
    -------
    dict of str to numpy.ndarray of float32, shape (columns, rows, slices)
    """
    found: dict[str, NDArray[np.float32]] = {}
    for output in outputs:
        if isinstance(data.get(output.name), MetaTensor):
            with suppress(ModelInvalidOutput):  # the main answer stands; who wants this one hears that there is none
                found |= image_in(data, output, image, grid)
    return found


def image_in(data: Mapping[str, Any], output: Output, image: MetaTensor, grid: Grid) -> dict[str, NDArray[np.float32]]:
    """Take an image out of what a bundle's transforms gave.

    Parameters
    ----------
    data : mapping
        What came after the network, by keys.
    output : Output
        Its metadata of it: the names of its channels.
    image : monai.data.MetaTensor
        What the network was shown, where it lies.
    grid : Grid
        Of the source.

    Returns
    -------
    dict of str to numpy.ndarray of float32, shape (columns, rows, slices)
        One for each channel.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If it has another grid or other channels than it should, or values that are no numbers.
    """
    values = on_source_grid(mapped(data, output.name if output.name in data else "pred"), image, *grid, is_image=True)
    if len(values) != len(output.names):
        named = ", ".join(output.names)
        raise ModelInvalidOutput(f"The model's image {output.name} has {len(values)} channels; its metadata: {named}.")
    if not np.isfinite(values).all():
        raise ModelInvalidOutput(f"The model's image {output.name} contains NaN or infinity.")
    return dict(zip(output.names, values, strict=True))


def mapped(data: Mapping[str, Any], key: str) -> MetaTensor:
    """Take an answer for every voxel.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If there is none.
    """
    pred = data.get(key)
    if not isinstance(pred, MetaTensor) or pred.ndim not in (3, 4):
        raise ModelInvalidOutput("The model's post-processed output is not one image with channels.")
    return pred


def on_source_grid(
    pred: MetaTensor, image: MetaTensor, affine: NDArray[np.float64], shape: tuple[int, ...], *, is_image: bool = False
) -> NDArray[Any]:
    """Give a post-processed answer as (channels, columns, rows, slices) of the source.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If it has another size than its grid.
    """
    own, array = pred.affine.cpu().numpy().astype(np.float64), pred.as_tensor().cpu().numpy()
    size = tuple(image.shape[1:])
    if array.ndim == 3:
        array, size = array[..., None], (*size, 1)
    inverted = np.allclose(own, affine, atol=1e-3)
    untouched = np.allclose(own, image.affine.cpu().numpy(), atol=1e-3)
    expected = shape if inverted else size if untouched else array.shape[1:]
    if array.shape[1:] != expected:
        raise ModelInvalidOutput(f"The model's output has {array.shape[1:]} voxels where its grid has {expected}.")
    if is_image:
        values = array.astype(np.float32, copy=False)
        return values if inverted else values_to_grid(values, own, affine, shape)
    return array if inverted else to_grid(array, own, affine, shape)
