"""Size classes of the Fleischner Society for incidental nodules, 2017.

MacMahon et al., Radiology 2017;284:228-43; measuring: Bankier et al., Radiology 2017;285:584-600. Only the row of the
table is named, never a follow-up: that depends on the patient's risk, which the images do not hold. The guideline is
not for screening, for patients under 35, with a known cancer or with immunosuppression; only the age can be checked.
"""

from __future__ import annotations

from decimal import Decimal

from dicom_node.domain.nodule import Attenuation, Conclusion, Nodule, NotCalculated, mean_in_millimetres

YOUNGEST = 35
_LETTER = {Attenuation.SOLID: "S", Attenuation.PART_SOLID: "P", Attenuation.GROUND_GLASS: "G"}


def size_class(nodule: Nodule, nodules_in_scan: int, age_years: float | None) -> Conclusion | NotCalculated:
    """Name the row of the Fleischner table that a nodule belongs to.

    Parameters
    ----------
    nodules_in_scan : int
        The table has one row for a single nodule and one for several.
    age_years : float, optional
        None where the age is not known: the class is then given, and says so.

    Returns
    -------
    Conclusion
        ``S1-6-8``, in words ``single solid nodule, 6 to 8 mm``: density (S, P, G), single or several (1, N), size.
    """
    if nodule.attenuation is None:
        return NotCalculated("whether the nodule is solid is not known")
    if age_years is not None and age_years < YOUNGEST:
        return NotCalculated(f"the guideline is for patients of {YOUNGEST} years and more")
    mean = mean_in_millimetres(nodule.long_mm, nodule.short_mm)
    size, short = _size(nodule.attenuation, mean.mm)
    single = nodules_in_scan == 1
    words = f"{'single' if single else 'one of several'} {nodule.attenuation} nodule{'' if single else 's'}, {size}"
    unknown = "" if age_years is not None else "; the age is not known"
    because = f"{nodule.attenuation}, mean diameter {mean.text} → {words}{unknown}"
    return Conclusion(f"{_LETTER[nodule.attenuation]}{'1' if single else 'N'}-{short}", because, words)


def _size(attenuation: Attenuation, mean_mm: Decimal) -> tuple[str, str]:
    if mean_mm < 6:
        return "< 6 mm", "LT6"
    if attenuation is not Attenuation.SOLID:
        return "≥ 6 mm", "GE6"
    return ("6 to 8 mm", "6-8") if mean_mm <= 8 else ("> 8 mm", "GT8")
