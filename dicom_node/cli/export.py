"""A file for a bug report."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_node.cli.command import Command, actor, read_settings, with_settings


@click.command(cls=Command, example="dicom-node export 7f3a09c1 --deidentify -o report.zip")
@with_settings
@click.argument("identifier")
@click.option("--deidentify", is_flag=True, required=True, help="Needed: nothing is exported with the patient in it.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The zip to write.")
@click.option("--no-headers", is_flag=True, help="Leave the headers of the images out.")
@click.option("--pixels", is_flag=True, help="Whole images of CT, MR and PET, not their headers alone.")
@click.option("--results", is_flag=True, help="The segmentations that were made, too.")
@click.option(
    "--retain",
    multiple=True,
    type=click.Choice(("device", "characteristics", "uids")),
    help="Keep the device's names, sex, age, size and weight, or the UIDs. May be repeated.",
)
@click.option(
    "--dates",
    type=click.Choice(("removed", "modified", "full")),
    default="removed",
    show_default=True,
    help="What becomes of dates and times.",
)
def export(
    settings_file: Path,
    identifier: str,
    deidentify: bool,
    out: Path,
    no_headers: bool,
    pixels: bool,
    results: bool,
    retain: tuple[str, ...],
    dates: str,
) -> None:
    """Write what is known of a series into a zip for a bug report, with nothing of the patient in it.

    IDENTIFIER is what `explain` takes. By the Basic Application Level Confidentiality Profile (DICOM PS3.15 annex E):
    everything goes that is not on a list of what may stay, and UIDs are replaced. If a name of the patient were in it
    all the same, nothing is written. Look into it before you hand it on; a head's CT or MR shows the face.
    """
    from dicom_node import app
    from dicom_node.db.engine import open_engine
    from dicom_node.db.migrate import check_database
    from dicom_node.errors import ConflictError
    from dicom_node.export import Dates, Keep, Wanted, export_report

    if out.exists():
        raise ConflictError(f"{out} is there already")
    settings = read_settings(settings_file)
    wanted = Wanted(not no_headers, pixels, results, frozenset(Keep(one) for one in retain), Dates(dates))
    engine = open_engine(settings.database.url, pool_size=1)
    try:
        check_database(engine, settings)
        done = export_report(engine, identifier, out, settings, app.open_spool(settings), wanted, actor=actor())
    finally:
        engine.dispose()
    click.echo(f"wrote {out}: {done['series']} series, {done['jobs']} jobs, {done['files']} DICOM files")
