"""Whether what was marked can be what it is called: expectations that follow from a segment's codes alone.

They are no second opinion on the model. They are wide, so that disease does not break them, and catch what no model
means: a mask that was turned, mirrored, shifted, or laid on another series. What contradicts its own name is not sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from dicom_node.domain.codes import OTHER_LOBES, UPPER_LOBES
from dicom_node.domain.finding import Code, Segment
from dicom_node.errors import ResultError
from dicom_node.results.analysis import Analysis

LUNG, NODULE, LEFT, RIGHT = "39607008", "27925004", "7771000", "24028007"  # SCT
AERATED_BELOW_HU = -400.0
# Consolidation and effusion take air out of a lung, rarely out of both: all lung together keeps at least this share.
LEAST_AERATED = 0.3
REMNANT = 0.25  # of a lung that was taken out, collapsed or missed, a few voxels are left that lie anywhere
REACH_MM = 5.0  # a nodule at the pleura or the hilum may have been left out of the lung's mask


def prove_anatomy(analysis: Analysis) -> None:
    """Check the segments against the voxels that they lie on and against each other.

    Raises
    ------
    ResultError
        If the lungs hold too little air, if left and right are exchanged, or if a nodule lies outside every lung.
    """
    present = analysis.findings.present
    lungs = [segment for segment in present if _is(segment.type, LUNG)]
    if lungs and analysis.origin.slices[0].Modality == "CT":
        _prove_air(lungs, analysis)
    _prove_sides(present, analysis)
    if any(_is_lung(segment) for segment in analysis.findings.segments):
        parts = [segment for segment in present if _is_lung(segment)]
        for segment in present:
            if _is(segment.type, NODULE):
                _prove_in_lung(segment, parts, analysis)


def _is_lung(segment: Segment) -> bool:
    """A lung, or a lobe of one."""
    return any(_is(segment.type, value) for value in (LUNG, *UPPER_LOBES, *OTHER_LOBES))


def _is(concept: Code | None, value: str) -> bool:
    return concept is not None and (concept.value, concept.scheme) == (value, "SCT")


def _prove_air(lungs: Sequence[Segment], analysis: Analysis) -> None:
    aerated = sum(
        int(np.count_nonzero(analysis.volume.array[crop.box][crop.voxels] < AERATED_BELOW_HU))
        for crop in (analysis.crop(lung.output) for lung in lungs)
    )
    share = aerated / sum(lung.voxels for lung in lungs)
    if share < LEAST_AERATED:
        raise ResultError(
            f"what the model marked as lung is no lung: {share:.0%} of it is below {AERATED_BELOW_HU:g} HU, and at "
            f"least {LEAST_AERATED:.0%} would be"
        )


def _prove_sides(present: Sequence[Segment], analysis: Analysis) -> None:
    """Of a paired organ, the left one lies further to the patient's left: x grows that way (PS3.3 C.7.6.2.1.1)."""
    for left in present:
        for right in present:
            pair = left.type == right.type and left.region is None and right.region is None
            if not (pair and _is(left.laterality, LEFT) and _is(right.laterality, RIGHT)):
                continue
            if min(left.voxels, right.voxels) < REMNANT * max(left.voxels, right.voxels):
                continue
            if _x_mm(left, analysis) <= _x_mm(right, analysis):
                raise ResultError(f"{left.label!r} does not lie to the left of {right.label!r}: sides are exchanged")


def _x_mm(segment: Segment, analysis: Analysis) -> float:
    affine = analysis.volume.affine
    return float(affine[0, :3] @ analysis.crop(segment.output).center + affine[0, 3])


def _prove_in_lung(nodule: Segment, lungs: Sequence[Segment], analysis: Analysis) -> None:
    """Ask for a voxel of lung in the nodule or within `REACH_MM` of it; of its own side, when it has one."""
    sides = [lung for lung in lungs if nodule.laterality in (None, lung.laterality) or lung.laterality is None]
    if not any(_touches(nodule, lung, analysis) for lung in sides):
        side = f"{nodule.laterality.meaning.lower()} " if nodule.laterality else ""
        raise ResultError(f"{nodule.label!r} lies in no {side}lung, nor within {REACH_MM:g} mm of one")


def _touches(nodule: Segment, lung: Segment, analysis: Analysis) -> bool:
    ours, spacing_mm = analysis.crop(nodule.output), analysis.volume.spacing_mm
    reach = np.ceil(REACH_MM / np.array(spacing_mm)).astype(int)
    low = np.maximum(np.array(ours.start) - reach, 0)
    high = np.minimum(np.array(ours.start) + ours.voxels.shape + reach, analysis.shape)
    near = analysis.crop(lung.output).window(low, high)
    if not near.any():
        return False
    distance_mm = distance_transform_edt(~near, sampling=spacing_mm)
    return bool(distance_mm[ours.window(low, high)].min() <= REACH_MM)
