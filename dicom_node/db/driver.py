"""Statements given to the database's driver as they are.

SQLAlchemy builds so much around each execution that this costs several times what the database needs to run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

Values = tuple[Any, ...] | dict[str, Any]


def run(connection: Connection, statement: str, rows: Sequence[Values] = ((),)) -> int:
    """Run a statement that returns nothing, for each of some rows of values; how many rows of a table it wrote.

    Raises
    ------
    sqlalchemy.exc.DBAPIError
        As SQLAlchemy raises it for what it runs itself.
    """
    errors = connection.dialect.loaded_dbapi.Error
    cursor = None
    try:
        cursor = connection.connection.cursor()
        if len(rows) == 1:
            cursor.execute(statement, rows[0])
        else:
            many: Any = rows  # all of one kind
            cursor.executemany(statement, many)
        return cursor.rowcount
    except errors as error:
        is_lost = connection.dialect.is_disconnect(error, connection.connection.dbapi_connection, cursor)
        if is_lost:
            connection.invalidate(error)
        raise DBAPIError.instance(
            statement, None, error, errors, connection_invalidated=is_lost, dialect=connection.dialect
        ) from error
    finally:
        if cursor is not None:
            cursor.close()
