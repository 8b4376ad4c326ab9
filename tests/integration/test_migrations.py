"""The revisions in migrations/ make exactly the tables that the program speaks to, and can take them back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from dicom_node.db import migrate
from dicom_node.db.engine import open_engine
from dicom_node.db.tables import metadata


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    with engine.begin() as tx:  # a table of the job engine, whose home is the same database
        tx.execute(text("CREATE TABLE queues (name TEXT)"))
    yield engine
    engine.dispose()


def differences(engine: Engine) -> list[object]:
    """What autogenerate would change to turn the database into db/tables.py, tables of others aside."""
    options = {"include_name": lambda name, type_, parents: type_ != "table" or name in metadata.tables}
    with engine.begin() as connection:
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def test_upgrade_makes_exactly_the_tables_the_program_knows(engine: Engine, database_url: str) -> None:
    assert migrate.current(engine) is None
    assert differences(engine)
    migrate.upgrade(database_url)
    assert differences(engine) == []
    assert migrate.current(engine) == migrate.head()


def test_upgrade_twice_changes_nothing(engine: Engine, database_url: str) -> None:
    migrate.upgrade(database_url)
    migrate.upgrade(database_url)
    assert differences(engine) == []


def test_downgrade_takes_our_tables_away_and_leaves_those_of_the_job_engine(engine: Engine, database_url: str) -> None:
    migrate.upgrade(database_url)
    migrate.downgrade(database_url)
    assert set(inspect(engine).get_table_names()) == {"alembic_version", "queues"}
    assert migrate.current(engine) is None


def test_a_failing_upgrade_leaves_nothing_behind(engine: Engine, database_url: str) -> None:
    with engine.begin() as tx:
        tx.execute(text("CREATE TABLE delivery (id TEXT)"))  # in the way of the last tables
    with pytest.raises(Exception, match="already exists"):
        migrate.upgrade(database_url)
    assert set(inspect(engine).get_table_names()) <= {"delivery", "queues"}
