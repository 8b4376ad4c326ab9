"""The rules as their files say now: read again when one changes, so that a rule needs no restart.

Rules that are wrong are not taken: the node goes on with those it has, and says so. Models and destinations belong to
processes that run, and are read when those start.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from threading import Lock

from dicom_node.catalog import Catalog, fingerprint, reread_rules
from dicom_node.settings import Settings

SETTLED_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """What became of rule files that changed: the rules that did, by name, or what is wrong with them."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Rulebook:
    """A catalog whose rules follow their files. May be asked by several threads.

    Parameters
    ----------
    settled_s : float
        How long changed files have to stay as they are before they are read: somebody may still be writing.

    Attributes
    ----------
    catalog : Catalog
        The one that counts.
    problems : tuple of str
        Why the files as they are now are not taken; empty when they are.
    """

    def __init__(self, settings: Settings, catalog: Catalog, settled_s: float = SETTLED_S) -> None:
        self.catalog = catalog
        self.problems: tuple[str, ...] = ()
        self._settings = settings
        self._settled_s = settled_s
        self._read = self._seen = catalog.rule_files
        self._seen_at = time.monotonic()
        self._lock = Lock()

    def look(self) -> Change | None:
        """Take the rules of files that changed. None: nothing did, or it has not settled yet."""
        if self._read is None:
            return None
        with self._lock:
            return self._look()

    def _look(self) -> Change | None:
        now = fingerprint(self._settings)
        if now != self._seen:
            self._seen, self._seen_at = now, time.monotonic()
        if now == self._read or time.monotonic() - self._seen_at < self._settled_s:
            return None
        self._read = now
        before = self.catalog
        after, problems = reread_rules(self._settings, before)
        self.problems = tuple(problems)
        if problems:
            _log.warning(
                "the rules were changed and are not taken, those of before still count: %s", "; ".join(problems)
            )
            return Change(problems=self.problems)
        self.catalog = after
        change = _difference(before, after)
        _log.info("rules read again: %s", ", ".join(r.name for r in after.rules) or "none")
        return change


def _difference(before: Catalog, after: Catalog) -> Change:
    old = {rule.name: rule for rule in before.rules}
    new = {rule.name: rule for rule in after.rules}
    return Change(
        added=tuple(name for name in new if name not in old),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
        removed=tuple(name for name in old if name not in new),
    )
