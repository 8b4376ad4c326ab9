"""Points that a model names, such as where a valve is attached: read from its answer, on the grid of the source.

A whole number is the centre of a voxel, in the image as in the patient: so do MONAI's own transforms of points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai.contract import Landmark, ModelInvalidOutput

_SPACES = ("RAS", "LPS")
_AXES = (
    "x",
    "y",
    "z",
    "i",
    "j",
    "k",
    "row",
    "rows",
    "column",
    "columns",
    "slice",
    "slices",
    "depth",
    "height",
    "width",
)
_PLANE = 2


@dataclass(frozen=True, slots=True)
class PointForm:
    """How a bundle writes its points.

    Attributes
    ----------
    space : str
        ``RAS`` or ``LPS``, in mm of the patient; empty for indices of the image that its network was shown.
    by_axis : bool
        Whether there is a row for each axis, not one for each point, where the numbers of both are the same.
    """

    space: str = ""
    by_axis: bool = False

    @classmethod
    def of(cls, output: Mapping[str, Any], transforms: Iterable[Mapping[str, Any]]) -> PointForm:
        """Read it from what metadata says of an output, and from what comes after the network.

        Parameters
        ----------
        output : mapping
            From ``network_data_format.outputs``; its ``space`` is taken where no transform says more.
        transforms : iterable of mapping
            Configuration of the post-processing.
        """
        said = str(output.get("space", "")).upper()
        space = said if said in _SPACES else ""
        for item in transforms:
            if str(item.get("_target_", "")).split(".")[-1].startswith("ApplyTransformToPoints"):
                to_patient = not item.get("invert_affine", True)
                space = ("LPS" if item.get("affine_lps_to_ras", False) else "RAS") if to_patient else ""
        return cls(space, _are_axes(_texts(output.get("channel_def"))))


def point_names(output: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the points of an output.

    Parameters
    ----------
    output : mapping
        What metadata says of it. Its ``channel_def`` names the points; or their coordinates, and then they are named in
        ``coordinate_meanings`` beside, or not at all.
    metadata : mapping
        The bundle's ``metadata.json``.

    Returns
    -------
    tuple of str
        ``point 1`` and so on where they have no names; empty where not even their number is known.
    """
    defined = _texts(output.get("channel_def"))
    if defined and not _are_axes(defined):
        return _distinct(defined)
    if meant := _texts(metadata.get("coordinate_meanings")):
        return _distinct(meant)
    shape = output.get("spatial_shape")
    sizes = [n for n in shape if isinstance(n, int)] if isinstance(shape, list) else []
    axes = len(defined) or next((n for n in sizes if n in (2, 3)), 0)
    if axes in sizes:
        sizes.remove(axes)
    return tuple(f"point {n}" for n in range(1, max(sizes, default=0) + 1))


def landmarks_in(
    answer: Any,
    form: PointForm,
    names: Sequence[str],
    dimensions: int,
    affine: NDArray[np.float64],
    source: NDArray[np.float64],
) -> tuple[Landmark, ...]:
    """Read the points of a post-processed answer.

    Parameters
    ----------
    answer : torch.Tensor or numpy.ndarray
        A row of coordinates for each point, or a row of points for each axis, in the order of the image's axes.
    form : PointForm
        How they are written.
    names : sequence of str
        Of the points, in their order.
    dimensions : int
        Of the image that the network was shown.
    affine : numpy.ndarray of float64, shape (4, 4)
        Index of that image to mm, RAS.
    source : numpy.ndarray of float64, shape (4, 4)
        Index (column, row, slice) of the source to mm, RAS.

    Raises
    ------
    ModelInvalidOutput
        If they are not as many as there are names, or not finite.
    """
    given = _rows(answer, form, len(names), dimensions)
    at = np.zeros((len(given), 3))
    at[:, :dimensions] = given
    place = at @ affine[:3, :3].T + affine[:3, 3] if not form.space else at
    if form.space == "LPS":
        place = at * (-1, -1, 1)
    inverse = np.linalg.inv(source)
    found = place @ inverse[:3, :3].T + inverse[:3, 3]
    return tuple(Landmark(name, (float(k), float(j), float(i))) for name, (i, j, k) in zip(names, found, strict=True))


def _rows(answer: Any, form: PointForm, count: int, dimensions: int) -> NDArray[np.float64]:
    """Coordinates, shape (points, axes)."""
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu().numpy()
    if not isinstance(answer, np.ndarray):
        raise ModelInvalidOutput("The model's points are no table of numbers.")
    array = answer.astype(np.float64)
    while array.ndim > _PLANE and len(array) == 1:
        array = array[0]
    array = array[None] if array.ndim == 1 else array
    if not np.isfinite(array).all():
        raise ModelInvalidOutput("The model's points contain NaN or infinity.")
    if array.shape == (dimensions, count) and (form.by_axis or count != dimensions):
        return array.T
    if array.shape != (count, dimensions):
        raise ModelInvalidOutput(
            f"The model's points have the shape {tuple(answer.shape)}; its metadata names {count} in "
            f"{dimensions} dimensions."
        )
    return array


def _texts(defined: Any) -> tuple[str, ...]:
    if isinstance(defined, Mapping):
        return tuple(map(str, defined.values()))
    return tuple(map(str, defined)) if isinstance(defined, list) else ()


def _are_axes(names: Sequence[str]) -> bool:
    """Whether names are those of coordinates: ``Y Dimension``, ``X Dimension``."""
    return len(names) in (2, 3) and all(name.strip().lower().split(" ")[0] in _AXES for name in names)


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return names if len(set(names)) == len(names) else tuple(f"point {n}" for n in range(1, len(names) + 1))
