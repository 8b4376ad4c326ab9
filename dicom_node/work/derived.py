"""What is calculated from measurements: guideline categories of each nodule and of the scan, the grade of a lung."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ai.measure.place import Third
from dicom_node.domain import codes
from dicom_node.domain.brock import Risk, probability_percent
from dicom_node.domain.finding import Code, Measurement, NotRun, Quality
from dicom_node.domain.fleischner import size_class
from dicom_node.domain.lung_rads import Exam, exam_category, nodule_category
from dicom_node.domain.model import Derived
from dicom_node.domain.nodule import Attenuation, Conclusion, Margin, Nodule, NotCalculated
from dicom_node.domain.person import age_years, is_female, smokes
from dicom_node.domain.severity import grade_of
from dicom_node.domain.tnm import t_by_size
from dicom_node.work.detections import Found

_ZONES = {Third.UPPER: codes.UPPER_ZONE, Third.MIDDLE: codes.MIDDLE_ZONE, Third.LOWER: codes.LOWER_ZONE}
_NAMES = {
    Derived.LUNG_RADS: "Lung-RADS category",
    Derived.FLEISCHNER: "Fleischner size class",
    Derived.TNM_T_SIZE: "T category by size",
    Derived.BROCK: "Malignancy risk",
}


@dataclass(frozen=True, slots=True)
class Context:
    """What calculations need to know beyond one nodule.

    Attributes
    ----------
    header : mapping
        DICOM keyword to value.
    family_history : bool, optional
        Of lung cancer.
    emphysema_percent : float, optional
        LAA-950 of both lungs.
    why_incomplete : str
        Why a nodule may lie where nobody looked.
    """

    header: Mapping[str, Any]
    family_history: bool | None = None
    emphysema_percent: float | None = None
    why_incomplete: str = ""


@dataclass(frozen=True, slots=True)
class Calculated:
    """What was calculated of the nodules of one kind, in their order, and of the scan."""

    qualities: tuple[tuple[Quality, ...], ...]
    measurements: tuple[tuple[Measurement, ...], ...]
    of_scan: tuple[Quality, ...]
    not_run: tuple[NotRun, ...]


def calculate(wanted: Sequence[str], found: Sequence[Found], labels: Sequence[str], context: Context) -> Calculated:
    """Calculate what a card asks for.

    Parameters
    ----------
    wanted : sequence of str
        Names of `Derived`.
    found : sequence of Found
        All that are reported of one kind.
    labels : sequence of str
        Their names in the report.
    """
    nodules = [nodule_of(it) for it in found]
    qualities: list[list[Quality]] = [[] for _ in found]
    numbers: list[list[Measurement]] = [[] for _ in found]
    of_scan: list[Quality] = []
    missing: dict[tuple[str, str], None] = {}
    for name in wanted:
        if name == Derived.BROCK:
            reasons = _add_risks(nodules, context, qualities, numbers)
        elif name in _RULES:
            reasons = _add_categories(_RULES[name], nodules, context, qualities)
        else:
            continue
        if name == Derived.LUNG_RADS:
            reasons = _add_exam(nodules, labels, context, of_scan)
        missing |= {(_NAMES[Derived(name)], reason): None for reason in reasons}
    not_run = tuple(NotRun(what, why, "not calculated") for what, why in missing)
    return Calculated(tuple(map(tuple, qualities)), tuple(map(tuple, numbers)), tuple(of_scan), not_run)


def nodule_of(found: Found) -> Nodule | None:
    """See a detection as guidelines do; None where the volume has no axial slices to measure it on."""
    size = found.marked.diameters
    if size is None:
        return None
    solid = found.marked.solid if found.marked.is_part_solid else None
    attenuation, margin = (found.answers.get(question, ("",))[0] for question in ("attenuation", "margin"))
    organ = found.organ.type.value if found.organ else ""
    return Nodule(
        attenuation=Attenuation(attenuation) if attenuation else None,
        long_mm=size.long_mm,
        short_mm=size.short_mm,
        solid_long_mm=solid.long_mm if solid else 0.0,
        solid_short_mm=solid.short_mm if solid else 0.0,
        margin=Margin(margin) if margin else None,
        upper_lobe=organ in codes.UPPER_LOBES if organ in codes.UPPER_LOBES | codes.OTHER_LOBES else None,
        surface_mm=found.marked.surface_mm,
    )


def zone_quality(third: Third) -> Quality:
    """Name the third of the height of the lung that something lies in."""
    return Quality(codes.ZONE, _ZONES[third], f"{third} third of the height of the lung as it was outlined; no lobe")


def grade_quality(opacified_percent: float) -> Quality:
    """Grade the opacified share of a lung."""
    grade, conclusion = grade_of(opacified_percent)
    return Quality(codes.OPACIFICATION_GRADE, codes.opacification_grade(grade), conclusion.because)


def answer_qualities(found: Found) -> tuple[Quality, ...]:
    """Give the classes that the model chose, in the codes of the card."""
    return tuple(
        Quality(found.card.classes[question].concept, found.card.classes[question].answers[answer], f"{share:.0%}")
        for question, (answer, share) in found.answers.items()
    )


_Rule = tuple[Callable[[Nodule, int, Context], Conclusion | NotCalculated], Code, Callable[[Conclusion], Code]]
_RULES: Mapping[str, _Rule] = {
    Derived.LUNG_RADS: (
        lambda nodule, count, context: nodule_category(nodule),
        codes.LUNG_RADS,
        lambda said: codes.lung_rads_category(said.value),
    ),
    Derived.FLEISCHNER: (
        lambda nodule, count, context: size_class(nodule, count, age_years(context.header)),
        codes.FLEISCHNER,
        lambda said: codes.fleischner_class(said.value, said.words),
    ),
    Derived.TNM_T_SIZE: (
        lambda nodule, count, context: t_by_size(nodule),
        codes.TNM_T,
        lambda said: codes.t_category(said.value),
    ),
}
_NO_AXIAL = NotCalculated("the images are not axial")


def _add_categories(
    rule: _Rule, nodules: Sequence[Nodule | None], context: Context, qualities: list[list[Quality]]
) -> list[str]:
    calculate, name, code = rule
    reasons = []
    for nodule, said in zip(nodules, qualities, strict=True):
        conclusion = calculate(nodule, len(nodules), context) if nodule else _NO_AXIAL
        if isinstance(conclusion, Conclusion):
            said.append(Quality(name, code(conclusion), conclusion.because))
        else:
            reasons.append(conclusion.reason)
    return reasons


def _add_risks(
    nodules: Sequence[Nodule | None],
    context: Context,
    qualities: list[list[Quality]],
    numbers: list[list[Measurement]],
) -> list[str]:
    risk = Risk(
        age_years=age_years(context.header),
        female=is_female(context.header),
        family_history=context.family_history,
        emphysema_percent=context.emphysema_percent,
        nodules=len(nodules),
        smokes=smokes(context.header),
    )
    reasons = []
    for nodule, said, measured in zip(nodules, qualities, numbers, strict=True):
        result = probability_percent(nodule, risk) if nodule else _NO_AXIAL
        if isinstance(result, NotCalculated):
            reasons.append(result.reason)
            continue
        percent, conclusion = result
        measured.append(Measurement(codes.PROBABILITY_OF_CANCER, round(percent, 1), codes.PERCENT))
        said.append(Quality(codes.BROCK, codes.brock_model(conclusion.value), conclusion.because))
    return reasons


def _add_exam(
    nodules: Sequence[Nodule | None], labels: Sequence[str], context: Context, of_scan: list[Quality]
) -> list[str]:
    categories = [nodule_category(nodule) if nodule else _NO_AXIAL for nodule in nodules]
    conclusion = exam_category(Exam(dict(zip(labels, categories, strict=True)), context.why_incomplete))
    if isinstance(conclusion, NotCalculated):
        return [conclusion.reason]
    of_scan.append(Quality(codes.LUNG_RADS, codes.lung_rads_category(conclusion.value), conclusion.because))
    return []
