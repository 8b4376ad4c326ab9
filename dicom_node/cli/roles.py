"""`serve`, and each role alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node.cli.command import Command, read_settings, with_settings

if TYPE_CHECKING:
    from dicom_node.settings import Settings


@click.command(cls=Command, example="dicom-node serve --settings mynode/settings.toml")
@with_settings
def serve(settings_file: Path) -> None:
    """Run the whole node: all roles, each in processes of its own, restarted when one dies.

    Upgrades the database first. Stops in order on SIGTERM or Ctrl-C; a second one stops at once.
    """
    from dicom_node import app

    settings = read_settings(settings_file)
    _log(settings, "serve")
    app.serve(settings, app.stop_on_signals())


def _role(name: str, text: str, example: str) -> click.Command:
    def command(settings_file: Path, slot: int, supervisor_pid: int | None, shared: tuple[int, ...]) -> None:
        if supervisor_pid is not None:
            from dicom_node.supervise import tie_to

            tie_to(supervisor_pid)
        from dicom_node import app

        stop = app.stop_on_signals(supervised=supervisor_pid is not None)
        settings = read_settings(settings_file)
        _log(settings, f"{name}/{slot}")
        app.run_role(settings, name, slot, stop, shared)

    command.__doc__ = text
    options: list[Callable[[Callable[..., None]], Callable[..., None]]] = [
        with_settings,
        click.option(
            "--slot",
            type=click.IntRange(0, 999),
            default=0,
            show_default=True,
            help="Which of several processes of this role on this machine.",
        ),
        click.option("--supervisor-pid", type=int, hidden=True),
        click.option("--shared", type=int, multiple=True, hidden=True),
    ]
    function: Callable[..., None] = command
    for option in reversed(options):
        function = option(function)
    return click.command(name, cls=Command, example=example)(function)


receive = _role(
    "receive",
    """Receive instances by C-STORE into the spool. Several processes share one port.""",
    "dicom-node receive --slot 0 &\ndicom-node receive --slot 1 &",
)
watch = _role(
    "watch",
    """Take what is put into the folders of receive.folders.""",
    "dicom-node watch",
)
assemble = _role(
    "assemble",
    """Close each series when it is complete, and make the jobs its rules ask for.""",
    "dicom-node assemble",
)
work = _role(
    "work",
    """Run the jobs, one at a time, the model in a child process. One `work` per GPU.""",
    "dicom-node work --slot 0",
)
deliver = _role(
    "deliver",
    """Send result objects to their destinations, again and again until they arrive.""",
    "dicom-node deliver",
)
fetch = _role(
    "fetch",
    """Work off the batches of `dicom-node retrieve`: ask archives for studies.""",
    "dicom-node fetch",
)
maintain = _role(
    "maintain",
    """Look after the rest: retention, the audit trail's hash chain and where else it goes, statistics.""",
    "dicom-node maintain",
)

web = _role(
    "web",
    """Serve the web pages, the REST API and DICOMweb, as [web] in the settings says. Never runs a job.""",
    "dicom-node web",
)


def _log(settings: Settings, process: str) -> None:
    from dicom_node import logs

    logs.configure(settings.logs.level, settings.logs.format, process)
