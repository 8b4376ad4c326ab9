"""Files and peers by hand: run a folder, ask a peer for an answer, send files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node.cli.command import FAILED, Command, console, read_settings, with_settings

if TYPE_CHECKING:
    from dicom_node.domain.delivery import Destination
    from dicom_node.run_folder import FolderRun


@click.command(cls=Command, example="dicom-node run path/to/series -o results --model chest_ct")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where the objects are put."
)
@click.option("--model", metavar="NAME", help="The model; needed when the node has several.")
@click.option("--device", metavar="NAME", default="auto", show_default=True, help="cpu, cuda, cuda:1, or auto.")
@click.option(
    "--models",
    "folders",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="A folder with more models. May be repeated.",
)
def run(folder: Path, out: Path, model: str | None, device: str, folders: tuple[Path, ...]) -> None:
    """Run a model on the DICOM files in FOLDER: result objects out, no network, no settings.

    The same code as in the node, on a database and a spool that are thrown away afterwards. Every series in FOLDER
    that forms one volume gets its SEG and SR; the exit status is 1 when one did not.
    """
    from dicom_node import logs
    from dicom_node.run_folder import run_folder

    logs.configure("error", "text", "run")
    with _progress() as tell:
        runs = run_folder(folder, out, model=model, device=device, models=folders, tell=tell)
    for one in runs:
        _print(one)
    if not any(one.results for one in runs) or any(one.problem and not one.skipped for one in runs):
        raise SystemExit(FAILED)


@click.command(cls=Command, example="dicom-node echo pacs\ndicom-node echo 10.0.0.7:104 --called PACS --calling AINODE")
@with_settings
@click.argument("destination")
@click.option("--called", metavar="AE", default="ANY-SCP", show_default=True, help="Their AE title, for HOST:PORT.")
@click.option("--calling", metavar="AE", default="AINODE", show_default=True, help="Our AE title, for HOST:PORT.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1), default=10.0, show_default=True, metavar="SECONDS")
def echo(settings_file: Path, destination: str, called: str, calling: str, timeout_s: float) -> None:
    """Ask a peer for an answer: a destination of the settings, or HOST:PORT.

    C-ECHO to a PACS; a search to a DICOMweb service; a folder is written to.
    """
    from dicom_node.deliver import SENDERS

    peer = peer_of(settings_file, destination, called, calling, timeout_s)
    took_s = SENDERS[peer.kind].echo(peer)
    click.echo(f"{peer.where} answered in {took_s * 1000:.0f} ms")


@click.command(
    cls=Command,
    example="dicom-node send path/to/series --to pacs\ndicom-node send a.dcm b.dcm --to 10.0.0.7:104 --called PACS",
)
@with_settings
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--to", "destination", required=True, metavar="DEST", help="A destination of the settings, or HOST:PORT.")
@click.option("--called", metavar="AE", default="ANY-SCP", show_default=True, help="Their AE title, for HOST:PORT.")
@click.option("--calling", metavar="AE", default="AINODE", show_default=True, help="Our AE title, for HOST:PORT.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1), default=30.0, show_default=True, metavar="SECONDS")
def send(
    settings_file: Path, paths: tuple[Path, ...], destination: str, called: str, calling: str, timeout_s: float
) -> None:
    """Send files, or all files in folders, by C-STORE, as they are.

    The exit status is 0 only when the peer stored every file. One whose SOP Instance UID it holds already (0x0111) is
    not: what it holds may be other bytes.
    """
    from dicom_node.deliver.dimse import FileSent, send_files
    from dicom_node.domain.delivery import DimseDestination
    from dicom_node.errors import ConfigurationError

    peer = peer_of(settings_file, destination, called, calling, timeout_s)
    if not isinstance(peer, DimseDestination):
        raise ConfigurationError(f"{destination} is of kind {peer.kind}; files are sent by C-STORE, to kind dimse")
    files = sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    with _bar("sending", len(files)) as advance:

        def tell(sent: FileSent) -> None:
            advance()

        sent = send_files(files, peer.host, peer.port, peer.ae_title, peer.calling_ae, tell, timeout_s=timeout_s)
    failed = [one for one in sent if one.problem]
    for one in failed[:20]:
        click.echo(f"dicom-node: {one.path}: {one.problem}", err=True)
    if len(failed) > 20:
        click.echo(f"dicom-node: … and {len(failed) - 20} more", err=True)
    duplicates = sum(one.is_duplicate for one in sent)
    held = f"; {duplicates} not taken, for it holds their SOP Instance UIDs already (0x0111)" if duplicates else ""
    click.echo(f"{len(sent) - len(failed)} of {len(files)} files stored by {peer.ae_title}{held}")
    if failed or not files:
        raise SystemExit(FAILED)


def peer_of(settings_file: Path, text: str, called: str, calling: str, timeout_s: float) -> Destination:
    """Find a destination of the settings, or make one of HOST:PORT.

    Raises
    ------
    NotFoundError
        When the settings have none of that name.
    """
    from dicom_node.domain.delivery import DimseDestination
    from dicom_node.domain.uids import AETitle

    host, colon, port = text.rpartition(":")
    if not colon:
        return replace(_named(settings_file, text), timeout_s=timeout_s)
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise click.BadParameter(f"{text!r} is neither a destination of the settings nor HOST:PORT")
    try:
        return DimseDestination(
            name=text,
            host=host.strip("[]"),
            port=int(port),
            ae_title=AETitle(called),
            calling_ae=AETitle(calling),
            timeout_s=timeout_s,
        )
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _named(settings_file: Path, name: str) -> Destination:
    from dicom_node.catalog import destination
    from dicom_node.errors import NotFoundError

    settings = read_settings(settings_file)
    section = settings.destinations.get(name)
    if section is None:
        known = ", ".join(settings.destinations) or "none"
        raise NotFoundError(f"{settings.file}: there is no [destinations.{name}]; there is: {known}")
    return destination(name, section, settings)


def _print(one: FolderRun) -> None:
    click.echo(click.style(f"series {one.series_instance_uid}", bold=True))
    for kind, path in one.results:
        click.echo(f"  {kind.upper():4} {path}")
    for label, size in one.sizes.items():
        click.echo(f"  {label}: {size}")
    for said in one.said:
        click.echo(f"  {said}")
    if one.results and not one.sizes and not one.said:
        click.echo("  nothing found")
    if one.steps_s:
        click.echo("  " + ", ".join(f"{step} {seconds:.1f} s" for step, seconds in one.steps_s.items()))
    if one.problem:
        what = "passed over: " if one.skipped else ""
        click.echo(f"dicom-node: series {one.series_instance_uid}: {what}{one.problem}", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Say what is being done: on a terminal in one line that changes, elsewhere not at all."""
    shown = console(stderr=True)
    if not shown.is_terminal:
        yield lambda text: None
        return
    with shown.status("starting") as status:
        yield status.update


@contextmanager
def _bar(text: str, total: int) -> Iterator[Callable[[], None]]:
    from rich.progress import Progress

    shown = console(stderr=True)
    with Progress(console=shown, transient=True, disable=not shown.is_terminal) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)
