"""Begin: write settings, check them, prepare the database."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node.cli.command import FAILED, MISUSED, Command, read_settings, with_settings

if TYPE_CHECKING:
    from dicom_node.catalog import Catalog
    from dicom_node.settings import Settings

EXAMPLE = ("settings.toml", "rules/chest_ct.toml")


@click.command(cls=Command, example="dicom-node init mynode")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
def init(folder: Path) -> None:
    """Write annotated settings and an example rule into FOLDER (default: here). Nothing is overwritten."""
    from dicom_node.errors import ConflictError

    there = [str(folder / name) for name in EXAMPLE if (folder / name).exists()]
    if there:
        raise ConflictError(f"{there[0]} is there already; move it away or choose another folder")
    source = files("dicom_node.cli") / "example"
    for name in EXAMPLE:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.joinpath(name).read_text(encoding="utf-8"), encoding="utf-8")
        click.echo(f"wrote {target}")
    click.echo(
        "\nNext: name your PACS and who may send in settings.toml, switch the rule on, then\n"
        f"  dicom-node check --settings {folder / 'settings.toml'}\n"
        f"  dicom-node serve --settings {folder / 'settings.toml'}"
    )


@click.command(cls=Command, example="dicom-node check\ndicom-node check --echo")
@with_settings
@click.option("--echo", is_flag=True, help="Also ask every destination for an answer.")
def check(settings_file: Path, echo: bool) -> None:
    """Check settings, rules, models, destinations, spool, database and port. Changes nothing.

    Exit status 2 when something is wrong, with one line for each problem, naming file and key.
    """
    from dicom_node.app import check_catalog
    from dicom_node.models.roles import role_problems

    settings = read_settings(settings_file)
    catalog, problems = check_catalog(settings)
    problems += role_problems(catalog) if catalog is not None else []
    problems += _machine_problems(settings)
    for problem in problems:
        click.echo(f"dicom-node: {problem}", err=True)
    if catalog is not None:
        _tell(settings, catalog)
    if problems:
        raise SystemExit(MISUSED)
    if echo and catalog is not None and not _all_answer(catalog):
        raise SystemExit(FAILED)
    click.echo("all is well")


@click.group()
def db() -> None:
    """Look after the database."""


@db.command(cls=Command, example="dicom-node db upgrade")
@with_settings
def upgrade(settings_file: Path) -> None:
    """Create the tables, or bring them to this program's version. Safe to repeat; `serve` does it at start."""
    from dicom_node import app
    from dicom_node.db import migrate

    app.upgrade_database(read_settings(settings_file))
    click.echo(f"the database is at version {migrate.head()}")


@db.command(cls=Command, example="dicom-node db reader analyst --ask-password")
@with_settings
@click.argument("role")
@click.option("--ask-password", is_flag=True, help="Ask for its password; without, pg_hba.conf says how it logs in.")
def reader(settings_file: Path, role: str, ask_password: bool) -> None:
    """Let the PostgreSQL role ROLE read the views, and nothing else. It is made when it is not there.

    Needs a database user that may make roles. What the views show is in docs/database.md; it includes patient IDs and
    accession numbers.
    """
    from dicom_node.db import views
    from dicom_node.db.engine import open_engine, transaction
    from dicom_node.db.migrate import check_database

    settings = read_settings(settings_file)
    password = click.prompt("Password", hide_input=True, confirmation_prompt=True) if ask_password else None
    engine = open_engine(settings.database.url, pool_size=1)
    try:
        check_database(engine, settings)
        with transaction(engine) as tx:
            new = views.add_reader(tx, role, password)
    finally:
        engine.dispose()
    click.echo(f"role {role} {'was made and ' if new else ''}may read {len(views.names())} views")


def _machine_problems(settings: Settings) -> list[str]:
    from sqlalchemy.exc import SQLAlchemyError

    from dicom_node import app
    from dicom_node.errors import ConfigurationError, NodeError
    from dicom_node.supervise import check_port
    from dicom_node.tls import check_tls

    problems = []
    try:
        app.open_spool(settings).prepare()
    except (NodeError, OSError) as error:
        problems.append(f"{settings.file}: spool.path: {error}")
    try:
        click.echo(f"database      {app.database_state(settings)}")
    except ConfigurationError as error:
        problems += error.problems
    except SQLAlchemyError as error:
        problems.append(f"{settings.file}: database.url: it does not answer: {app.one_line(error)}")
    for look in (check_port, check_tls, app.check_traces):
        try:
            look(settings)
        except ConfigurationError as error:
            problems += error.problems
    return problems


def _tell(settings: Settings, catalog: Catalog) -> None:
    from dicom_node.tls.cautions import cautions

    receive = settings.receive
    for name, card in catalog.models.items():
        click.echo(f"model         {name} {card.version} ({card.title}), digest {card.digest[:12]}")
    for rule in catalog.rules:
        where = ", ".join(rule.destinations)
        off = "" if rule.enabled else " (switched off)"
        click.echo(f"rule          {rule.name}: {rule.model} -> {where}{off}")
    for destination in catalog.destinations.values():
        click.echo(f"destination   {destination.name}: {destination.kind}, {destination.where}")
    if receive.accept_any_peer:
        click.echo("peers         anybody may send to us")
    else:
        peers = ", ".join(f"{p.ae_title}{f' ({p.address})' if p.address else ''}" for p in receive.peers)
        click.echo(f"peers         {peers or 'nobody may send to us yet: name them in [[receive.peers]]'}")
    for caution in cautions(settings):
        click.echo(f"caution       {caution}")
    if not any(rule.enabled for rule in catalog.rules):
        click.echo("note          no rule is switched on: series will be kept, and nothing done with them")


def _all_answer(catalog: Catalog) -> bool:
    from dicom_node.deliver import SENDERS
    from dicom_node.errors import DeliveryError

    answered = True
    for destination in catalog.destinations.values():
        try:
            took_s = SENDERS[destination.kind].echo(destination)
            click.echo(f"echo          {destination.name} answered in {took_s * 1000:.0f} ms")
        except DeliveryError as error:
            answered = False
            click.echo(f"dicom-node: {destination.name}: {error}", err=True)
    return answered
