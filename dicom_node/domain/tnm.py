"""T category of a lung cancer by size alone (TNM 8th edition; the 9th, in force since 2025, left T as it was).

Rami-Porta et al., J Thorac Oncol 2015;10:990-1003; subsolid tumours: Travis et al., J Thorac Oncol 2016;11:1204-23;
9th edition: Van Schil et al., J Thorac Oncol 2024;19:749-65. Invasion, atelectasis and satellite nodules raise T and
are not looked at; and nothing here says that a nodule is a cancer.
"""

from __future__ import annotations

from dicom_node.domain.nodule import Attenuation, Conclusion, Nodule, NotCalculated, millimetres, up_to

_BY_SIZE = ((10, "T1a"), (20, "T1b"), (30, "T1c"), (40, "T2a"), (50, "T2b"), (70, "T3"))
_SMALL_MM = 30  # up to it a subsolid tumour may be in situ or minimally invasive
_MINIMAL_MM = 5


def t_by_size(nodule: Nodule) -> Conclusion | NotCalculated:
    """Name the T category that the size alone would give, were the nodule a cancer.

    Returns
    -------
    Conclusion
        ``Tis``, ``T1mi``, ``T1a`` … ``T4``. The longest diameter on the axial plane decides, of a part-solid nodule
        that of its solid part, in whole millimetres.
    """
    total = millimetres(nodule.long_mm)
    match nodule.attenuation:
        case None:
            return NotCalculated("whether the nodule is solid is not known")
        case Attenuation.SOLID:
            value, words = up_to(total, _BY_SIZE, "T4")
            return _said(value, f"solid, longest axial diameter {total} mm: {words}")
        case Attenuation.GROUND_GLASS:
            small = total <= _SMALL_MM
            words = f"pure ground glass, longest axial diameter {total} mm: {'≤' if small else '>'} {_SMALL_MM} mm"
            return _said("Tis" if small else "T1a", words)
        case Attenuation.PART_SOLID:
            solid = millimetres(nodule.solid_long_mm)
            value, words = up_to(solid, _BY_SIZE, "T4")
            if solid <= _MINIMAL_MM and total <= _SMALL_MM:
                value, words = "T1mi", f"≤ {_MINIMAL_MM} mm in a nodule ≤ {_SMALL_MM} mm"
            return _said(value, f"part-solid, {total} mm, longest axial diameter of the solid part {solid} mm: {words}")


def _said(value: str, because: str) -> Conclusion:
    return Conclusion(value, f"{because} → {value} by size, if it were a cancer")
