"""What Alembic runs for every command: compare and change our own tables, on the connection it is handed.

`dicom_node.db.migrate` hands one over, inside its own transaction. From Alembic's own command line, for writing a new
revision, the database is named with ``alembic -x url=sqlite:///scratch.db revision --autogenerate -m "why"``.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from dicom_node.db import views
from dicom_node.db.engine import open_engine
from dicom_node.db.tables import metadata


def _is_ours(name: str | None, type_: str, parents: object) -> bool:
    """Leave the tables of the job engine alone: on SQLite they share the file with ours."""
    return type_ != "table" or name in metadata.tables


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=_is_ours,
        render_as_batch=True,  # SQLite cannot alter a column in place
        transactional_ddl=True,
    )
    with context.begin_transaction():
        readers = views.drop(connection)  # no table below a view can be altered
        context.run_migrations()
        if context.get_context().get_current_revision() == context.get_head_revision():
            views.create(connection, readers)


def _run_from_command_line() -> None:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise SystemExit("name the database: alembic -x url=sqlite:///scratch.db ...")
    with open_engine(str(url)).begin() as connection:
        _run(connection)


_given = context.config.attributes.get("connection")
if _given is None:
    _run_from_command_line()
else:
    _run(_given)
