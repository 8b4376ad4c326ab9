"""Results made once more, from their provenance."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from dicom_node.cli.command import FAILED, Command, read_settings, with_settings


@click.command(cls=Command, example="dicom-node reproduce 7f3a09c1\ndicom-node reproduce 7f3a09c1 -o again/")
@with_settings
@click.argument("job")
@click.option("-o", "--out", type=click.Path(path_type=Path, file_okay=False), help="Where to keep what is made.")
def reproduce(settings_file: Path, job: str, out: Path | None) -> None:
    """Make the results of a completed job again, and say whether every byte is the same; exit status 1 when not.

    The model runs as it did, on the same images, which must still be here. Nothing is sent, and no row is written.
    Another version of this program or of a library, other settings of the node, or another device may make a
    difference: then the attributes that differ are named.
    """
    from dicom_node import app
    from dicom_node.catalog import load_catalog
    from dicom_node.db.engine import open_engine
    from dicom_node.db.migrate import check_database
    from dicom_node.work.reproduce import reproduce as make_again

    settings = read_settings(settings_file)
    engine, spool = open_engine(settings.database.url, pool_size=1), app.open_spool(settings)
    try:
        check_database(engine, settings)
        with tempfile.TemporaryDirectory(prefix="dicom-node-") as scratch:
            remade = make_again(engine, settings, load_catalog(settings), spool, job, out or Path(scratch))
    finally:
        engine.dispose()
    for one in remade:
        if one.is_same:
            told = "the same, byte for byte"
        elif one.file is None:
            told = "not made again: it depends on what destinations held then"
        else:
            told = f"differs in {', '.join(one.differs_in)}" if one.differs_in else "differs"
        click.echo(f"{one.name.upper():12} {told}")
    if not all(one.is_same for one in remade):
        raise SystemExit(FAILED)
