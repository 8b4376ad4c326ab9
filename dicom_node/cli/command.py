"""What every command shares: where the settings are, how an error is told, when there is colour."""

from __future__ import annotations

import getpass
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from sqlalchemy import Connection

    from dicom_node.settings import Settings

FAILED = 1
MISUSED = 2


class Command(click.Command):
    """A command that tells an error in one line on standard error, and with ``--debug`` its traceback.

    ``example`` is shown at the end of ``--help``.
    """

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        if example:
            kwargs["epilog"] = "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.strip().splitlines())
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(["--debug"], is_flag=True, expose_value=False, is_eager=True, help="Show tracebacks.")
        )

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Note ``--debug`` before anything can fail."""
        self._tracebacks = "--debug" in args
        return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn what it raises into a line and an exit status."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            sys.stderr.close()  # the reader of a pipe went away: `dicom-node jobs | head`
            raise SystemExit(0) from None
        except Exception as error:  # noqa: BLE001 - the last stop: a person is waiting for a sentence, not for a traceback
            if self._tracebacks:
                traceback.print_exc()
            lines, status = _told(error)
            for line in lines:
                click.echo(f"dicom-node: {line}", err=True)
            raise SystemExit(status) from None


def with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--settings``, given to the command as the path `settings_file`."""
    return click.option(
        "-s",
        "--settings",
        "settings_file",
        type=click.Path(path_type=Path),
        default=Path("settings.toml"),
        envvar="DICOM_NODE_SETTINGS",
        show_default=True,
        show_envvar=True,
        help="The settings file.",
    )(function)


def read_settings(file: Path) -> Settings:
    """Load the settings; a wrong one ends the command with status 2."""
    from dicom_node.settings import load_settings

    return load_settings(file)


def console(*, stderr: bool = False) -> Console:
    """Return where tables and progress go: coloured on a terminal, plain and unwrapped in a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 200, highlight=False, soft_wrap=False)


@contextmanager
def database(settings: Settings, *, to_read: bool = False) -> Iterator[Connection]:
    """One transaction on the database of these settings, whose tables must be those of this program.

    `to_read`: nothing is written, and no process that writes waits or is waited for.
    """
    from dicom_node.db.engine import open_engine, reading, transaction
    from dicom_node.db.migrate import check_database

    engine = open_engine(settings.database.url, pool_size=1)
    try:
        check_database(engine, settings)
        with (reading if to_read else transaction)(engine) as tx:
            yield tx
    finally:
        engine.dispose()


def moment(text: str) -> datetime:
    """Read ``30m``, ``24h``, ``7d`` (so long ago), or a date and time."""
    units = {"m": "minutes", "h": "hours", "d": "days"}
    try:
        if text[-1:] in units and text[:-1].isdecimal():
            return datetime.now(UTC) - timedelta(**{units[text[-1]]: int(text[:-1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither 30m, 24h or 7d nor a time like 2026-11-23T10:00", param_hint="--since"
        ) from None


def actor() -> str:
    """Name who gives the command, as the audit trail does."""
    try:
        return f"operator {getpass.getuser()}"[:64]
    except (OSError, KeyError):
        return "operator"


def as_json_text(value: object) -> str:
    """Write what JSON has no form for."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _told(error: Exception) -> tuple[list[str], int]:
    from sqlalchemy.exc import DBAPIError

    from dicom_node.errors import ConfigurationError, NodeError

    if isinstance(error, ConfigurationError):
        return error.problems, MISUSED
    if isinstance(error, NodeError):
        return [str(error)], FAILED
    if isinstance(error, DBAPIError):
        return [f"the database does not answer as it should: {str(error.orig).strip().splitlines()[0]}"], FAILED
    if isinstance(error, OSError):
        return [str(error)], FAILED
    return [f"internal error: {type(error).__name__}: {error}; run again with --debug for the traceback"], FAILED
