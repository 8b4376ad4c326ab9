"""The audit trail: read it, and prove that nobody changed it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node.cli.command import (
    FAILED,
    Command,
    as_json_text,
    console,
    database,
    moment,
    read_settings,
    with_settings,
)

if TYPE_CHECKING:
    from dicom_node.db.chain import Head

TAIL_TOO_OLD = timedelta(minutes=10)


@click.group()
def audit() -> None:
    """Read the audit trail, and prove that nobody changed it."""


@audit.command(
    "list", cls=Command, example="dicom-node audit list --since 24h\ndicom-node audit list --event 'job failed' --json"
)
@with_settings
@click.option("--event", "events", multiple=True, metavar="EVENT", help="Only these events; may be repeated.")
@click.option("--actor", default="", metavar="NAME", help="Only what NAME did: node, or operator and a user's name.")
@click.option("--job", default="", metavar="ID", help="Only about this job; its first characters are enough.")
@click.option("--series", default="", metavar="UID", help="Only about this series.")
@click.option("--study", default="", metavar="UID", help="Only about this study.")
@click.option("--since", metavar="WHEN", help="Only since then: 30m, 24h, 7d, or a date and time.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def list_(
    settings_file: Path,
    events: tuple[str, ...],
    actor: str,
    job: str,
    series: str,
    study: str,
    since: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List audit events, newest first. docs/operations.md tells what each one means."""
    from dicom_node.db.audit import AuditFilter, list_events

    which = AuditFilter(events, actor, job, series, study, moment(since) if since else None, limit)
    with database(read_settings(settings_file), to_read=True) as tx:
        found = [dict(row._mapping) for row in list_events(tx, which)]
    if as_json:
        click.echo(json.dumps(found, default=as_json_text, indent=1))
        return
    for row in found:
        detail = json.dumps(row["detail"], ensure_ascii=False) if row["detail"] else ""
        click.echo(f"{row['at'].astimezone():%Y-%m-%d %H:%M:%S}  {row['event']}  [{row['actor']}]  {detail}".rstrip())
    if not found:
        click.echo("no such events", err=True)


@audit.command(cls=Command, example="dicom-node audit verify\ndicom-node audit verify --expect 12345:9f86d081884c7d65…")
@with_settings
@click.option("--expect", metavar="HEAD", help="A head that was noted earlier, NUMBER:HASH; the log has one each hour.")
def verify(settings_file: Path, expect: str | None) -> None:
    """Prove that no event was changed, removed or put between others since it was chained.

    Names the first place where that is not so, and ends with exit status 1. What a chain alone cannot show is that its
    end was cut off or redone: compare with a head noted earlier (--expect), best outside of this machine.
    """
    from dicom_node.db.chain import verify as prove
    from dicom_node.db.engine import open_engine
    from dicom_node.db.migrate import check_database

    settings = read_settings(settings_file)
    engine = open_engine(settings.database.url, pool_size=1)
    try:
        check_database(engine, settings)
        with console(stderr=True).status("computing the chain anew"):
            found = prove(engine, _head(expect) if expect else None)
    finally:
        engine.dispose()
    click.echo(f"{found.head.no} events are chained; head {found.head}")
    if found.unchained:
        oldest = found.oldest_unchained
        click.echo(f"{found.unchained} events have no place yet; the oldest is of {oldest:%Y-%m-%d %H:%M:%S} UTC")
        if oldest and datetime.now(UTC) - oldest > TAIL_TOO_OLD:
            click.echo("dicom-node: nobody chains them: is `dicom-node maintain` running?", err=True)
    if found.broken:
        click.echo(f"dicom-node: the chain is broken: {found.broken}", err=True)
        raise SystemExit(FAILED)


def _head(text: str) -> Head:
    from dicom_node.db.chain import Head

    no, _, digest = text.strip().partition(":")
    if not no.isdigit() or len(digest) != 64:
        raise click.BadParameter(f"{text!r} is no head, as the log and `audit verify` write it", param_hint="--expect")
    return Head(int(no), digest.lower())
