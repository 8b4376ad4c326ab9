"""Rules: which series go to which model, and the reasons that explain every decision.

A condition compares values; it is never evaluated as code. What an attribute or fact may hold is a tuple of values,
empty when the series does not have it.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from dicom_node.domain.job import Priority

Scalar = str | int | float | bool
Values = tuple[Scalar, ...]

# What assembly knows of a series beyond its attributes; docs/rules.md says what each one means.
ORIGIN = (
    "calling_ae",
    "called_ae",
    "address",
    "implementation",
    "account",
)  # how it came, of everyone who sent some of it
FACTS: tuple[str, ...] = ("slices", "slice_spacing_mm", "complete", *ORIGIN)
_LONGEST_SHOWN = 64


class Operator(StrEnum):
    """How a condition compares, by the key it has in a rule file."""

    ONE_OF = "one_of"
    NOT = "not"
    CONTAINS = "contains"
    MATCHES = "matches"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    WITHIN = "within"
    EXISTS = "exists"


_WORDS = {
    Operator.ONE_OF: "is",
    Operator.NOT: "is not",
    Operator.CONTAINS: "contains",
    Operator.MATCHES: "matches",
    Operator.AT_LEAST: "at least",
    Operator.AT_MOST: "at most",
    Operator.WITHIN: "within",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison.

    Attributes
    ----------
    key : str
        A DICOM keyword or one of `FACTS`.
    operands : tuple
        What to compare with; several mean "or". For ``exists`` one bool.
    shown : bool
        False when the value found may identify a person: then it stays out of the reasons, and so out of the audit.
    """

    key: str
    operator: Operator
    operands: Values
    shown: bool = True

    def __str__(self) -> str:
        if self.operator is Operator.EXISTS:
            return f"{self.key} is {'present' if self.operands[0] else 'absent'}"
        return f"{self.key} {_WORDS[self.operator]} {' or '.join(_text(o) for o in self.operands)}"

    def held_by(self, values: Values) -> bool:
        """Whether the values meet the condition.

        Of several values one has to for ``one_of``, ``contains``, ``matches`` and ``within``, every one for
        ``at_least`` and ``at_most``, none may for ``not``. An absent value meets only ``not`` and ``exists = false``.
        """
        match self.operator:
            case Operator.EXISTS:
                return bool(values) == self.operands[0]
            case Operator.NOT:
                return not any(_same(v, o) for v in values for o in self.operands)
            case Operator.ONE_OF:
                return any(_same(v, o) for v in values for o in self.operands)
            case Operator.CONTAINS:
                return any(_folded(o) in _folded(v) for v in values for o in self.operands)
            case Operator.MATCHES:
                return any(fnmatchcase(_folded(v), _folded(o)) for v in values for o in self.operands)
            case Operator.WITHIN:
                return any(_within(v, o) for v in values for o in self.operands)
            case Operator.AT_LEAST | Operator.AT_MOST:
                return bool(values) and all(self._bounds(v) for v in values)

    def _bounds(self, value: Scalar) -> bool:
        number, bound = _number(value), _number(self.operands[0])
        if number is None or bound is None:
            return False
        return number >= bound if self.operator is Operator.AT_LEAST else number <= bound


class Preference(StrEnum):
    """By what one of several series is chosen that could all fill a role."""

    THINNEST = "thinnest"
    MOST_SLICES = "most slices"
    NEWEST = "newest"
    OLDEST = "oldest"


PREFERENCES = (Preference.THINNEST, Preference.MOST_SLICES, Preference.NEWEST)


@dataclass(frozen=True, slots=True)
class Role:
    """One of the series of a study that a model works on: what fills it, and what is preferred of what could."""

    name: str
    conditions: tuple[Condition, ...]
    prefer: tuple[Preference, ...] = PREFERENCES


