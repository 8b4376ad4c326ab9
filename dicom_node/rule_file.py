"""One rule, read from the text of its file: what it says, and everything that is wrong with it."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

from dicom_node.card import Name, Table, Text, nearest, parse_table
from dicom_node.domain.job import Priority
from dicom_node.domain.rule import FACTS, PREFERENCES, Condition, Operator, Preference, Role, Rule, Scalar

WAIT_S = 1800.0  # for the other series of a study, where a rule does not say it
_PREFER = "prefer"

_NUMBERS = {"DS", "IS", "FL", "FD", "SL", "SS", "SV", "UL", "US", "UV", "US or SS"}
_UNCOMPARABLE = {"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "OB or OW", "UN", "AT"}
_NUMERIC_FACTS = {"slices", "slice_spacing_mm"}
# Names, addresses, identifiers and birth dates of people are compared but never shown.
_PERSONAL_VR = {"PN", "DA", "DT"}
_PERSONAL_WORDS = ("Patient", "Person", "Physician", "Operator")
_IMPERSONAL = {
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "ContentDate",
    "PatientPosition",
    "PatientSex",
    "PatientAge",
}
_IMPERSONAL |= {"ImagePositionPatient", "ImageOrientationPatient", "PatientOrientation", "PatientSize", "PatientWeight"}


class RuleFile(Table):
    """The keys of a rule file; `when` and `inputs` hold conditions by what they ask for."""

    name: Name | None = None
    enabled: bool = True
    model: Text
    destinations: tuple[Text, ...] = ()
    shadow: bool = False
    priority: Literal["stat", "high", "routine", "low"] = "routine"
    report_failures: bool = True
    wait_s: Annotated[float | None, Field(gt=0, le=7 * 86_400)] = None
    when: Annotated[dict[str, Any], Field(default_factory=dict)]
    inputs: Annotated[dict[Name, dict[str, Any]], Field(default_factory=dict)]


def parse_rule(text: str, name: str = "as written") -> tuple[Rule | None, list[str]]:
    """Read a rule from the text of a rule file, which need not be one.

    Parameters
    ----------
    name : str
        What the rule is called when the text does not say it.

    Returns
    -------
    (Rule or None, list of str)
        The rule, and what is wrong with it; None when it cannot be read at all.
    """
    problems: list[str] = []
    file = Path(name)
    found = parse_table(text, file, RuleFile, problems)
    rule = make_rule(found, file, problems) if found else None
    return rule, [problem.removeprefix(f"{file}: ") for problem in problems]


def make_rule(found: RuleFile, file: Path, problems: list[str]) -> Rule:
    """Make the rule that a file describes; what is wrong with it goes to `problems`, each with the file and the key."""
    conditions = tuple(_all_conditions("when", found.when, file, problems))
    inputs = tuple(_role(name, wanted, file, problems) for name, wanted in found.inputs.items())
    if not found.when and not inputs:
        problems.append(f"{file}: when: name at least one condition")
    if found.wait_s is not None and not inputs:
        problems.append(f"{file}: wait_s: only a rule with [inputs.ROLE] waits for other series")
    if not found.destinations and not found.shadow:
        problems.append(f"{file}: destinations: name at least one, or say shadow = true to keep results and send none")
    return Rule(
        name=found.name or file.stem[:64],
        model=found.model,
        destinations=() if found.shadow else tuple(dict.fromkeys(found.destinations)),
        shadow=found.shadow,
        conditions=conditions,
        priority=Priority[found.priority.upper()],
        enabled=found.enabled,
        report_failures=found.report_failures,
        inputs=inputs,
        wait_s=found.wait_s or WAIT_S,
    )


def _role(name: str, wanted: Mapping[str, Any], file: Path, problems: list[str]) -> Role:
    key = f"inputs.{name}"
    conditions = {each: operand for each, operand in wanted.items() if each != _PREFER}
    if not conditions:
        problems.append(f"{file}: {key}: name at least one condition that only its series meet")
    prefer = wanted.get(_PREFER, [])
    words = prefer if isinstance(prefer, list) else [prefer]
    known = [each.value for each in Preference]
    for word in words:
        if word not in known:
            problems.append(f"{file}: {key}.{_PREFER}: there is no {word!r}; use {', '.join(known)}")
    named = tuple(Preference(word) for word in words if word in known)
    return Role(name, tuple(_all_conditions(key, conditions, file, problems)), named or PREFERENCES)


def _all_conditions(table: str, asked: Mapping[str, Any], file: Path, problems: list[str]) -> Iterator[Condition]:
    for key, wanted in asked.items():
        try:
            yield from _conditions(key, wanted)
        except ValueError as error:
            problems.append(f"{file}: {table}.{key}: {error}")


def _conditions(key: str, wanted: object) -> list[Condition]:
    """Conditions on one key; raises ValueError with what is wrong with it."""
    kind = _kind(key)
    if not isinstance(wanted, dict):
        wanted = {Operator.ONE_OF.value: wanted}
    if not wanted:
        raise ValueError(f"give a value, a list of values or a table of {_operators()}")
    shown = not _is_personal(key)
    return [Condition(key, *_comparison(key, name, operand, kind), shown) for name, operand in wanted.items()]


def _kind(key: str) -> str:
    """``number``, ``bool`` or ``text``: what the key's values are."""
    if key in FACTS:
        return "number" if key in _NUMERIC_FACTS else "bool" if key == "complete" else "text"
    tag = tag_for_keyword(key)
    if tag is None:
        raise ValueError(f"is neither a DICOM keyword nor a fact of the series{nearest(key, {*keyword_dict, *FACTS})}")
    vr = dictionary_VR(tag)
    if vr in _UNCOMPARABLE:
        raise ValueError(f"holds no value that a rule can compare (VR {vr})")
    return "number" if vr in _NUMBERS else "text"


