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


BEFORE = """
INSERT INTO association (id, calling_ae, called_ae, peer_address, started_at) VALUES ('a', 'CT1', 'N', 'h', {at});
INSERT INTO study (id, study_instance_uid, first_received_at) VALUES ('s', '1.2', {at});
INSERT INTO series (id, study_id, series_instance_uid, state, first_received_at, last_received_at, settle_at)
VALUES ('e', 's', '1.3', 'complete', {at}, {at}, {at});
INSERT INTO instance (series_id, association_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, size,
    sha256, received_at, header) VALUES ('e', 'a', '1.4', '1.5', '1.6', 'p', 1, '0', {at}, '{{}}');
INSERT INTO job (id, series_id, series_revision, rule, model, model_version, destinations, slices, priority, state,
    max_attempts, created_at) VALUES ('j', 'e', 1, 'r', 'm', '1', '[]', '[]', 10, 'completed', 1, {at})
"""


def test_what_was_there_before_stays_and_learns_where_it_came_from(engine: Engine, database_url: str) -> None:
    migrate.upgrade(database_url, "0002")
    with engine.begin() as tx:
        for statement in BEFORE.format(at="'2026-01-01 00:00:00'").split(";"):
            tx.exec_driver_sql(statement)
    migrate.upgrade(database_url)
    with engine.begin() as tx:
        assert tuple(tx.execute(text("SELECT source_ae, scanner FROM v_job")).one()) == ("CT1", "")
        assert tx.execute(text("SELECT digest FROM instance")).scalar() == "0"