@dataclass(frozen=True, slots=True)
class Rule:
    """Which series go to which model, and where its results go.

    A `shadow` has no destinations: what its jobs make is kept, to be compared, and never sent.
    `report_failures` says whether the destinations are told when a job of this rule ends without a result.
    A rule with `inputs` wants several series of one study, one in each role, and waits `wait_s` for them; the results
    lie on the series in the first. A series has to meet its `conditions` and those of a role.
    """

    name: str
    model: str
    destinations: tuple[str, ...]
    conditions: tuple[Condition, ...]
    priority: Priority = Priority.ROUTINE
    enabled: bool = True
    report_failures: bool = True
    shadow: bool = False
    inputs: tuple[Role, ...] = ()
    wait_s: float = 0.0

    @property
    def all_conditions(self) -> tuple[Condition, ...]:
        """Those of the rule and those of its roles."""
        return (*self.conditions, *(condition for role in self.inputs for condition in role.conditions))

    @property
    def keys(self) -> frozenset[str]:
        """Every keyword and fact that the conditions ask for."""
        return frozenset(c.key for c in self.all_conditions)


@dataclass(frozen=True, slots=True)
class Reason:
    """What one condition came to: "Modality is CT: yes", "slices at least 20: no, 3"; in a role, if it is one's."""

    condition: str
    held: bool
    found: str
    role: str = ""

    def __str__(self) -> str:
        asked = f"{self.role}: {self.condition}" if self.role else self.condition
        return f"{asked}: yes" if self.held else f"{asked}: no, {self.found}"


@dataclass(frozen=True, slots=True)
class Match:
    """What one rule came to on one series, with the reason of every condition; of a study's rule, the `roles` it fits.

    A series that fits several roles is used in one.
    """

    rule: str
    matched: bool
    reasons: tuple[Reason, ...]
    roles: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = [r for r in self.reasons if (r.role in ("", *self.roles) if self.matched else not r.held)]
        how = f"matched{' as ' if self.roles else ''}{' or '.join(self.roles)}" if self.matched else "did not match"
        return f"rule {self.rule} {how}: {'; '.join(map(str, told))}"


def match_rule(rule: Rule, values: Mapping[str, Values]) -> Match:
    """Compare a series with a rule; every condition is looked at, so that every reason is known.

    Parameters
    ----------
    values : mapping of str to tuple
        The values of each keyword and fact that the rule names; an absent key counts as no value.
    """
    if not rule.enabled:
        return Match(rule.name, False, (Reason("the rule is enabled", False, "it is switched off"),))
    reasons = tuple(_reasons(rule.conditions, values))
    fits = all(r.held for r in reasons)
    if not rule.inputs:
        return Match(rule.name, fits, reasons)
    of_roles = {role.name: tuple(_reasons(role.conditions, values, role.name)) for role in rule.inputs}
    roles = tuple(name for name, asked in of_roles.items() if fits and all(r.held for r in asked))
    return Match(rule.name, bool(roles), (*reasons, *(r for asked in of_roles.values() for r in asked)), roles)


def _reasons(conditions: tuple[Condition, ...], values: Mapping[str, Values], role: str = "") -> Iterator[Reason]:
    for condition in conditions:
        found = values.get(condition.key, ())
        shown = _found(found) if condition.shown else "value not shown"
        yield Reason(str(condition), condition.held_by(found), shown, role)


def _found(values: Values) -> str:
    if not values:
        return "not present"
    text = "\\".join(_text(v) for v in values)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def _same(value: Scalar, operand: Scalar) -> bool:
    if isinstance(value, bool) or isinstance(operand, bool):
        return value is operand
    if isinstance(value, str) and isinstance(operand, str):
        return _folded(value) == _folded(operand)
    number, wanted = _number(value), _number(operand)
    if number is not None and wanted is not None:
        return math.isclose(number, wanted, rel_tol=1e-9)
    return _folded(value) == _folded(operand)


def _within(value: Scalar, network: Scalar) -> bool:
    """Whether an IP address lies in a network; what is no address lies in none."""
    try:
        return ipaddress.ip_address(str(value)) in ipaddress.ip_network(str(network), strict=False)
    except ValueError:
        return False


def _folded(value: Scalar) -> str:
    return _text(value).casefold()


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.10g}" if isinstance(value, float) else str(value).strip(" \0")


def _number(value: Scalar) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
