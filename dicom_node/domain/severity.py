"""Grade of opacification of one lung: the CT severity score of a lobe, applied to a lung.

Pan et al., Radiology 2020;295:715-21: each lobe is graded by the share of it that is involved. Here the share is
measured instead of judged by eye, and a whole lung takes the place of a lobe: the grade is not their score of 0 to 25.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from dicom_node.domain.nodule import Conclusion

_LIMITS = ((0, 0, "none"), (4, 1, "< 5 %"), (25, 2, "5 to 25 %"), (49, 3, "26 to 49 %"), (75, 4, "50 to 75 %"))


def grade_of(opacified_percent: float) -> tuple[int, Conclusion]:
    """Grade an opacified share from 0 to 5. Whole per cent decide, halves upwards.

    Parameters
    ----------
    opacified_percent : float
        0 to 100.
    """
    percent = int(Decimal(repr(opacified_percent)).quantize(Decimal(1), ROUND_HALF_UP))
    for most, grade, words in _LIMITS:
        if percent <= most:
            return grade, _said(percent, words, grade)
    return 5, _said(percent, "> 75 %", 5)


def _said(percent: int, words: str, grade: int) -> Conclusion:
    return Conclusion(str(grade), f"{percent} % of the lung opacified: {words} → grade {grade} of 5")
