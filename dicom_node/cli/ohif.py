"""The OHIF viewer, for sites that want it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from dicom_node.cli.command import Command, read_settings, with_settings


@click.group()
def ohif() -> None:
    """Install the OHIF viewer, which the web pages then offer for every study."""


@ohif.command(cls=Command, example="dicom-node ohif fetch\ndicom-node ohif fetch --file ohif-app-3.12.10.tgz")
@with_settings
@click.option("--registry", metavar="URL", help="Of npm packages.  [default: as npm is configured]")
@click.option(
    "--file",
    "package",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The package, where this machine reaches no registry: `npm pack @ohif/app@VERSION` elsewhere makes it.",
)
def fetch(settings_file: Path, registry: str | None, package: Path | None) -> None:
    """Fetch the viewer from the npm registry, prove it and unpack it into the folder web.ohif (60 MB).

    One version is known, by the SHA-512 of its package. The web process offers it from the next page on.
    """
    from dicom_node.viewer import OHIF, download, install, registry_of

    settings = read_settings(settings_file)
    with tempfile.TemporaryDirectory() as scratch:
        if package is None:
            package = Path(scratch) / "package.tgz"
            registry = registry or registry_of()
            click.echo(f"fetching {OHIF.name} {OHIF.version} from {registry}", err=True)
            download(registry, package)
        page = install(package, settings.web.ohif)
    click.echo(f"OHIF {OHIF.version} is in {page}")
