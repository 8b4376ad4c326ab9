"""The views of views.sql: the database as an interface, the same on SQLite and PostgreSQL.

Views stand in the way of changes to the tables below them, so each migration drops them first and makes them anew at
its end, in its own transaction; who was allowed to read them is allowed again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from sqlalchemy import Connection, bindparam, inspect, text

from dicom_node.errors import ConfigurationError

VERSION = 1  # of the interface: grows when a column is renamed, removed or changes its meaning

_TIME = "%Y-%m-%d %H:%M:%f000"  # as SQLAlchemy stores a time in SQLite, and so comparable with it as text
_MACROS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "sqlite": (
        (r"SECONDS\((.+?), (.+?\)?)\)(?= AS| END)", r"round((julianday(\2) - julianday(\1)) * 86400.0, 3)"),
        (  # round() is slow in SQLite: it prints the number and reads it again
            r"TENTHS\(([\w.]+), ([\w.]+)\)",
            r"CASE WHEN julianday(\2) - julianday(\1) < 10 / 86400.0"
            r" THEN CAST((julianday(\2) - julianday(\1)) * 864000.0 + 0.5 AS INTEGER)"
            r" ELSE 10 * CAST((julianday(\2) - julianday(\1)) * 86400.0 + 0.5 AS INTEGER) END",
        ),
        (r"DAY\(([\w.]+)\)", r"date(\1, 'localtime')"),
        (r"NOW\(\)", f"strftime('{_TIME}', 'now')"),
        (r"AGO\((\d+ \w+)\)", rf"strftime('{_TIME}', 'now', '-\1')"),
        (r"MIDNIGHT\(\)", f"strftime('{_TIME}', 'now', 'localtime', 'start of day', 'utc')"),
        (r"EACH\(([\w.]+)\)", r"json_each(\1)"),
        (r"FIELD\(([\w.]+), (\w+)\)", r"json_extract(\1, '$.\2')"),
    ),
    "postgresql": (
        (
            r"SECONDS\((.+?), (.+?\)?)\)(?= AS| END)",
            r"CAST(round(CAST(EXTRACT(EPOCH FROM \2 - \1) AS numeric), 3) AS double precision)",
        ),
        (
            r"TENTHS\(([\w.]+), ([\w.]+)\)",
            r"CASE WHEN \2 - \1 < interval '10 seconds' THEN CAST(EXTRACT(EPOCH FROM \2 - \1) * 10 AS integer)"
            r" ELSE 10 * CAST(EXTRACT(EPOCH FROM \2 - \1) AS integer) END",
        ),
        (r"DAY\(([\w.]+)\)", r"to_char(\1, 'YYYY-MM-DD')"),
        (r"NOW\(\)", "now()"),
        (r"AGO\((\d+ \w+)\)", r"(now() - interval '\1')"),
        (r"MIDNIGHT\(\)", "date_trunc('day', now())"),
        (r"EACH\(([\w.]+)\)", r"LATERAL json_each_text(CASE WHEN json_typeof(\1) = 'object' THEN \1 END)"),
        (r"FIELD\(([\w.]+), (\w+)\)", r"(\1 ->> '\2')"),
    ),
}
_READERS = text(
    "SELECT DISTINCT r.rolname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "CROSS JOIN LATERAL aclexplode(c.relacl) acl JOIN pg_roles r ON r.oid = acl.grantee "
    "WHERE n.nspname = current_schema() AND c.relkind = 'v' AND c.relname IN :names "
    "AND acl.privilege_type = 'SELECT' AND acl.grantee <> c.relowner"
).bindparams(bindparam("names", expanding=True))


def names() -> list[str]:
    """Name the views, those that others are built on first."""
    return [name for name, _ in _statements("sqlite")]


def drop(tx: Connection) -> list[str]:
    """Drop the views that are there.

    Returns
    -------
    list of str
        The roles that could read them, to be handed to `create`; none on SQLite.
    """
    there = {name for name in inspect(tx).get_view_names() if name in names()}
    readers = sorted(tx.scalars(_READERS, {"names": sorted(there)})) if there and _is_postgresql(tx) else []
    for name in reversed(names()):
        if name in there:
            tx.exec_driver_sql(f"DROP VIEW {name}")
    return readers


def create(tx: Connection, readers: list[str] | None = None) -> None:
    """Make the views, and let the given roles read them."""
    for _, statement in _statements(tx.dialect.name):
        tx.exec_driver_sql(statement)
    for role in readers or []:
        _grant(tx, role)


def add_reader(tx: Connection, role: str, password: str | None) -> bool:
    """Let a PostgreSQL role log in and read the views, and nothing else; every transaction of it is read-only.

    Parameters
    ----------
    role : str
        Its name; made when it is not there.
    password : str, optional
        Set when given; without one the role logs in as pg_hba.conf says.

    Returns
    -------
    bool
        Whether the role is new.

    Raises
    ------
    ConfigurationError
        On SQLite, whose readers are those that may read the file.
    """
    if not _is_postgresql(tx):
        raise ConfigurationError("SQLite has no roles: open the file read-only, sqlite3 'file:node.db?mode=ro'")
    quoted = _quoted(tx, role)
    new = tx.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}) is None
    if new:
        tx.exec_driver_sql(f"CREATE ROLE {quoted} NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT")
    login = "LOGIN" if password is None else f"LOGIN PASSWORD '{_verifier(tx, role, password)}'"
    tx.exec_driver_sql(f"ALTER ROLE {quoted} {login}")
    tx.exec_driver_sql(f"ALTER ROLE {quoted} SET default_transaction_read_only = on")
    tx.exec_driver_sql(f"ALTER ROLE {quoted} SET statement_timeout = '60s'")
    database = _quoted(tx, str(tx.engine.url.database))
    tx.exec_driver_sql(f"GRANT CONNECT ON DATABASE {database} TO {quoted}")
    schema = _quoted(tx, str(tx.scalar(text("SELECT current_schema()"))))
    tx.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {quoted}")
    _grant(tx, role)
    return new


def _grant(tx: Connection, role: str) -> None:
    tx.exec_driver_sql(f"GRANT SELECT ON {', '.join(names())} TO {_quoted(tx, role)}")


def _verifier(tx: Connection, role: str, password: str) -> str:
    """Hash a password as the server will keep it, so that the password itself reaches no log of the server."""
    connection: Any = tx.connection.driver_connection
    hashed: bytes = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    return hashed.decode("ascii")


def _quoted(tx: Connection, name: str) -> str:
    quoted: str = tx.dialect.identifier_preparer.quote_identifier(name)
    return quoted


def _is_postgresql(tx: Connection) -> bool:
    return tx.dialect.name == "postgresql"


@cache
def _source() -> str:
    return (files("dicom_node.db") / "views.sql").read_text(encoding="utf-8")


def _statements(dialect: str) -> Iterator[tuple[str, str]]:
    source = _source().replace("INTERFACE()", str(VERSION))
    for pattern, replacement in _MACROS[dialect]:
        source = re.sub(pattern, replacement, source)
    for found in re.finditer(r"^(CREATE VIEW (\w+) .+?);$", source, flags=re.MULTILINE | re.DOTALL):
        yield found[2], found[1]
