"""Whether rules that want several series of a study name them as the bundles of their models do."""

from __future__ import annotations

from collections.abc import Iterator

from dicom_node.card import nearest
from dicom_node.catalog import Catalog
from dicom_node.domain.model import ModelCard
from dicom_node.domain.rule import Rule
from dicom_node.errors import ConfigurationError
from dicom_node.models.installed import look_at


def role_problems(catalog: Catalog) -> list[str]:
    """Say which rules that are switched on cannot give their model what it takes; each problem with rule and key."""
    rules = [rule for rule in catalog.rules if rule.enabled]
    return [f"rule {rule.name}: {problem}" for rule in rules for problem in _problems(rule, catalog)]


def roles_of(card: ModelCard) -> tuple[str, ...] | None:
    """Name the series that a model takes, by their roles; none where it takes one, None where nobody knows."""
    try:
        taken = look_at(card.bundle).inputs
    except ConfigurationError:
        return None  # whoever loads it says it better
    return taken[0].roles if taken else ()


def _problems(rule: Rule, catalog: Catalog) -> Iterator[str]:
    roles = roles_of(catalog.models[rule.model])
    if roles is None:
        return
    given = [role.name for role in rule.inputs]
    if roles and not given:
        yield f"inputs: {rule.model} takes {len(roles)} series; write [inputs.ROLE] for each of {', '.join(roles)}"
        return
    if not roles and len(given) > 1:
        yield f"inputs: {rule.model} takes one series"
    for name in given if roles else ():
        if name not in roles:
            yield f"inputs.{name}: {rule.model} takes {', '.join(roles)}{nearest(name, {*roles} - {*given})}"
    for name in roles:
        if name not in given:
            yield f"inputs: {rule.model} takes {name} as well; write [inputs.{name}]"
