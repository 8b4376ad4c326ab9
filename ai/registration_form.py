"""How a bundle writes a registration, read from its metadata: a field or a matrix, in voxels or in mm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FIELD, MATRIX = "displacement field", "matrix"
_FIELDS = ("ddf", "dvf", "displacement", "displacement_field", "deformation", "deformation_field", "dense_displacement")
_MATRICES = ("affine", "theta", "matrix", "affine_matrix", "transform_matrix", "rigid")
_AXES = 3
_SPACES = ("RAS", "LPS")
_MILLIMETRES = ("mm", "millimeter", "millimetre", "millimeters", "millimetres")


@dataclass(frozen=True, slots=True)
class RegistrationForm:
    """How a registration is written.

    Attributes
    ----------
    what : str
        `FIELD` or `MATRIX`.
    space : str
        ``RAS`` or ``LPS``, in mm of the patient; empty for voxels of the image that the network was shown.
    problem : str
        What metadata leaves open, as a sentence without its full stop; else empty.
    """

    what: str
    space: str = ""
    problem: str = ""

    @classmethod
    def of(cls, name: str, said: Mapping[str, Any]) -> RegistrationForm | None:
        """Read it from what metadata says of an output: its format, its type, or its name.

        Parameters
        ----------
        name : str
            Of the output.
        said : mapping
            From ``network_data_format.outputs``. Its ``space`` says that it is in mm.

        Returns
        -------
        RegistrationForm or None
            None where it is no registration.
        """
        words = [_word(said.get(key)) for key in ("format", "type")]
        kind = _kind(words) or (_kind([_word(name)]) if not any(words) or "image" in words else "")
        if not kind:
            return None
        space = str(said.get("space", "")).upper()
        if space in _SPACES:
            return cls(kind, space)
        if _word(said.get("units", said.get("unit"))) in _MILLIMETRES:
            return cls(kind, "", f"its metadata.json gives {name} in mm and does not say along which axes (space)")
        return cls(kind)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an answer of this shape can be one: of a field 3 channels, of a matrix 12 or 16 numbers."""
        if self.what == FIELD:
            return len(shape) == 1 + _AXES and shape[0] == _AXES
        return math.prod(shape) in (12, 16)

    def __str__(self) -> str:
        return f"{self.what} in {f'mm ({self.space})' if self.space else 'voxels'}"


def _kind(words: list[str]) -> str:
    if any(word in _FIELDS for word in words):
        return FIELD
    return MATRIX if any(word in _MATRICES for word in words) else ""


def _word(said: Any) -> str:
    return str(said or "").strip().lower().replace(" ", "_").replace("-", "_")
