"""How the moving series of a study lies on the fixed one: laid together before the model, measured after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ai.contract import ModelInvalidOutput, Prediction
from ai.contract import Volume as Pixels
from ai.measure.motion import body_in, motion_of
from dicom_node.domain import codes
from dicom_node.domain.finding import Measurement, Point, Registration
from dicom_node.domain.job import Job
from dicom_node.domain.model import ModelCard
from dicom_node.errors import NotEligible
from dicom_node.volume import Volume


@dataclass(frozen=True, slots=True)
class Start:
    """How the moving series was laid before the model saw it.

    Attributes
    ----------
    frame_uid : str
        Its own frame of reference.
    is_one_frame : bool
        Whether that is the one of the fixed series as well.
    shift_mm : Point
        By how much it was shifted, LPS.
    voxel_mm : float
        The shortest side of a voxel of either series.
    """

    frame_uid: str
    is_one_frame: bool
    shift_mm: Point
    voxel_mm: float

    @classmethod
    def of(cls, fixed: Volume, moving: Volume) -> Start:
        """Lay them as their frame of reference has them; where each has its own, the middles upon each other."""
        frames = [str(volume.datasets[0].get("FrameOfReferenceUID", "")) for volume in (fixed, moving)]
        is_one = frames[0] == frames[1]
        apart = np.zeros(3) if is_one else _middle(fixed) - _middle(moving)
        shift = float(apart[0]), float(apart[1]), float(apart[2])
        return cls(frames[1], is_one, shift, min(*fixed.spacing_mm, *moving.spacing_mm))

    def laid(self, pixels: Pixels) -> Pixels:
        """The moving image as the model is shown it."""
        affine = pixels.affine.copy()
        affine[:3, 3] += self.shift_mm
        return replace(pixels, affine=affine)

    def taken_back(self, prediction: Prediction) -> Prediction:
        """An answer that leads to the moving series where it really lies."""
        if prediction.registration is None:
            return prediction
        back = np.eye(4)
        back[:3, 3] = np.negative(self.shift_mm)
        matrix = back @ prediction.registration.matrix
        return replace(prediction, registration=replace(prediction.registration, matrix=matrix))


def refuse_other_roles(job: Job, card: ModelCard) -> None:
    """Refuse to register what is not the two series of the card, the fixed one first: results lie on the first.

    Raises
    ------
    NotEligible
        If the rule names others, or none.
    """
    roles = tuple(one.role for one in job.inputs)
    if card.registration is not None and roles != card.registration.roles:
        fixed, moving = card.registration.roles
        got = f"[inputs.{'], [inputs.'.join(roles)}]" if roles else "no [inputs]"
        raise NotEligible(
            f"{card.name} registers two series: its rule needs [inputs.{fixed}], then [inputs.{moving}], and has {got}."
        )


def registration_from(
    prediction: Prediction, card: ModelCard, fixed: Volume, start: Start | None
) -> Registration | None:
    """Measure a registration; None for a model that does not register.

    Parameters
    ----------
    prediction : ai.contract.Prediction
        As the model gave it.
    fixed : Volume
        The series that results lie on.
    start : Start, optional
        How the other was laid.

    Raises
    ------
    ai.contract.ModelInvalidOutput
        If there is none, if it mirrors the patient, or folds more of the body than the card allows.
    """
    if card.registration is None:
        return None
    found = prediction.registration
    if found is None or start is None:
        raise ModelInvalidOutput("The model does not say how the moving series lies on the fixed one.")
    if np.linalg.det(found.matrix[:3, :3]) <= 0:
        raise ModelInvalidOutput("The model's matrix makes the patient a mirror image.")
    motion = motion_of(found, body_in(fixed.array, fixed.affine, is_ct=fixed.datasets[0].get("Modality") == "CT"))
    most = card.registration.max_folded_percent
    if motion.folded_percent is not None and motion.folded_percent > most:
        raise ModelInvalidOutput(
            f"The model's field turns {motion.folded_percent:.1f} % of the body inside out; its card allows {most:g} %."
        )
    return Registration(
        *card.registration.roles,
        moving_frame_uid=start.frame_uid,
        is_one_frame=start.is_one_frame,
        start_mm=start.shift_mm,
        voxel_mm=start.voxel_mm,
        mean_mm=round(motion.mean_mm, 2),
        largest_mm=round(motion.largest_mm, 2),
        folded_percent=None if motion.folded_percent is None else round(motion.folded_percent, 3),
    )


def measured(registration: Registration | None) -> tuple[Measurement, ...]:
    """Give its numbers with codes and units."""
    if registration is None:
        return ()
    mean, largest, folded = registration.mean_mm, registration.largest_mm, registration.folded_percent
    said = (
        Measurement(codes.DISPLACEMENT, mean, codes.MILLIMETER, codes.MEAN),
        Measurement(codes.DISPLACEMENT, largest, codes.MILLIMETER, codes.MAXIMUM),
    )
    return said if folded is None else (*said, Measurement(codes.FOLDED, folded, codes.PERCENT))


def _middle(volume: Volume) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    at = (np.array(volume.array.shape) - 1) / 2
    return np.asarray(volume.affine[:3, :3] @ at + volume.affine[:3, 3], np.float64)
