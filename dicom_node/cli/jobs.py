"""Look at jobs and change what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicom_node.cli.command import (
    Command,
    actor,
    as_json_text,
    console,
    database,
    moment,
    read_settings,
    with_settings,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

STATES = ("scheduled", "in progress", "completed", "canceled", "failed")


@click.command(
    cls=Command, example="dicom-node jobs --state failed --since 24h\ndicom-node jobs --accession A12345 --json"
)
@with_settings
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--patient", default="", metavar="ID", help="Only jobs of this patient ID.")
@click.option("--accession", default="", metavar="NUMBER", help="Only jobs of this accession number.")
@click.option("--study", default="", metavar="UID", help="Only jobs of this study.")
@click.option("--series", default="", metavar="UID", help="Only jobs of this series.")
@click.option("--model", default="", metavar="NAME", help="Only jobs of this model.")
@click.option("--job", default="", metavar="ID", help="Only this job; its first characters are enough.")
@click.option("--since", metavar="WHEN", help="Only jobs made since then: 30m, 24h, 7d, or a date and time.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array with results and deliveries.")
def jobs(settings_file: Path, since: str | None, as_json: bool, limit: int, **names: Any) -> None:
    """List jobs, newest first."""
    from dicom_node.db.listing import JobFilter, list_jobs

    given = {name: text for name, text in names.items() if text}
    which = JobFilter(since=moment(since) if since else None, limit=limit, **given)
    with database(read_settings(settings_file), to_read=True) as tx:
        found = list_jobs(tx, which)
    if as_json:
        click.echo(json.dumps(found, default=as_json_text, indent=1))
    elif found:
        console().print(_table(found))
    else:
        asked = next(filter(None, (given.get(name) for name in ("accession", "series", "study", "patient"))), "")
        hint = f"; `dicom-node explain {asked}` says what came of it" if asked else ""
        click.echo(f"no such jobs{hint}", err=True)


@click.command(
    cls=Command,
    example="dicom-node explain A12345\ndicom-node explain 1.2.840.113619.2.55.3\ndicom-node explain 7f3a09c1",
)
@with_settings
@click.argument("identifier")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def explain(settings_file: Path, identifier: str, as_json: bool) -> None:
    """Tell the whole story of a series in time order, and end with where the result is or why there is none.

    IDENTIFIER is an accession number, a patient ID, the UID of a study, series or instance (received or made here),
    a job's id (its first characters are enough), or the AE title of a peer that was rejected.
    """
    from dicom_node.explain import clock_time
    from dicom_node.explain import explain as tell

    with database(read_settings(settings_file), to_read=True) as tx:
        stories = tell(tx, identifier)
    if as_json:
        click.echo(json.dumps([asdict(story) for story in stories], default=as_json_text, indent=1))
        return
    for number, story in enumerate(stories):
        click.echo(("\n" if number else "") + click.style(story.title, bold=True))
        for line in story.lines:
            first, *more = line.text.splitlines()
            click.echo(f"{(at := clock_time(line.at))}  {first}")
            for text in more:
                click.echo(f"{'':{len(at)}}    {text}")
        click.echo(click.style(story.answer, bold=True))


@click.command(cls=Command, example="dicom-node report 7f3a09c1\ndicom-node report 7f3a09c1 | mail -s result ward")
@with_settings
@click.argument("job")
@click.option("--viewer", is_flag=True, help="The report for viewers, not the whole one.")
@click.option("--patient", is_flag=True, help="Say whose it is, too; without, nothing in it names the patient.")
def report(settings_file: Path, job: str, viewer: bool, patient: bool) -> None:
    """Print the structured report of a job as text, read from the object that is sent.

    JOB is its id; the first characters are enough. A job that failed has a report that says so.
    """
    from dicom_node import app
    from dicom_node.db.browse import results_of
    from dicom_node.db.interventions import find_job
    from dicom_node.domain.model import OutputKind
    from dicom_node.errors import NotFoundError, SpoolError
    from dicom_node.results.text import as_text, report_lines

    settings, kind = read_settings(settings_file), OutputKind.VIEWER_SR if viewer else OutputKind.SR
    with database(settings) as tx:
        made = results_of(tx, find_job(tx, job).id).get(kind)
    if made is None:
        raise NotFoundError(f"job {job} has made no {kind} (yet)")
    if made.deleted_at is not None:
        raise NotFoundError(f"the {kind} of job {job} was deleted on {made.deleted_at:%Y-%m-%d} (retention)")
    try:
        data = app.open_spool(settings).path(made.path).read_bytes()
    except OSError as error:
        raise SpoolError(f"The report is not in the spool any more: {error.strerror}.") from error
    click.echo(as_text(report_lines(data, patient=patient)))


@click.command(cls=Command, example="dicom-node retry 7f3a09c1\ndicom-node retry 7f3a09c1 --model chest_ct")
@with_settings
@click.argument("job")
@click.option("--model", default="", metavar="NAME", help="Run this model on its series instead.")
def retry(settings_file: Path, job: str, model: str) -> None:
    """Run an ended job again: a new job on the same series, with the model as it is now.

    Of several volumes in the series it takes the one that the model's card names.

    JOB is its id; the first characters are enough. The old job keeps its results; those of the new one have UIDs of
    their own.
    """
    from dicom_node import app, operate
    from dicom_node.catalog import load_catalog

    settings = read_settings(settings_file)
    catalog, attempts = load_catalog(settings), settings.work.max_attempts
    looked = operate.look(partial(database, settings, to_read=True), job, app.open_spool(settings))
    with database(settings) as tx, _enqueuer(tx) as enqueuer:
        if model:
            new = operate.rerun(tx, job, model, looked, catalog, attempts, enqueuer, actor=actor())
        else:
            new = operate.retry(tx, job, looked, catalog, attempts, enqueuer, actor=actor())
    click.echo(f"job {new} is scheduled")


@click.command(cls=Command, example="dicom-node cancel 7f3a09c1")
@with_settings
@click.argument("job")
def cancel(settings_file: Path, job: str) -> None:
    """Cancel a job that has not ended, and what waits to be sent of it or could not be sent.

    A running attempt is killed within about a second. JOB is its id; the first characters are enough.
    """
    from dicom_node import operate

    with database(read_settings(settings_file)) as tx:
        full, stopped, dropped = operate.cancel(tx, job, actor=actor())
    click.echo(f"job {full}: " + ("canceled" if stopped else "had ended") + f"; {dropped} deliveries canceled")


@click.command(cls=Command, example="dicom-node resend 7f3a09c1 --destination pacs")
@with_settings
@click.argument("job")
@click.option("--destination", default="", metavar="NAME", help="Only to this destination.")
def resend(settings_file: Path, job: str, destination: str) -> None:
    """Send the results of a job again, now, whatever became of their deliveries.

    The objects keep their UIDs, so a PACS that has them gets no second copy. JOB is its id; the first characters are
    enough.
    """
    from dicom_node import operate

    with database(read_settings(settings_file)) as tx, _enqueuer(tx) as enqueuer:
        sent = operate.resend(tx, job, enqueuer, destination=destination, actor=actor())
    click.echo(f"{len(sent)} deliveries go again")


@click.command(cls=Command, example="dicom-node route A12345")
@with_settings
@click.argument("identifier")
def route(settings_file: Path, identifier: str) -> None:
    """Ask the rules again about a series that has no job but refused ones, after a rule or a card was changed.

    IDENTIFIER is an accession number, a patient ID, or the UID of a study or series. The running node takes a changed
    rule by itself, within seconds; its log and `audit list` tell.
    """
    from dicom_node import operate

    with database(read_settings(settings_file)) as tx:
        found = operate.route(tx, identifier, actor=actor())
    click.echo(f"{len(found)} series will be asked about again")


@click.command(cls=Command, example='dicom-node pause jobs\ndicom-node pause pacs --reason "maintenance until 6"')
@with_settings
@click.argument("queue")
@click.option("--reason", default="", metavar="TEXT", help="Shown to whoever asks why nothing happens.")
def pause(settings_file: Path, queue: str, reason: str) -> None:
    """Hold a queue: what runs goes on, nothing more is started until `resume`, restarts included.

    QUEUE is `jobs`, or the name of a destination for what is sent to it. Series are received all the same.
    """
    from dicom_node import operate
    from dicom_node.catalog import load_catalog

    settings = read_settings(settings_file)
    catalog = load_catalog(settings)
    with database(settings) as tx:
        operate.pause(tx, queue, catalog, reason=reason, actor=actor())
    click.echo(f"queue {queue} is paused")


@click.command(cls=Command, example="dicom-node resume jobs")
@with_settings
@click.argument("queue")
def resume(settings_file: Path, queue: str) -> None:
    """Let a queue go on that was paused: `jobs`, or the name of a destination."""
    from dicom_node import operate
    from dicom_node.catalog import load_catalog

    settings = read_settings(settings_file)
    catalog = load_catalog(settings)
    with database(settings) as tx:
        operate.resume(tx, queue, catalog, actor=actor())
    click.echo(f"queue {queue} goes on")


@contextmanager
def _enqueuer(tx: Connection) -> Iterator[Any]:
    from dicom_node.engine import Enqueuer

    enqueuer = Enqueuer(tx.engine)
    try:
        yield enqueuer
    finally:
        enqueuer.close()


def _table(found: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("job", "made", "state", "model", "attempt", "accession", "series", "deliveries", "outcome"):
        table.add_column(name, overflow="fold", no_wrap=name in ("job", "made", "state"))
    for job in found:
        deliveries = ", ".join(f"{d['kind'].upper()} {d['state']} ({d['destination']})" for d in job["deliveries"])
        table.add_row(
            job["id"][:8],
            f"{job['created_at'].astimezone():%Y-%m-%d %H:%M:%S}",
            job["state"],
            f"{job['model']} {job['model_version']}" + (f" run {job['run_no']}" if job["run_no"] > 1 else ""),
            f"{job['attempt']}/{job['max_attempts']}",
            job["accession_number"],
            job["series_description"] or job["series_instance_uid"],
            deliveries,
            job["error"] or _stuck(job["deliveries"]) or _outcome(job["results"]),
        )
    return table


def _stuck(deliveries: list[dict[str, Any]]) -> str:
    """Say why a result is not where it belongs; empty when it is, or was not tried yet."""
    errors = (d["last_error"] for d in deliveries if d["state"] in ("waiting", "failed"))
    return next(filter(None, errors), "")


def _outcome(results: list[dict[str, Any]]) -> str:
    """Say what was found and what was not looked for, of a job that has results: each of them says the same."""
    from dicom_node.explain import found, left_out

    summary = results[0]["summary"] if results else {}
    return "; ".join(filter(None, [found(summary), *left_out(summary)]))