def _comparison(key: str, name: str, operand: object, kind: str) -> tuple[Operator, tuple[Scalar, ...]]:
    try:
        operator = Operator(name)
    except ValueError:
        raise ValueError(f"there is no comparison {name!r}; use {_operators()}") from None
    operands = tuple(operand) if isinstance(operand, list) else (operand,)
    if not operands:
        raise ValueError(f"{name}: the list is empty, so nothing would ever match")
    if any(not isinstance(o, (str, int, float, bool)) for o in operands):
        raise ValueError(f"{name}: only text, numbers and true or false can be compared")
    _check_operands(key, operator, operands, kind)
    return operator, operands


def _check_operands(key: str, operator: Operator, operands: tuple[Any, ...], kind: str) -> None:
    if operator is Operator.WITHIN:
        _check_networks(key, operands)
        return
    of_type = {str: "text", bool: "true or false"}
    kinds = {of_type.get(type(o), "number") for o in operands}
    match operator:
        case Operator.EXISTS:
            wanted, single = "true or false", True
        case Operator.AT_LEAST | Operator.AT_MOST:
            if kind != "number":
                raise ValueError(f"{operator.value}: the values of this key are not numbers")
            wanted, single = "number", True
        case Operator.CONTAINS | Operator.MATCHES:
            wanted, single = "text", False
        case _:
            wanted, single = {"bool": "true or false"}.get(kind, kind), False
            if kind == "text":
                kinds.discard("number")  # "AccessionNumber = 5" says what it means
                kinds.add("text")
    if kinds != {wanted} or (single and len(operands) > 1):
        raise ValueError(f"{operator.value}: give {'one ' if single else ''}{wanted}")
    if any(isinstance(o, float) and not math.isfinite(o) for o in operands):
        raise ValueError(f"{operator.value}: the number has to be finite")


def _check_networks(key: str, operands: tuple[Any, ...]) -> None:
    if key != "address":
        raise ValueError("within: only address can lie in a network")
    for operand in operands:
        try:
            ipaddress.ip_network(str(operand), strict=False)
        except ValueError:
            raise ValueError(f"within: {operand!r} is no network; write 10.0.0.0/24, or one address") from None


def _is_personal(key: str) -> bool:
    if key in FACTS or key in _IMPERSONAL:
        return False
    tag = tag_for_keyword(key)
    return tag is not None and (
        dictionary_VR(tag) in _PERSONAL_VR or tag >> 16 == 0x0010 or any(word in key for word in _PERSONAL_WORDS)
    )


def _operators() -> str:
    return ", ".join(operator.value for operator in Operator)
