"""People who may sign in to the web pages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node.cli.command import Command, actor, console, read_settings, with_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

ROLES = ("viewer", "operator", "admin")
_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")


@click.group()
def user() -> None:
    """Say who may sign in to the web pages, and as what."""


@user.command(cls=Command, example="dicom-node user add ann --role admin")
@with_settings
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default="viewer", show_default=True)
@_stdin
def add(settings_file: Path, name: str, role: str, password_stdin: bool) -> None:
    """Make an account. A viewer looks, an operator also acts, an admin also looks after people and the audit trail."""
    from dicom_node.admin.credentials import hash_password
    from dicom_node.db import accounts
    from dicom_node.domain.people import Role

    name = _checked_name(name)
    hashed = hash_password(_password(name, password_stdin))
    with _transaction(settings_file) as tx:
        accounts.add_account(tx, name, Role(role), hashed, actor=actor())
    click.echo(f"{name} may sign in as {role}")


@user.command(cls=Command, example="dicom-node user list")
@with_settings
def list(settings_file: Path) -> None:  # noqa: A001 - the command's name
    """List the accounts."""
    from rich.table import Table

    from dicom_node.db import accounts

    with _transaction(settings_file) as tx:
        found = accounts.list_accounts(tx)
    table = Table(box=None, pad_edge=False)
    for column in ("name", "role", "state", "last signed in", "sessions", "tokens"):
        table.add_column(column)
    for row in found:
        seen = f"{row.signed_in_at.astimezone():%Y-%m-%d %H:%M}" if row.signed_in_at else "never"
        table.add_row(row.name, row.role, row.state, seen, str(row.sessions), str(row.tokens))
    console().print(table) if found else click.echo("nobody yet: `dicom-node user add NAME --role admin`", err=True)


@user.command(cls=Command, example="dicom-node user password ann")
@with_settings
@click.argument("name")
@_stdin
def password(settings_file: Path, name: str, password_stdin: bool) -> None:
    """Give an account a new password; its sessions end."""
    from dicom_node.admin.credentials import hash_password
    from dicom_node.db import accounts

    name = _checked_name(name)
    hashed = hash_password(_password(name, password_stdin))
    with _transaction(settings_file) as tx:
        accounts.change_account(tx, name, actor=actor(), password_hash=hashed)
    click.echo(f"{name} has a new password")


@user.command(cls=Command, example="dicom-node user role ann operator")
@with_settings
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES))
def role(settings_file: Path, name: str, role: str) -> None:
    """Change what an account may do, at once."""
    from dicom_node.db import accounts
    from dicom_node.domain.people import Role

    with _transaction(settings_file) as tx:
        accounts.change_account(tx, _checked_name(name), actor=actor(), role=Role(role))
    click.echo(f"{name} is {role}")


@user.command(cls=Command, example="dicom-node user disable ann")
@with_settings
@click.argument("name")
def disable(settings_file: Path, name: str) -> None:
    """Let an account sign in no more; its sessions and tokens end at once. Its trace in the audit trail stays."""
    from dicom_node.db import accounts

    with _transaction(settings_file) as tx:
        accounts.change_account(tx, _checked_name(name), actor=actor(), active=False)
    click.echo(f"{name} may no longer sign in")


@user.command(cls=Command, example="dicom-node user enable ann")
@with_settings
@click.argument("name")
def enable(settings_file: Path, name: str) -> None:
    """Let a disabled account sign in again."""
    from dicom_node.db import accounts

    with _transaction(settings_file) as tx:
        accounts.change_account(tx, _checked_name(name), actor=actor(), active=True)
    click.echo(f"{name} may sign in again")


@contextmanager
def _transaction(settings_file: Path) -> Iterator[Connection]:
    from dicom_node.cli.command import database

    with database(read_settings(settings_file)) as tx:
        yield tx


def _checked_name(name: str) -> str:
    from dicom_node.domain.people import account_name

    try:
        return account_name(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NAME") from None


def _password(name: str, from_stdin: bool) -> str:
    from dicom_node.domain.people import check_password

    if from_stdin:
        typed = sys.stdin.readline().rstrip("\r\n")
    else:
        typed = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    try:
        check_password(typed, name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="password") from None
    return str(typed)
