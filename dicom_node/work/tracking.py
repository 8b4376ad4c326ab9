"""Which finding is which: what is found again where something was found before keeps its Tracking UID."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from ai.measure.region import box_of
from dicom_node.domain.finding import Extent, Tracked
from dicom_node.domain.uids import result_uid
from dicom_node.work.detections import Found
from dicom_node.work.measures import Marked

_LEAST_SHARED = 0.25  # of the smaller of two boxes: what merely touches is something else
_CELL_MM = 8.0


def extent_of(it: Marked) -> Extent:
    """Give the box around what is marked, to the edges of its voxels: two corners in LPS, mm."""
    box = box_of(it.mask)
    assert box is not None  # a detection without a voxel is none
    ends = [(part.start - 0.5, part.stop - 0.5) for part in box]
    corners = np.array(list(product(*ends))) @ it.affine[:3, :3].T + it.affine[:3, 3]
    low, high = corners.min(axis=0).round(2).tolist(), corners.max(axis=0).round(2).tolist()
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def tracking_uids(found: Sequence[Found], model: str, named_by: str, before: Sequence[Tracked]) -> list[str]:
    """Name each detection of one kind.

    Parameters
    ----------
    model : str
        Its name.
    named_by : str
        The id from which new names derive: of the series, or of the job.
    before : sequence of Tracked
        What earlier jobs on the series found.

    Returns
    -------
    list of str
        One for each detection, in their order. What overlaps with something that was found before has its name, those
        that share most first, and each name goes to one; all others have new names, the same at every attempt.
    """
    extents = [extent_of(it.marked) for it in found]
    same = [each for each in before if found and each.output == found[0].card.output]
    shares = [(_shared(mine, old.extent_mm), n, old.uid) for n, mine in enumerate(extents) for old in same]
    named: dict[int, str] = {}
    for share, n, uid in sorted(shares, key=lambda each: (-each[0], each[1:])):
        if share >= _LEAST_SHARED and n not in named and uid not in named.values():
            named[n] = uid
    taken = {each.uid for each in before}
    for n, it in enumerate(found):
        if n not in named:
            named[n] = _new(it, model, named_by, taken)
        taken.add(named[n])
    return [named[n] for n in range(len(found))]


def _shared(a: Extent, b: Extent) -> float:
    """How much of the smaller of two boxes lies in the other, 0 to 1."""
    low, high = np.maximum(a[0], b[0]), np.minimum(a[1], b[1])
    smaller = min(float(np.prod(np.subtract(box[1], box[0]))) for box in (a, b))
    return float(np.prod(np.clip(high - low, 0.0, None))) / smaller if smaller > 0 else 0.0


def _new(it: Found, model: str, named_by: str, taken: set[str]) -> str:
    """Derive a name from where it lies; of several in one place, and where the name is another's, with a number."""
    cell = "/".join(str(round(mm / _CELL_MM)) for mm in it.centre_mm)
    number = 1
    while (uid := result_uid(named_by, f"track/{model}/{it.card.output}/{cell}/{number}")) in taken:
        number += 1
    return uid
