"""Ask studies back from an archive: batches that the node works off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicom_node.cli.command import Command, actor, as_json_text, console, database, read_settings, with_settings

if TYPE_CHECKING:
    from dicom_node.domain.retrieval import BatchState

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
    from dicom_node import operate
    from dicom_node.domain.retrieval import Kind, values_of

    settings = read_settings(settings_file)
    items = [(Kind.ACCESSION, one) for one in (*values_of(accessions or (), "accession"), *accession)]
    items += [(Kind.STUDY, one) for one in (*values_of(studies or (), "study"), *study)]
    with database(settings) as tx:
        batch, cautions = operate.retrieve(
            tx,
            settings,
            source,
            items,
            how=how or "",
            called=called,
            hours=hours,
            per_minute=per_minute,
            actor=actor(),
        )
    click.echo(f"retrieval {batch[:8]}: {len(dict.fromkeys(items))} items from {source}")
    for caution in cautions:
        click.echo(f"dicom-node: {caution}", err=True)


@retrieve.command("list", cls=Command, example="dicom-node retrieve list")
@with_settings
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def list_(settings_file: Path, *, as_json: bool) -> None:
    """List batches, newest first."""
    from rich.table import Table

    from dicom_node.db import retrievals

    with database(read_settings(settings_file), to_read=True) as tx:
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

    with database(read_settings(settings_file), to_read=True) as tx:
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
