"""What rules ask for of a series, and what they say of it; nothing comes of the asking."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

from dicom_node.db.series import ClosedSeries, StoredInstance
from dicom_node.domain.rule import FACTS, Match, Rule, Scalar, Values, match_rule
from dicom_node.domain.study import HEADER, Verdict
from dicom_node.errors import SpoolError
from dicom_node.route.study import ACQUIRED
from dicom_node.spool import Spool

logger = logging.getLogger(__name__)


def ask_rules(series: ClosedSeries, verdict: Verdict, rules: Iterable[Rule], spool: Spool) -> list[Match]:
    """Compare a series with rules, as routing does; nothing comes of it."""
    asked = list(rules)
    values = values_of(series, verdict, asked, read_attributes(series, verdict, asked, spool))
    return [match_rule(rule, values) for rule in asked]


def ask_rules_of_file(ds: Dataset, facts: Mapping[str, Values], rules: Iterable[Rule]) -> list[Match]:
    """Compare one data set, with what is said of its series, with rules."""
    asked = list(rules)
    keys = {key for rule in asked for key in rule.keys} - {*FACTS}
    values = {**{key: _of_data_set(ds, key) for key in keys}, **facts}
    return [match_rule(rule, values) for rule in asked]


def ask_rules_of_header(
    header: Mapping[str, Any], path: str, facts: Mapping[str, Values], rules: Iterable[Rule], spool: Spool
) -> list[Match]:
    """Compare what is kept of one instance, with what is said of its series, with rules."""
    asked = list(rules)
    keys = {key for rule in asked if rule.enabled for key in rule.keys} - {*FACTS}
    kept = {key: _scalars(header.get(key)) for key in keys & {*HEADER}}
    read = _read(StoredInstance("", path, dict(header)), keys - {*HEADER}, spool)
    return [match_rule(rule, {**kept, **read, **facts}) for rule in asked]


def first_slice(series: ClosedSeries, verdict: Verdict) -> StoredInstance:
    """Give the instance that a series speaks through: the lowest slice of its volume, else the first that came."""
    by_uid = {instance.sop_instance_uid: instance for instance in series.instances}
    return by_uid[verdict.slices[0]] if verdict.slices else series.instances[0]


def _of_data_set(ds: Dataset, keyword: str) -> Values:
    try:
        return _scalars(ds.get(keyword))
    except (ValueError, TypeError, AttributeError, NotImplementedError):
        return ()


def values_of(
    series: ClosedSeries, verdict: Verdict, rules: Iterable[Rule], attributes: Mapping[str, Values]
) -> dict[str, Values]:
    """Everything that the rules ask for, of the first slice of the volume; `attributes` are those from its file."""
    header = first_slice(series, verdict).header
    facts = {key: (verdict.facts[key],) for key in FACTS if key in verdict.facts}
    return {
        **{key: _scalars(header.get(key)) for key in _keys(rules) & {*HEADER}},
        **attributes,
        **facts,
        **series.origin,
    }


def read_attributes(
    series: ClosedSeries, verdict: Verdict, rules: Iterable[Rule], spool: Spool
) -> Mapping[str, Values]:
    """What the rules ask for of the first slice and its row does not keep, from its file.

    Not to be called in a transaction that writes: the file may be slow to come, and every receiver would wait for it.
    """
    return _read(first_slice(series, verdict), _keys(rules) - {*HEADER} - {*FACTS}, spool)


def _keys(rules: Iterable[Rule]) -> set[str]:
    """Attributes and facts that rules ask for; of series that are to go together, when each was acquired, too."""
    asked = list(rules)
    of_studies = any(rule.inputs for rule in asked)
    return {*(ACQUIRED if of_studies else ()), *(key for rule in asked if rule.enabled for key in rule.keys)}


def _read(first: StoredInstance, keywords: set[str], spool: Spool) -> Mapping[str, Values]:
    """Attributes that are not kept in the row, from the file. What cannot be read counts as absent."""
    if not keywords:
        return {}
    try:
        ds = dcmread(spool.path(first.path), stop_before_pixels=True, specific_tags=sorted(keywords))
        return {keyword: _scalars(ds.get(keyword)) for keyword in keywords}
    except (SpoolError, InvalidDicomError, OSError, ValueError, AttributeError, NotImplementedError) as error:
        logger.warning("instance %s: attributes for the rules cannot be read: %s", first.sop_instance_uid, error)
        return {}


def _scalars(value: Any) -> Values:
    values = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    return tuple(_scalar(v) for v in values if v is not None and str(v).strip(" \0"))


def _scalar(value: Any) -> Scalar:
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)
