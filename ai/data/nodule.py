"""A nodule as a reference knows it: where, how large, of which kind."""

from __future__ import annotations

from dataclasses import dataclass

ATTENUATIONS = ("solid", "part-solid", "ground-glass")
MARGINS = ("smooth", "spiculated")


@dataclass(frozen=True, slots=True)
class Nodule:
    """One nodule of a reference.

    Parameters
    ----------
    centre_mm : (float, float, float)
        LPS patient coordinates.
    diameter_mm : float
        Of the sphere of the same volume where a mask is known, else as the reference gives it.
    attenuation : str
        One of `ATTENUATIONS`; empty where the reference does not say.
    margin : str
        One of `MARGINS`; empty where the reference does not say.
    volume_ml : float, optional
        None where nobody outlined it.
    malignancy : float, optional
        1 (highly unlikely) to 5 (highly suspicious), the mean over the readers (LIDC-IDRI).
    excluded : bool
        Neither to be found nor wrong to be found: below 3 mm, not a nodule, or marked by too few readers.
    instance : int, optional
        Its value in the case's instance map; None where there is no mask.
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    attenuation: str = ""
    margin: str = ""
    volume_ml: float | None = None
    malignancy: float | None = None
    excluded: bool = False
    instance: int | None = None
