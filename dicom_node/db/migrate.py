"""Bring the tables to the version that this program was written for.

The revisions lie in ``migrations/`` beside the package, and inside it once installed. Each command runs in one
transaction under a lock, so two nodes that start at once on one database migrate it once, and a failure leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

import dicom_node
from dicom_node.db.engine import open_engine, reading
from dicom_node.errors import ConfigurationError
from dicom_node.settings import Settings

_LOCK = 0x6469636F6D  # "dicom": any constant, as long as every node asks for the same


def upgrade(url: str, revision: str = "head") -> None:
    """Create or upgrade our tables.

    Raises
    ------
    sqlalchemy.exc.SQLAlchemyError
        When the database does not answer or refuses; nothing is changed then.
    """
    with _migrating(url) as config:
        command.upgrade(config, revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the tables back to `revision`; at ``"base"`` none of ours is left."""
    with _migrating(url) as config:
        command.downgrade(config, revision)


def head() -> str:
    """The revision that this program needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None  # the folder ships at least one revision
    return revision


def current(engine: Engine) -> str | None:
    """The revision of the database, None where it was never migrated."""
    with reading(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return MigrationContext.configure(connection).get_current_revision()


def check_database(engine: Engine, settings: Settings) -> None:
    """Prove that the database answers and has the tables of this program.

    Raises
    ------
    ConfigurationError
        When its tables are older or newer.
    sqlalchemy.exc.SQLAlchemyError
        When it does not answer.
    """
    found = current(engine)
    if found != head():
        raise ConfigurationError(
            f"{settings.file}: database.url: the tables are at version {found or 'none'}, "
            f"this program needs {head()}; run `dicom-node db upgrade`"
        )


@contextmanager
def _migrating(url: str) -> Iterator[Config]:
    engine = open_engine(url, pool_size=1)
    try:
        with engine.begin() as connection:  # on SQLite BEGIN IMMEDIATE is the lock
            if connection.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL lock_timeout = 0"))  # another may be migrating, and take its time
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config = _config()
            config.attributes["connection"] = connection
            yield config
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    return config


def _folder() -> Path:
    package = Path(dicom_node.__file__).resolve().parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"
