"""Metrics and health over HTTP, alone."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_node.cli.command import Command, read_settings, with_settings


@click.command(cls=Command, example="dicom-node metrics --listen 127.0.0.1:9464\ncurl http://127.0.0.1:9464/metrics")
@with_settings
@click.option("--listen", default="127.0.0.1:9464", show_default=True, metavar="HOST:PORT", help="Where to listen.")
def metrics(settings_file: Path, listen: str) -> None:
    """Answer /metrics (Prometheus), /health and /ready, without the web pages.

    Counters start at zero with this process. Anybody who can reach the port can read them; they hold nothing of a
    patient, but AE titles and how much is done.
    """
    from dicom_node import app, logs
    from dicom_node.db.engine import open_engine
    from dicom_node.metrics.server import MetricsServer

    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{listen!r} is not HOST:PORT", param_hint="--listen")
    settings = read_settings(settings_file)
    logs.configure(settings.logs.level, settings.logs.format, "metrics")
    engine = open_engine(settings.database.url)
    try:
        server = MetricsServer(settings, engine, app.open_spool(settings), host.strip("[]"), int(port))
        click.echo(f"http://{host}:{server.port}/metrics", err=True)
        server.run(app.stop_on_signals())
    finally:
        engine.dispose()
