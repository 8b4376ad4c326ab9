"""Bring in what lies in files: `import`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicom_node.cli.command import FAILED, Command, actor, console, read_settings, with_settings

if TYPE_CHECKING:
    from dicom_node.intake.batch import Outcome
    from dicom_node.intake.importing import Import

_SHOWN = 20


@click.command(
    "import",
    cls=Command,
    example="dicom-node import /media/cdrom\ndicom-node import research.zip --as RESEARCH --to AI_TRIAL --dry-run",
)
@with_settings
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--as", "calling", metavar="AE", default="IMPORT", show_default=True, help="Calling AE title, for rules.")
@click.option("--to", "called", metavar="AE", default="", help="Called AE title, for rules.  [default: the node's]")
@click.option("--dry-run", is_flag=True, help="Say what would become of each file, and store nothing.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON.")
def import_(
    settings_file: Path, paths: tuple[Path, ...], calling: str, called: str, *, dry_run: bool, as_json: bool
) -> None:
    """Take the DICOM files in folders, on discs, in zip archives, or one by one, as if they had been sent.

    Each is synced and committed like a C-STORE, and rules are asked about its series. Nothing is unpacked onto the disk
    and nothing at the source is changed. What is stored already is recognised by its bytes: give the same command again
    after an interruption. The exit status is 1 when a file was refused, when a DICOMDIR lists what is not there, or
    when there was nothing to take.
    """
    from dicom_node import app
    from dicom_node.db.engine import open_engine
    from dicom_node.db.migrate import check_database
    from dicom_node.domain.uids import AETitle
    from dicom_node.intake.importing import import_paths

    settings = read_settings(settings_file)
    try:
        titles = {"calling_ae": AETitle(calling), "called_ae": AETitle(called) if called else ""}
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    spool = app.open_spool(settings)
    spool.prepare()
    engine = open_engine(settings.database.url)
    stop = app.stop_on_signals()
    try:
        check_database(engine, settings)
        with _Progress() as progress:
            done = import_paths(
                list(paths),
                settings,
                spool,
                engine,
                **titles,
                actor=actor(),
                dry_run=dry_run,
                stop=stop,
                begin=progress.begin,
                tell=progress.tell,
            )
    finally:
        engine.dispose()
    _tell(done, dry_run=dry_run, as_json=as_json)
    if not done.is_whole:
        raise SystemExit(FAILED)


def _tell(done: Import, *, dry_run: bool, as_json: bool) -> None:
    from dicom_node.intake.batch import Became

    counted = {became.value: done.counts[became] for became in Became}
    if as_json:
        refused = [{"file": one.found.name, "reason": one.reason} for one in done.refused]
        click.echo(json.dumps({**counted, "problems": refused, "missing": done.missing, "stopped": done.stopped}))
        return
    lines = [f"{one.found.name}: {one.reason}" for one in sorted(done.refused, key=lambda one: one.found.name)]
    for line in (lines + done.missing)[:_SHOWN]:
        click.echo(f"dicom-node: {line}", err=True)
    if len(lines) + len(done.missing) > _SHOWN:
        click.echo(f"dicom-node: … and {len(lines) + len(done.missing) - _SHOWN} more", err=True)
    told = ", ".join(f"{number} {became}" for became, number in counted.items())
    click.echo(f"{'would be: ' if dry_run else ''}{told}")
    if done.stopped:
        click.echo(f"dicom-node: stopped: {done.stopped}; the same command goes on from here", err=True)


class _Progress:
    """A bar on a terminal, elsewhere nothing."""

    def __init__(self) -> None:
        from rich.progress import Progress

        shown = console(stderr=True)
        self._bar = Progress(console=shown, transient=True, disable=not shown.is_terminal)
        self._task = self._bar.add_task("importing", total=None)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.stop()

    def begin(self, total: int) -> None:
        """Say how many files there are."""
        self._bar.update(self._task, total=total)

    def tell(self, outcome: Outcome) -> None:
        """Count one."""
        self._bar.advance(self._task)
