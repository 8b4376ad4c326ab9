"""Let a challenger take the champion's place: in the rules, which is where it is said what runs for whom."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection

from dicom_node.catalog import load_catalog, rule_files, rule_problems
from dicom_node.db.audit import record
from dicom_node.domain.audit import AuditEvent, Event
from dicom_node.errors import ConflictError, NotFoundError
from dicom_node.settings import Settings

_MODEL = re.compile(r"""^(\s*model\s*=\s*)(["'])([^"']*)\2""", re.MULTILINE)


def promote(
    writing: Callable[[], AbstractContextManager[Connection]],
    settings: Settings,
    challenger: str,
    champion: str,
    *,
    actor: str,
) -> dict[str, str]:
    """Swap two models in every rule that names one of them: what ran as a shadow is sent, and the other is the shadow.

    Parameters
    ----------
    writing : callable
        Opens a transaction for the audit event. It begins when the files are written: a slow disk holds up no receiver.

    Returns
    -------
    dict of str to str
        The rules that were changed, by name, and the model of each now.

    Raises
    ------
    NotFoundError
        When the node has no such model.
    ConflictError
        When no rule names the champion, or a rule file cannot be written or would be wrong afterwards; then no file is
        changed, and none is when the database does not take the event.
    ConfigurationError
        When the rules are wrong already.
    """
    catalog = load_catalog(settings)
    for name in (challenger, champion):
        if name not in catalog.models:
            raise NotFoundError(f"this node has no model {name} ({', '.join(sorted(catalog.models))})")
    if not any(rule.model == champion and not rule.shadow for rule in catalog.rules):
        raise ConflictError(f"no rule sends results of {champion}: there is no place to take")
    other = {challenger: champion, champion: challenger}
    before, after, now = {}, {}, {}
    for name, file in rule_files(settings).items():
        text = file.read_text(encoding="utf-8")
        found = _MODEL.search(text)
        if found and found[3] in other:
            before[file] = text
            after[file] = (
                text[: found.start()] + f"{found[1]}{found[2]}{other[found[3]]}{found[2]}" + text[found.end() :]
            )
            now[name] = other[found[3]]
    try:
        for file, text in after.items():
            _replace(file, text)
        problems = rule_problems(settings)
        if problems:
            raise ConflictError("; ".join(problems))
        with writing() as tx:
            detail = {"model": challenger, "instead of": champion, "rules": now}
            record(tx, AuditEvent(Event.MODEL_PROMOTED, actor=actor, detail=detail))
    except Exception as error:
        for file, text in before.items():
            _replace(file, text)
        if isinstance(error, (OSError, ConflictError)):
            raise ConflictError(f"the rules stay as they were: {error}") from error
        raise
    return now


def _replace(file: Path, text: str) -> None:
    """Write a file so that at any moment either the old one or the new one is there."""
    new = file.with_suffix(".new")
    with new.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    new.chmod(file.stat().st_mode & 0o777)
    new.replace(file)
