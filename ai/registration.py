"""How a moving image lies on a fixed one, as a bundle says it: a displacement of every voxel, or one matrix.

A field is read as MONAI's `Warp` takes it: what is at a voxel of the fixed image is found in the moving one so many
voxels further, along the axes of the image that the network was shown. A matrix is read as its `AffineHead` makes it:
it takes indices of the fixed image to indices of the moving one. Either may be in mm of the patient instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from ai.contract import ModelInvalidOutput, Registration
from ai.registration_form import MATRIX, RegistrationForm

Affine = NDArray[np.float64]
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from RAS, and back
_ROWS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Grids:
    """Where the voxels of both images lie as the network was shown them: index to mm, RAS."""

    fixed: Affine
    moving: Affine

    @classmethod
    def of(cls, data: Mapping[str, Any], roles: tuple[str, ...], image: torch.Tensor) -> Grids:
        """Read them of what the transforms gave, the fixed image first; one that they joined has the place of both."""
        found = [_affine_of(data.get(role, image)) for role in roles]
        return cls(found[0], found[-1])


def raw_registration(answer: Any, form: RegistrationForm, name: str) -> Any:
    """Take what is wanted of what a network gave: of a table by its name, of several answers by its size."""
    if isinstance(answer, Mapping):
        return answer.get(name)
    several = list(answer) if isinstance(answer, list | tuple) else [answer]
    return next((each for each in several if form.fits(each.shape[1:])), several[0])


def registration_in(answer: Any, form: RegistrationForm, grids: Grids) -> Registration:
    """Read a post-processed answer.

    Parameters
    ----------
    answer : torch.Tensor or numpy.ndarray
        A field, shape (3, a, b, c), as a `MetaTensor` with its own place, whether or not it was taken back to the grid
        of the source; or a matrix of 12 or 16 numbers.
    form : RegistrationForm
        How it is written.
    grids : Grids
        Of the two images.

    Returns
    -------
    Registration
        In the patient, LPS.

    Raises
    ------
    ModelInvalidOutput
        If it has another shape, or is not finite.
    """
    if form.what == MATRIX:
        return Registration(matrix=_matrix(_numbers(answer), form, grids))
    array = _numbers(answer)
    if not form.fits(array.shape):
        raise ModelInvalidOutput(f"The model's displacement field has the shape {array.shape}, not 3 channels.")
    own = _affine_of(answer) if isinstance(answer, MetaTensor) else grids.fixed
    vectors = _vectors(array.astype(np.float32), form, grids, own) * np.diag(_LPS)[:3].astype(np.float32)
    affine = _LPS @ own[:, [2, 1, 0, 3]]
    return Registration(np.ascontiguousarray(vectors.transpose(2, 1, 0, 3)), affine)


def _affine_of(image: Any) -> Affine:
    if not isinstance(image, MetaTensor):
        raise ModelInvalidOutput("The bundle's transforms lose where its images lie.")
    return np.array(image.affine.cpu().numpy(), np.float64)


def _numbers(answer: Any) -> NDArray[np.floating]:
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu().numpy()
    if not isinstance(answer, np.ndarray):
        raise ModelInvalidOutput("The model's registration is no table of numbers.")
    if not np.isfinite(answer).all():
        raise ModelInvalidOutput("The model's registration contains NaN or infinity.")
    return answer


def _vectors(array: NDArray[np.float32], form: RegistrationForm, grids: Grids, own: Affine) -> NDArray[np.float32]:
    """From each voxel of the field to where its tissue is in the moving image: mm, RAS, shape (a, b, c, 3)."""
    channels_last = np.moveaxis(array, 0, -1)
    if form.space:
        return channels_last * np.diag(_space(form))[:3].astype(np.float32)
    vectors = channels_last @ grids.moving[:3, :3].T.astype(np.float32)
    if np.allclose(grids.moving, grids.fixed, atol=1e-4):
        return vectors
    apart = grids.moving @ np.linalg.inv(grids.fixed) @ own - own  # the same index is at another place in each
    a, b, c = (np.arange(size, dtype=np.float32) for size in array.shape[1:])
    steps = [np.multiply.outer(index, apart[:3, axis].astype(np.float32)) for axis, index in enumerate((a, b, c))]
    vectors += steps[0][:, None, None] + steps[1][None, :, None] + steps[2][None, None, :]
    return np.asarray(vectors + apart[:3, 3].astype(np.float32), np.float32)


def _matrix(numbers: NDArray[np.floating], form: RegistrationForm, grids: Grids) -> Affine:
    """From the fixed to the moving image: mm, LPS."""
    if not form.fits(numbers.shape):
        raise ModelInvalidOutput(f"The model's matrix has {numbers.size} numbers, not 12 or 16.")
    given = np.eye(4)
    given[: numbers.size // 4] = numbers.astype(np.float64).reshape(-1, 4)
    if not np.allclose(given[_ROWS], (0, 0, 0, 1), atol=1e-6):
        raise ModelInvalidOutput("The last row of the model's matrix is not 0 0 0 1.")
    if form.space:
        space = _space(form)
        return _LPS @ space @ given @ space @ _LPS
    return _LPS @ grids.moving @ given @ np.linalg.inv(grids.fixed) @ _LPS


def _space(form: RegistrationForm) -> Affine:
    return _LPS if form.space == "LPS" else np.eye(4)
