"""The rules: read, asked about a series or a file, and replayed over the last days. Nothing comes of the asking."""

from __future__ import annotations

from typing import Annotated

from fastapi import File, Form, HTTPException, Request, UploadFile

from dicom_node.admin.api import shapes
from dicom_node.admin.api.version import version_router
from dicom_node.admin.desk import desk_of
from dicom_node.admin.trail import viewed
from dicom_node.admin.trial import LONGEST_RULE, replay, try_on_file, try_on_series
from dicom_node.db import browse, story
from dicom_node.domain.rule import Match, Role, Rule, Values
from dicom_node.rule_file import parse_rule

router = version_router()


@router.get("/rules", tags=["rules"])
def rules(request: Request) -> list[shapes.Rule]:
    """List the rules in the order they are asked."""
    return [_rule(rule) for rule in desk_of(request).catalog.rules]


@router.post("/rules/test", tags=["rules"])
def try_series(request: Request, asked: shapes.AskedSeries) -> shapes.Tested:
    """Ask the rules, or the one that is given, about a series that is here, exactly as routing would."""
    desk = desk_of(request)
    wanted = _asked(request, asked.rule)
    with desk.reading() as tx:
        one = next(reversed(story.find_series(tx, asked.series.strip())), asked.series.strip())
        matches = try_on_series(tx, desk, one, wanted)
        row = browse.read_series_row(tx, one)
    viewed(request, "api rules", series_id=row.id)
    return shapes.Tested(
        series_id=row.id,
        series_instance_uid=row.series_instance_uid,
        accession_number=row.accession_number,
        matches=_matches(matches),
    )


@router.post("/rules/test/file", tags=["rules"])
def try_file(
    request: Request,
    file: Annotated[UploadFile, File(description="A DICOM file; nothing of it is kept.")],
    rule: Annotated[str, Form(max_length=LONGEST_RULE)] = "",
    slices: Annotated[int | None, Form(ge=0, le=100_000)] = None,
    calling_ae: Annotated[str, Form(max_length=16)] = "",
    called_ae: Annotated[str, Form(max_length=16)] = "",
) -> shapes.Tested:
    """Ask the rules, or the one that is given, about one file and what is said of its series."""
    facts: dict[str, Values] = {"complete": (True,)}
    for name, value in (("slices", slices), ("calling_ae", calling_ae.strip()), ("called_ae", called_ae.strip())):
        if value not in (None, ""):
            facts[name] = (value,)
    return shapes.Tested(matches=_matches(try_on_file(file.file.read(), facts, _asked(request, rule))))


@router.post("/rules/replay", tags=["rules"])
def replay_rule(request: Request, asked: shapes.ReplayRule) -> shapes.Replay:
    """Say what a changed rule would have matched in the last days, and how long its model would have computed."""
    desk = desk_of(request)
    rule = _parsed(asked.rule)
    with desk.reading() as tx:
        outcome = replay(tx, desk, rule, asked.days)
    viewed(request, "api replay", series=outcome.looked_at)
    shown = [
        shapes.ReplayedSeries(
            series_id=one.row.id,
            series_instance_uid=one.row.series_instance_uid,
            accession_number=one.row.accession_number,
            closed_at=one.row.closed_at,
            matched=one.match.matched,
            matched_before=one.matched_before,
            reasons=_matches([one.match])[0].reasons,
        )
        for one in outcome.shown
    ]
    return shapes.Replay(
        days=outcome.days,
        looked_at=outcome.looked_at,
        matched=outcome.matched,
        studies=outcome.studies,
        gained=outcome.gained,
        lost=outcome.lost,
        new_jobs=outcome.new_jobs,
        model_s=outcome.model_s,
        model_s_per_day=None if outcome.model_s is None else outcome.model_s / outcome.days,
        history=outcome.history,
        truncated=outcome.truncated,
        series=shown,
    )


def _asked(request: Request, text: str) -> tuple[Rule, ...]:
    return (_parsed(text),) if text.strip() else desk_of(request).catalog.rules


def _parsed(text: str) -> Rule:
    """Read a rule.

    Raises
    ------
    HTTPException
        422 with everything that is wrong with it, in the words of ``dicom-node check``.
    """
    rule, problems = parse_rule(text)
    if rule is None or problems:
        raise HTTPException(422, f"The rule is not valid: {'; '.join(problems) or 'it is empty'}.")
    return rule


def _rule(rule: Rule) -> shapes.Rule:
    return shapes.Rule(
        name=rule.name,
        enabled=rule.enabled,
        model=rule.model,
        destinations=list(rule.destinations),
        priority=rule.priority.name.lower(),
        report_failures=rule.report_failures,
        shadow=rule.shadow,
        conditions=[str(condition) for condition in rule.conditions],
        inputs=[_input(role) for role in rule.inputs],
        wait_s=rule.wait_s if rule.inputs else None,
    )


def _input(role: Role) -> shapes.RuleInput:
    conditions = [str(condition) for condition in role.conditions]
    return shapes.RuleInput(role=role.name, conditions=conditions, prefer=[each.value for each in role.prefer])


def _matches(matches: list[Match]) -> list[shapes.Match]:
    return [shapes.Match.model_validate(match) for match in matches]
