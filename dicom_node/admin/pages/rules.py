"""The rules: what each wants, tried on a series or a file, and replayed over the last days."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request, UploadFile
from starlette.responses import Response

from dicom_node.admin.desk import desk_of
from dicom_node.admin.guard import needs
from dicom_node.admin.pages.models import WEEK
from dicom_node.admin.paper import page
from dicom_node.admin.trail import viewed
from dicom_node.admin.trial import LONGEST_REPLAY, LONGEST_RULE, replay, try_on_file, try_on_series
from dicom_node.catalog import rule_texts
from dicom_node.db import browse, overview, story
from dicom_node.db.engine import utc_now
from dicom_node.domain.people import Right
from dicom_node.domain.rule import Rule, Values
from dicom_node.errors import ConflictError, NotFoundError
from dicom_node.rule_file import parse_rule

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])
DAYS = (1, 7, 30, 90)
RuleText = Annotated[str, Form(max_length=LONGEST_RULE)]


@router.get("/rules")
def rules(
    request: Request,
    series: Annotated[str, Query(max_length=64)] = "",
    edit: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """List the rules; with a series, what they say of it."""
    if series:
        return _tried(request, series, "", None, {})
    text = rule_texts(desk_of(request).settings).get(edit, "")
    return _page(request, text=text)


@router.post("/rules/try")
def try_rules(
    request: Request,
    series: Annotated[str, Form(max_length=200)] = "",
    text: RuleText = "",
    file: UploadFile | None = None,
    slices: Annotated[str, Form(max_length=6)] = "",
    calling: Annotated[str, Form(max_length=16)] = "",
) -> Response:
    """Ask the rules, or the one that is written, about a series or a file."""
    facts: dict[str, Values] = {"complete": (True,)}
    if slices.isdecimal():
        facts["slices"] = (int(slices),)
    if calling.strip():
        facts["calling_ae"] = (calling.strip(),)
    data = file.file.read() if file is not None and file.size else None
    return _tried(request, series.strip(), text, data, facts)


@router.post("/rules/replay")
def replay_rule(
    request: Request, text: RuleText = "", days: Annotated[int, Form(ge=1, le=LONGEST_REPLAY)] = 7
) -> Response:
    """Say what the written rule would have matched, and what that would have cost."""
    desk = desk_of(request)
    rule, problems = parse_rule(text)
    if rule is None or problems:
        return _page(request, 400, text=text, problems=problems or ["the rule is empty"])
    with desk.reading() as tx:
        outcome = replay(tx, desk, rule, days)
    viewed(request, "replay", series=outcome.looked_at)
    return _page(request, text=text, replay=outcome, rule=rule)


def _tried(request: Request, at_hand: str, text: str, data: bytes | None, facts: dict[str, Values]) -> Response:
    desk = desk_of(request)
    asked: tuple[Rule, ...] = desk.catalog.rules
    problems: list[str] = []
    if text.strip():
        written, problems = parse_rule(text)
        asked = (written,) if written else ()
    row: Any = None
    matches: list[Any] = []
    try:
        if problems:
            pass
        elif data is not None:
            matches = try_on_file(data, facts, asked)
        else:
            with desk.reading() as tx:
                found = story.find_series(tx, at_hand) or [at_hand]
                matches = try_on_series(tx, desk, found[-1], asked)
                row = browse.read_series_row(tx, found[-1])
            viewed(request, "rules", series_id=row.id)
    except (NotFoundError, ConflictError) as error:
        problems = [str(error)]
    return _page(
        request, 400 if problems else 200, text=text, problems=problems, matches=matches, row=row, series=at_hand
    )


def _page(request: Request, status: int = 200, /, **shown: Any) -> Response:
    desk = desk_of(request)
    with desk.reading() as tx:
        counted = overview.by_rule(tx, utc_now() - WEEK)
    empty = {"problems": (), "matches": (), "row": None, "replay": None, "rule": None, "series": "", "text": ""}
    told = {"rules": desk.catalog.rules, "counted": counted, "days": DAYS, "not_taken": desk.rulebook.problems}
    return page(request, "rules.html", status, **{**empty, **told, **shown})
