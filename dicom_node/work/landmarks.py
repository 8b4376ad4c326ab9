"""Points that the model named become landmarks in codes; what lies nowhere in the images is left out and said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ai.contract import Landmark as Named
from ai.contract import ModelInvalidOutput, Prediction
from dicom_node.domain.finding import Landmark, NotRun
from dicom_node.domain.geometry import count
from dicom_node.domain.model import ModelCard, PointCard
from dicom_node.domain.uids import result_uid

_HALF = 0.5
_OUTSIDE = "the model puts it outside of the images"
_CORNER = "the model puts it at a corner of the image, as it does what it does not see"


class Grid(Protocol):
    """Where voxels lie; `dicom_node.volume.Volume` is one."""

    @property
    def array(self) -> NDArray[np.float32]:
        """Values, shape (slices, rows, columns)."""

    @property
    def affine(self) -> NDArray[np.float64]:
        """Maps (slice, row, column, 1) to LPS in mm."""


def landmarks_from(
    prediction: Prediction, card: ModelCard, grid: Grid, named_by: str, image: str = ""
) -> tuple[tuple[Landmark, ...], list[NotRun]]:
    """Give each point of the card its codes and its place in the patient.

    Parameters
    ----------
    prediction : ai.contract.Prediction
        Its points lie on the grid of `grid`.
    named_by : str
        Tracking UIDs derive from it, from the model's name and from that of the point.
    image : str
        And from this, where each of several images has all points.

    Returns
    -------
    tuple of Landmark
        In the order of the card. Of a model of 2-D images each slice has its own, and their labels say which.
    list of NotRun
        What was left out, since it lies in no image.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If the model does not give a point that the card names.
    """
    found: list[Landmark] = []
    dropped: list[NotRun] = []
    for point in card.points:
        given = [each for each in prediction.points if each.output == point.output]
        if not given:
            raise ModelInvalidOutput(f"The model gives no point named {point.output!r}.")
        own = "/".join(part for part in ("track", card.name, image, "point", point.output) if part)
        reasons = [_why_none(each, point, grid) for each in given]
        kept = [each for each, reason in zip(given, reasons, strict=True) if not reason]
        found += (_landmark(each, point, grid, (named_by, own), several=len(given) > 1) for each in kept)
        dropped += _left_out(point, [reason for reason in reasons if reason], several=len(given) > 1)
    return tuple(found), dropped


def _why_none(given: Named, point: PointCard, grid: Grid) -> str:
    at, last = np.array(given.at), np.array(grid.array.shape) - 1
    if (at <= -_HALF).any() or (at >= last + _HALF).any():
        return _OUTSIDE
    in_plane = np.minimum(at[1:], last[1:] - at[1:]) * np.linalg.norm(grid.affine[:3, 1:3], axis=0)
    return _CORNER if np.linalg.norm(in_plane) <= point.corner_mm else ""


def _landmark(given: Named, point: PointCard, grid: Grid, uid_of: tuple[str, str], *, several: bool) -> Landmark:
    place = grid.affine[:3, :3] @ given.at + grid.affine[:3, 3]
    number = round(given.at[0]) + 1
    label = f"{point.label}, image {number}" if several else point.label
    named_by, own = uid_of
    return Landmark(
        output=point.output,
        label=label,
        category=point.category,
        type=point.type,
        laterality=point.laterality,
        region=point.region,
        color_rgb=point.color_rgb,
        tracking_id=label,
        tracking_uid=result_uid(named_by, f"{own}/{number}" if several else own),
        at=given.at,
        place_mm=(float(place[0]), float(place[1]), float(place[2])),
    )


def _left_out(point: PointCard, reasons: Sequence[str], *, several: bool) -> Iterator[NotRun]:
    for reason in dict.fromkeys(reasons):
        what = f"{point.label} in {count(reasons.count(reason), 'image')}" if several else point.label
        yield NotRun(what, reason, "not reported")
