"""What a database needs now and then to stay fast."""

from __future__ import annotations

from sqlalchemy import Connection

_ROWS_LOOKED_AT = 1000  # of each index: fast on any size, and near enough


def refresh_statistics(tx: Connection) -> None:
    """Count what the indexes hold, on SQLite; PostgreSQL does so by itself."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql(f"PRAGMA analysis_limit = {_ROWS_LOOKED_AT}")
        tx.exec_driver_sql("ANALYZE")
