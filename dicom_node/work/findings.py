"""What the model marked becomes findings: coded by its card, measured on the voxels of the source."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ai.contract import Prediction
from dicom_node.domain.finding import Code, Findings, Measurement, Segment
from dicom_node.domain.model import ModelCard, SegmentCard
from dicom_node.domain.uids import result_uid
from dicom_node.errors import ConfigurationError, GeometryError
from dicom_node.volume import Volume

VOLUME = Code("118565006", "SCT", "Volume")
CUBIC_MILLIMETER = Code("mm3", "UCUM", "cubic millimeter")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
HOUNSFIELD_UNIT = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
MEAN = Code("373098007", "SCT", "Mean")
NOT_ATTEMPTED = Code("114007", "DCM", "Measurement not attempted")  # CID 42


def findings_from(prediction: Prediction, card: ModelCard, volume: Volume, job_id: str) -> Findings:
    """Measure every segment that the card names.

    Parameters
    ----------
    prediction : ai.contract.Prediction
        Masks on the grid of `volume`.
    card : ModelCard
        Says which outputs are segments, in which codes, and what to measure of each.
    volume : dicom_node.volume.Volume
        The volume that was analysed.
    job_id : str
        Tracking UIDs derive from it: the same at every attempt.

    Returns
    -------
    Findings
        One segment for each of the card, in its order; those with voxels are numbered from 1.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If the model has no output of a name that the card uses.
    ConfigurationError
        If the card asks for a measurement that does not exist.
    GeometryError
        If a voxel of `volume` has no volume.
    """
    voxel_ml = voxel_volume_ml(volume.affine)
    segments: list[Segment] = []
    number = 0
    for segment in card.segments:
        mask = prediction.mask(segment.output)
        voxels = int(np.count_nonzero(mask))
        number += bool(voxels)
        segments.append(
            Segment(
                output=segment.output,
                number=number if voxels else 0,
                label=segment.label,
                category=segment.category,
                type=segment.type,
                laterality=segment.laterality,
                region=segment.region,
                color_rgb=segment.color_rgb,
                tracking_id=segment.label,
                tracking_uid=result_uid(job_id, f"track/{segment.output}"),
                voxels=voxels,
                volume_ml=round(voxels * voxel_ml, 3),
                measurements=_measure(segment, card, volume, mask),
            )
        )
    return Findings(tuple(segments))


def voxel_volume_ml(affine: NDArray[np.float64]) -> float:
    """Volume of one voxel, in millilitres.

    Parameters
    ----------
    affine : numpy.ndarray of float64, shape (4, 4)
        Maps (slice, row, column, 1) to patient coordinates in mm. The distance between slices in it is measured from
        Image Position (Patient), not read from Slice Thickness: the two differ whenever slices overlap.

    Raises
    ------
    GeometryError
        If it is zero or not finite.
    """
    volume_mm3 = float(abs(np.linalg.det(affine[:3, :3])))
    if not np.isfinite(volume_mm3) or volume_mm3 <= 0:
        raise GeometryError("the voxels of the series have no volume: two of its axes are parallel")
    return volume_mm3 / 1000


def _measure(segment: SegmentCard, card: ModelCard, volume: Volume, mask: NDArray[np.bool_]) -> tuple[Measurement, ...]:
    for name in segment.measurements:
        if name not in MEASURES:
            known = ", ".join(MEASURES)
            raise ConfigurationError(
                f"model {card.name}: segment {segment.output!r}: no measurement {name!r}; use {known}"
            )
    return tuple(MEASURES[name](volume, mask) for name in segment.measurements)


def _volume(volume: Volume, mask: NDArray[np.bool_]) -> Measurement:
    volume_mm3 = int(np.count_nonzero(mask)) * voxel_volume_ml(volume.affine) * 1000
    return Measurement(VOLUME, round(volume_mm3, 1), CUBIC_MILLIMETER)


def _mean_attenuation(volume: Volume, mask: NDArray[np.bool_]) -> Measurement:
    """Only a CT has Hounsfield units, and only a structure that is there has a mean."""
    value = None
    if volume.datasets[0].get("Modality") == "CT" and mask.any():
        value = round(float(volume.array[mask].mean(dtype=np.float64)), 1)
    return Measurement(ATTENUATION, value, HOUNSFIELD_UNIT, MEAN, None if value is not None else NOT_ATTEMPTED)


MEASURES: dict[str, Callable[[Volume, NDArray[np.bool_]], Measurement]] = {
    "volume": _volume,
    "mean_attenuation": _mean_attenuation,
}
