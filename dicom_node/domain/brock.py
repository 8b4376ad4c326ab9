"""Probability of cancer in a nodule at a first screening CT: the full Brock (PanCan) models.

McWilliams et al., N Engl J Med 2013;369:910-9, models 2a (without spiculation) and 2b (with it), made for current and
former smokers of 50 to 75 years. Coefficients of 2b also as in Uthoff et al., Eur Radiol 2019;29:5367-77, table 2. The
parsimonious models 1a and 1b are left out: their coefficients could not be checked against a second source.

Nothing is guessed: with an input missing there is no probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dicom_node.domain.nodule import Attenuation, Conclusion, Margin, Nodule, NotCalculated, tenths

EMPHYSEMA_PERCENT = (
    5.0  # LAA-950 of both lungs from which emphysema counts as present (Amaza et al., COPD 2021;16:1231)
)


@dataclass(frozen=True, slots=True)
class Risk:
    """What the models ask of the person and of the scan; None where it is not known.

    Attributes
    ----------
    emphysema_percent : float, optional
        LAA-950 of both lungs together.
    nodules : int
        How many nodules the scan shows.
    smokes : bool, optional
        No term of the models; whom they were made for.
    """

    age_years: float | None
    female: bool | None
    family_history: bool | None
    emphysema_percent: float | None
    nodules: int
    smokes: bool | None = None


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    constant: float
    age: float
    female: float
    family_history: float
    emphysema: float
    size: float
    part_solid: float
    ground_glass: float
    upper_lobe: float
    count: float
    spiculation: float


_WITHOUT_SPICULATION = _Model(
    "2a", -6.8071, 0.0321, 0.5635, 0.3013, 0.3462, -5.6693, 0.3395, -0.3055, 0.7116, -0.0803, 0.0
)
_WITH_SPICULATION = _Model(
    "2b", -6.7892, 0.0287, 0.6011, 0.2961, 0.2953, -5.3854, 0.3770, -0.1276, 0.6581, -0.0824, 0.7729
)
_AGES = (50, 75)
_CENTRED_AGE, _CENTRED_SIZE, _CENTRED_COUNT = 62.0, 1.58113883, 4


def probability_percent(nodule: Nodule, risk: Risk) -> tuple[float, Conclusion] | NotCalculated:
    """Calculate the probability that a nodule is a cancer, in %.

    Parameters
    ----------
    nodule : Nodule
        Its longest axial diameter is the size of the model.
    risk : Risk
        Of the person.

    Returns
    -------
    (float, Conclusion)
        The probability, and which model with which inputs.
    NotCalculated
        Naming every input that is missing.
    """
    if missing := _missing(nodule, risk):
        return NotCalculated(f"{', '.join(missing)} unknown")
    assert risk.age_years is not None, "what is missing was named above"
    assert risk.emphysema_percent is not None, "what is missing was named above"
    model = _WITHOUT_SPICULATION if nodule.margin is None else _WITH_SPICULATION
    emphysema = risk.emphysema_percent >= EMPHYSEMA_PERCENT
    size_mm = float(tenths(nodule.long_mm))
    log_odds = (
        model.constant
        + model.age * (risk.age_years - _CENTRED_AGE)
        + model.female * bool(risk.female)
        + model.family_history * bool(risk.family_history)
        + model.emphysema * emphysema
        + model.size * ((size_mm / 10) ** -0.5 - _CENTRED_SIZE)
        + model.part_solid * (nodule.attenuation is Attenuation.PART_SOLID)
        + model.ground_glass * (nodule.attenuation is Attenuation.GROUND_GLASS)
        + model.upper_lobe * bool(nodule.upper_lobe)
        + model.count * (risk.nodules - _CENTRED_COUNT)
        + model.spiculation * (nodule.margin is Margin.SPICULATED)
    )
    percent = 100.0 / (1.0 + math.exp(-log_odds))
    return percent, Conclusion(f"full model {model.name}", f"{_inputs(nodule, risk, emphysema)} → {percent:.1f} %")


def _missing(nodule: Nodule, risk: Risk) -> list[str]:
    wanted = {
        "age": risk.age_years,
        "sex": risk.female,
        "family history of lung cancer": risk.family_history,
        "emphysema": risk.emphysema_percent,
        "attenuation": nodule.attenuation,
        "lobe": nodule.upper_lobe,
        "size": nodule.long_mm if nodule.long_mm > 0 else None,
    }
    return [name for name, value in wanted.items() if value is None]


def _inputs(nodule: Nodule, risk: Risk, emphysema: bool) -> str:
    parts = [
        "woman" if risk.female else "man",
        f"{risk.age_years:.0f} years",
        f"{'a' if risk.family_history else 'no'} family history",
        f"{'emphysema' if emphysema else 'no emphysema'} ({risk.emphysema_percent:.1f} % below -950 HU)",
        f"{nodule.attenuation}, {tenths(nodule.long_mm)} mm",
        f"{'upper' if nodule.upper_lobe else 'not upper'} lobe",
        f"{risk.nodules} nodule{'' if risk.nodules == 1 else 's'}",
        str(nodule.margin) if nodule.margin is not None else "margin not judged",
    ]
    return ", ".join(parts) + _remark(risk)


def _remark(risk: Risk) -> str:
    assert risk.age_years is not None, "what is missing was named before"
    youngest, oldest = _AGES
    if youngest <= risk.age_years <= oldest and risk.smokes:
        return ""
    return f" (the model was made for smokers and former smokers of {youngest} to {oldest} years)"
