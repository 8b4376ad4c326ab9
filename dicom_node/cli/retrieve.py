"""Ask studies back from an archive: batches that the node works off."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicom_node.cli.command import Command, actor, as_json_text, console, database, read_settings, with_settings

if TYPE_CHECKING:
    from dicom_node.domain.retrieval import BatchState, Kind
    from dicom_node.settings import Settings

_batch = click.argument("batch")


@click.group()
def retrieve() -> None:
    """Ask studies back from an archive, in batches that survive restarts."""


@retrieve.command(
    cls=Command,
    example="dicom-node retrieve start pacs --accessions list.csv --night 22:00-06:00 --rate 10\n"
    "dicom-node retrieve start pacs --how get --study 1.2.840.113619.2.55.3 --to AI_TRIAL",
)
@with_settings
@click.argument("source")
@click.option("--accessions", type=click.File(), help="A file with accession numbers, or a CSV with such a column.")
@click.option("--studies", type=click.File(), help="A file with Study Instance UIDs.")
@click.option("--accession", multiple=True, metavar="NUMBER", help="One accession number. May be repeated.")
@click.option("--study", multiple=True, metavar="UID", help="One Study Instance UID. May be repeated.")
@click.option("--how", type=click.Choice(["move", "get", "wado"]), help="[default: move; wado from a DICOMweb service]")
@click.option("--to", "called", metavar="AE", default="", help="Our AE title that they come to.  [default: the node's]")
@click.option(
    "--night", "hours", metavar="HH:MM-HH:MM", default="", help="Only in these hours, by this machine's clock."
)
@click.option("--rate", "per_minute", type=click.FloatRange(0, min_open=True), metavar="N", help="At most N a minute.")
def start(
    settings_file: Path,
    source: str,
    accessions: Any,
    studies: Any,
    accession: tuple[str, ...],
    study: tuple[str, ...],
    how: str | None,
    called: str,
    hours: str,
    per_minute: float | None,
) -> None:
    """Make a batch. SOURCE is a destination of the settings that also answers queries.

    What comes goes the road of everything that is received: name AE titles with --to, and rules for them, to say which
    model runs. A C-MOVE comes to our own receiver, so the archive has to know our AE title, host and port, and be one
    of receive.peers. The batch is worked off by `dicom-node fetch`, which `serve` runs where retrieve.enabled says so.
    """
    from dicom_node.db import retrievals
    from dicom_node.domain.night import Hours
    from dicom_node.domain.retrieval import Kind

    settings = read_settings(settings_file)
    items = [(Kind.ACCESSION, one) for one in (*_column(accessions, "accession"), *accession)]
    items += [(Kind.STUDY, one) for one in (*_column(studies, "study"), *study)]
    _check(items)
    try:
        hours = str(Hours.read(hours)) if hours else ""
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--night") from None
    how = _how(settings, source, how)
    titles = settings.receive.called_ae or (settings.node.ae_title,)
    called = called or titles[0]
    if called not in titles:
        raise click.BadParameter(f"{called} is no title of ours ({', '.join(titles)})", param_hint="--to")
    with database(settings) as tx:
        batch = retrievals.add_batch(
            tx, source, how, items, called_ae=called, hours=hours, per_minute=per_minute, actor=actor()
        )
    click.echo(f"retrieval {batch[:8]}: {len(dict.fromkeys(items))} items from {source}")
    if how == "move" and (stranger := _stranger(settings, source)):
        click.echo(f"dicom-node: {stranger} is not in receive.peers: what it sends us is rejected", err=True)
    if not settings.retrieve.enabled:
        click.echo("dicom-node: retrieve.enabled is false: `dicom-node fetch` has to run for it", err=True)


@retrieve.command("list", cls=Command, example="dicom-node retrieve list")
@with_settings
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def list_(settings_file: Path, *, as_json: bool) -> None:
    """List batches, newest first."""
    from rich.table import Table

    from dicom_node.db import retrievals

    with database(read_settings(settings_file)) as tx:
        found = retrievals.list_batches(tx)
    if as_json:
        click.echo(json.dumps(found, default=as_json_text, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("batch", "made", "source", "state", "waiting", "done", "failed", "canceled", "instances"):
        table.add_column(name)
    for row in found:
        counted = [str(row["items"].get(name, 0)) for name in ("waiting", "done", "failed", "canceled", "instances")]
        made = f"{row['created_at'].astimezone():%Y-%m-%d %H:%M}"
        table.add_row(row["id"][:8], made, f"{row['source']} ({row['how']})", row["state"], *counted)
    console().print(table)


@retrieve.command(cls=Command, example="dicom-node retrieve show 7f3a09c1")
@with_settings
@_batch
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def show(settings_file: Path, batch: str, *, as_json: bool) -> None:
    """List the items of a batch: what became of each, and why. BATCH is its id; the first characters are enough."""
    from rich.table import Table

    from dicom_node.db import retrievals

    with database(read_settings(settings_file)) as tx:
        items = retrievals.list_items(tx, retrievals.find_batch(tx, batch).id)
    if as_json:
        click.echo(json.dumps([dict(one._mapping) for one in items], default=as_json_text, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("item", "state", "attempt", "studies", "instances", "reason"):
        table.add_column(name, overflow="fold")
    for one in items:
        table.add_row(one.value, one.state, str(one.attempt), str(one.studies), str(one.instances), one.reason)
    console().print(table)


@retrieve.command(cls=Command, example="dicom-node retrieve pause 7f3a09c1")
@with_settings
@_batch
def pause(settings_file: Path, batch: str) -> None:
    """Hold a batch; the study that is under way is finished. BATCH is its id; the first characters are enough."""
    from dicom_node.domain.retrieval import BatchState

    click.echo(f"retrieval {_change(settings_file, batch, BatchState.PAUSED)} is paused")


@retrieve.command(cls=Command, example="dicom-node retrieve resume 7f3a09c1")
@with_settings
@_batch
def resume(settings_file: Path, batch: str) -> None:
    """Let a batch go on. BATCH is its id; the first characters are enough."""
    from dicom_node.domain.retrieval import BatchState

    click.echo(f"retrieval {_change(settings_file, batch, BatchState.RUNNING)} goes on")


@retrieve.command(cls=Command, example="dicom-node retrieve cancel 7f3a09c1")
@with_settings
@_batch
def cancel(settings_file: Path, batch: str) -> None:
    """End a batch; what came stays. BATCH is its id; the first characters are enough."""
    from dicom_node.domain.retrieval import BatchState

    click.echo(f"retrieval {_change(settings_file, batch, BatchState.CANCELED)} is canceled")


def _change(settings_file: Path, batch: str, state: BatchState) -> str:
    from dicom_node.db import retrievals

    with database(read_settings(settings_file)) as tx:
        return retrievals.change_batch(tx, batch, state, actor=actor())[:8]


def _how(settings: Settings, source: str, how: str | None) -> str:
    from dicom_node.errors import NotFoundError

    section = settings.destinations.get(source)
    if section is None:
        known = ", ".join(settings.destinations) or "none"
        raise NotFoundError(f"{settings.file}: there is no [destinations.{source}]; there is: {known}")
    ways = {"dimse": ("move", "get"), "stow": ("wado",)}.get(section.kind, ())
    if not ways or (how and how not in ways):
        raise click.BadParameter(f"{source} is of kind {section.kind}: {' or '.join(ways) or 'it cannot be asked'}")
    return how or ways[0]


def _stranger(settings: Settings, source: str) -> str:
    """Name the AE title of a source that may not send to us; empty when it may."""
    ae_title = str(getattr(settings.destinations[source], "ae_title", ""))
    known = settings.receive.accept_any_peer or any(peer.ae_title == ae_title for peer in settings.receive.peers)
    return "" if known else ae_title


def _check(items: list[tuple[Kind, str]]) -> None:
    from dicom_node.domain.retrieval import problem_of

    problems = [problem for kind, value in items if (problem := problem_of(kind, value))]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise click.BadParameter("; ".join(problems[:5]) + more)
    if not items:
        raise click.UsageError("name what to retrieve: --accessions, --studies, --accession or --study")


def _column(file: Any, word: str) -> list[str]:
    """Read a list: one value a line, or of a CSV with a head the column whose name holds the word."""
    if file is None:
        return []
    rows = [[cell.strip().strip('"') for cell in re.split(r"[,;\t]", line)] for line in file if line.strip()]
    if not rows:
        return []
    head = [re.sub(r"[^a-z]", "", cell.lower().lstrip("\ufeff")) for cell in rows[0]]
    named = [n for n, cell in enumerate(head) if word in cell and "date" not in cell and "description" not in cell]
    column = named[0] if named else 0
    return [row[column] for row in rows[1 if named else 0 :] if len(row) > column and row[column]]
