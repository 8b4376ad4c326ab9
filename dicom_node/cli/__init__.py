"""Commands: parse, call, print. Heavy imports wait inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import click

import dicom_node
from dicom_node.cli import (
    audit,
    destinations,
    export,
    files,
    intake,
    jobs,
    metrics,
    models,
    ohif,
    people,
    reproduce,
    retain,
    retrieve,
    roles,
    setup,
)


class InOrder(click.Group):
    """Commands in the order in which a person meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names as they were added."""
        return list(self.commands)


_HELP = """Run AI models beside a PACS: series in by C-STORE, DICOM SEG and SR back.

\b
A first node:
  dicom-node init mynode                      write settings and an example rule
  dicom-node check -s mynode/settings.toml    say what is wrong with them
  dicom-node serve -s mynode/settings.toml    run the node

Every command reads ./settings.toml, or the file named by --settings or $DICOM_NODE_SETTINGS.

Exit status: 0 done, 1 failed or nothing found, 2 wrong usage or wrong settings.
"""


@click.group(
    cls=InOrder, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(dicom_node.__version__, prog_name="dicom-node")
def cli() -> None:
    """Hold the commands together."""


for _command in (
    setup.init,
    setup.check,
    roles.serve,
    roles.receive,
    roles.watch,
    roles.assemble,
    roles.work,
    roles.deliver,
    roles.fetch,
    roles.maintain,
    roles.web,
    setup.db,
    people.user,
    ohif.ohif,
    models.models,
    jobs.jobs,
    jobs.explain,
    jobs.report,
    reproduce.reproduce,
    destinations.who_has,
    jobs.route,
    jobs.retry,
    jobs.cancel,
    jobs.resend,
    audit.audit,
    retain.retain,
    metrics.metrics,
    export.export,
    intake.import_,
    retrieve.retrieve,
    jobs.pause,
    jobs.resume,
    files.run,
    files.echo,
    destinations.probe,
    files.send,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of ``dicom-node`` and ``python -m dicom_node``."""
    cli(prog_name="dicom-node")
