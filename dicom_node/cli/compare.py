"""A challenger beside the champion: how far they agree, and who is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicom_node.cli.command import FAILED, Command, actor, console, database, moment, read_settings, with_settings

if TYPE_CHECKING:
    from dicom_node.compare.agreement import Row
    from dicom_node.compare.compare import Compared


@click.command(
    cls=Command, example="dicom-node models compare chest_ct chest_ct_next --since 2026-11-01 -o differences/"
)
@with_settings
@click.argument("first")
@click.argument("second")
@click.option("--since", metavar="WHEN", help="Only jobs made since then: 30m, 24h, 7d, or a date and time.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Most series.")
@click.option("-o", "--pictures", type=click.Path(path_type=Path, file_okay=False), help="Where the worst are drawn.")
@click.option("--worst", type=click.IntRange(1, 100), default=5, show_default=True, help="How many of them.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def compare(
    settings_file: Path,
    first: str,
    second: str,
    since: str | None,
    limit: int,
    pictures: Path | None,
    worst: int,
    as_json: bool,
) -> None:
    """Say how far two models agree on the series that both were run on.

    A rule with `shadow = true` runs a model beside another and keeps its results here. Nothing tells which of the two
    is right: look at the pictures of those on which they differ most, or have a reader do it.
    """
    from dicom_node import app
    from dicom_node.compare.agreement import summarise
    from dicom_node.compare.compare import compare as compare_models
    from dicom_node.compare.compare import draw_worst
    from dicom_node.db.engine import open_engine, reading
    from dicom_node.db.migrate import check_database
    from dicom_node.db.pairs import studies_apart

    settings = read_settings(settings_file)
    engine, spool = open_engine(settings.database.url, pool_size=2), app.open_spool(settings)
    try:
        check_database(engine, settings)
        start = moment(since) if since else None
        found = list(compare_models(engine, spool, first, second, since=start, limit=limit))
        with reading(engine) as tx:
            apart = studies_apart(tx, first, second, start)
    finally:
        engine.dispose()
    done = sorted((one for one in found if one.agreement), key=_how_bad)
    rows = summarise([one.agreement for one in done if one.agreement and not one.agreement.is_silent])
    drawn: dict[str, str] = {}
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for one in done[:worst]:
            file = pictures / f"{one.pair.series_id}.png"
            if draw_worst(spool, one.pair, file):
                drawn[one.pair.series_id] = str(file)
    if as_json:
        counted = {"silent": _silent(done), "studies_apart": apart}
        click.echo(json.dumps({**_as_json(found, rows, drawn), **counted}, indent=1))
    else:
        _tell(first, second, found, done[:worst], rows, drawn)
    if apart:
        where = "one study" if apart == 1 else f"{apart} studies"
        what = "what they marked lies on different images, and is not compared"
        click.echo(f"dicom-node: in {where} they ran on different series: {what}", err=True)
    if not done:
        raise SystemExit(FAILED)


@click.command(cls=Command, example="dicom-node models promote chest_ct_next chest_ct")
@with_settings
@click.argument("challenger")
@click.argument("champion")
@click.option("--yes", is_flag=True, help="Do not ask.")
def promote(settings_file: Path, challenger: str, champion: str, yes: bool) -> None:
    """Swap two models in the rules: CHALLENGER is sent from now on, CHAMPION goes on as its shadow where it was one.

    The rule files are changed, and the running node takes them within seconds. The same command with the names the
    other way round takes it back.
    """
    from dicom_node.compare.promote import promote as promote_model

    settings = read_settings(settings_file)
    if not yes:
        click.confirm(f"Send results of {challenger} in the place of those of {champion}?", abort=True)
    changed = promote_model(partial(database, settings), settings, challenger, champion, actor=actor())
    for name, model in changed.items():
        click.echo(f"rule {name}: {model}")


def _silent(done: list[Compared]) -> int:
    """Count the series in which neither model marked anything."""
    return sum(one.agreement is not None and one.agreement.is_silent and not one.images for one in done)


def _of_images(done: list[Compared]) -> Iterator[str]:
    """Say of each image that both models made how far it differs."""
    every = [image for one in done for image in one.images]
    for label, unit in dict.fromkeys((image.label, image.unit) for image in every):
        same = [image for image in every if (image.label, image.unit) == (label, unit)]
        mean = sum(image.mean_absolute for image in same) / len(same)
        known = [image.correlation for image in same if image.correlation is not None]
        lowest = f", correlation {min(known):.4f} or more" if known else ""
        most = max(image.largest for image in same)
        yield f"{label} in {len(same)}: {mean:.4g} {unit} apart on average, {most:.4g} at most{lowest}"


def _how_bad(one: Compared) -> tuple[float, str]:
    return (one.agreement.worst if one.agreement else 1.0, one.pair.series_id)


def _tell(
    first: str, second: str, found: list[Compared], worst: list[Compared], rows: list[Row], drawn: dict[str, str]
) -> None:
    from rich.table import Table

    done = [one for one in found if one.agreement]
    click.echo(f"{len(done)} series on which {first} (1) and {second} (2) were run")
    for one in found:
        if one.skipped:
            click.echo(f"dicom-node: series {one.pair.series_id}: {one.skipped}", err=True)
    if not done and not found:
        click.echo("dicom-node: nothing to compare; a rule with shadow = true runs a second model", err=True)
    if silent := _silent(done):
        click.echo(f"in {silent} of them neither marked anything; they are not counted below")
    for line in _of_images(done):
        click.echo(line)
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("", "in both", "only 1", "only 2", "Dice, mean", "lowest", "ml, 2 less 1: mean (95 % limits)"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        mean = f"{sum(row.dice) / len(row.dice):.3f}" if row.dice else ""
        limits = "{:+.1f} ({:+.1f} to {:+.1f})".format(*row.limits_ml) if row.limits_ml else ""
        alone = (str(row.only_first), str(row.only_second)) if row.is_finding else ("", "")
        lowest = f"{min(row.dice):.3f}" if row.dice else ""
        table.add_row(row.label, str(len(row.dice)), *alone, mean, lowest, limits)
    console().print(table)
    click.echo("\nwhere they differ most:")
    for one in worst:
        if one.agreement is not None and one.agreement.worst < 1.0:
            jobs = f"jobs {one.pair.first.job_id[:8]} and {one.pair.second.job_id[:8]}"
            click.echo(
                f"  {one.agreement.worst:.3f}  {one.pair.accession_number or one.pair.series_id}, {jobs}", nl=False
            )
            click.echo(f", {drawn[one.pair.series_id]}" if one.pair.series_id in drawn else "")


def _as_json(found: list[Compared], rows: list[Row], drawn: dict[str, str]) -> dict[str, Any]:
    return {
        "labels": [asdict(row) | {"limits_ml": row.limits_ml} for row in rows],
        "series": [
            {
                "series": one.pair.series_id,
                "jobs": [one.pair.first.job_id, one.pair.second.job_id],
                "versions": [one.pair.first.version, one.pair.second.version],
                "agreement": asdict(one.agreement) if one.agreement else None,
                "worst": one.agreement.worst if one.agreement else None,
                "images": [asdict(image) for image in one.images],
                "skipped": one.skipped,
                "picture": drawn.get(one.pair.series_id),
            }
            for one in found
        ],
    }
