"""Retention by hand."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node.cli.command import FAILED, Command, read_settings, with_settings

if TYPE_CHECKING:
    from dicom_node.retain import Plan


@click.command(cls=Command, example="dicom-node retain --dry-run")
@with_settings
@click.option("--dry-run", is_flag=True, help="Only tell what would be deleted.")
def retain(settings_file: Path, dry_run: bool) -> None:
    """Delete what retention says is due, now: images, results, rows. The maintainer does the same by itself.

    Nothing goes that is not over and delivered. [retain] in the settings says how long what is kept.
    """
    from dicom_node import app
    from dicom_node.db.engine import open_engine
    from dicom_node.db.migrate import check_database
    from dicom_node.engine import Enqueuer
    from dicom_node.retain import Retention

    settings = read_settings(settings_file)
    engine = open_engine(settings.database.url, pool_size=2)
    enqueuer = Enqueuer(engine)
    try:
        check_database(engine, settings)
        spool = app.open_spool(settings)
        spool.prepare()
        retention = Retention(settings.retain, engine, enqueuer, spool, f"command {os.getpid()}")
        if dry_run:
            _tell(retention.plan())
            return
        done = retention.sweep()
    finally:
        enqueuer.close()
        engine.dispose()
    if done is None:
        click.echo("dicom-node: another process is at it", err=True)
        raise SystemExit(FAILED)
    told = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in asdict(done).items() if n)
    click.echo(f"deleted: {told or 'nothing was due'}")


def _tell(plan: Plan) -> None:
    for kind, amount in plan.images.items():
        since = f", the oldest complete since {amount.oldest:%Y-%m-%d}" if amount.oldest else ""
        size = f"{amount.size / 1e9:.2f} GB"
        click.echo(f"images    {amount.count} series, {amount.files} files, {size}{since}: {kind.value}")
    click.echo(f"results   {plan.results.count} jobs, {plan.results.files} files, {plan.results.size / 1e9:.2f} GB")
    click.echo(f"rows      {plan.rows} series; {plan.engine_rows} runs of the job engine")
    click.echo(f"disk      {plan.free_bytes / 1e9:.1f} GB free")
    if plan.is_short:
        wanted = f"{plan.wanted_bytes / 1e9:.1f} GB (retain.free_mib)"
        click.echo(f"dicom-node: the disk is short of {wanted}: the oldest go before their time", err=True)
