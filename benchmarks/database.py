"""How long the questions of docs/database.md and of the commands take on a database of a million jobs.

    python benchmarks/database.py                         SQLite and a PostgreSQL of its own, one after the other
    python benchmarks/database.py --jobs 100000 --on sqlite
    python benchmarks/database.py --url postgresql://…    an empty database that is there; filled and left

A question over the limit is shown with the plan that the database made for it.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Connection, Engine, Index, make_url, text

from dicom_node.db import migrate, story
from dicom_node.db.engine import open_engine, transaction
from dicom_node.db.listing import JobFilter, list_jobs
from dicom_node.db.tables import metadata

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "database.md"
LIMIT_MS = 100.0
SOUGHT = 12_345  # the study, patient and job that questions ask for
_HURRY = {
    "sqlite": ("PRAGMA cache_size = -1000000",),
    "postgresql": ("SET session_replication_role = replica", "SET maintenance_work_mem = '512MB'"),
}
EXAMPLE_JOB = "7f3a09c1-0000-5000-8000-000000012345"  # as the page names one


def main() -> None:
    """Parse, fill, ask, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=500, help="over how many days they are spread")
    parser.add_argument("--on", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--url", help="an empty database instead")
    parser.add_argument("--folder", type=Path, help="where SQLite's file goes")
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    if given.url:
        measure(given.url, given.jobs, given.days, given.repeat)
    if not given.url and given.on in ("sqlite", "both"):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            measure(f"sqlite:///{folder}/node.db", given.jobs, given.days, given.repeat)
    if not given.url and given.on in ("postgresql", "both"):
        from tests.peers.postgresql import PostgreSQL

        server = PostgreSQL()
        try:
            measure(server.database(), given.jobs, given.days, given.repeat)
        finally:
            server.stop()


def measure(url: str, jobs: int, days: int, repeat: int) -> None:
    """Fill one database and ask it."""
    migrate.upgrade(url)
    engine = open_engine(url, pool_size=1)
    started = time.monotonic()
    fill(engine, jobs, days)
    print(f"\n{make_url(url).get_backend_name()}: {jobs:,} jobs, filled in {time.monotonic() - started:.0f} s")
    slow = 0
    for title, ask in questions(jobs):
        times = [_timed(engine, ask) for _ in range(repeat + 1)]
        median = statistics.median(times[1:])
        slow += median > LIMIT_MS
        print(f"  {median:8.1f} ms  (first {times[0]:8.1f})  {title}{'   <-- slow' if median > LIMIT_MS else ''}")
        if median > LIMIT_MS and isinstance(ask, _Sql):
            print("\n".join("      " + line for line in ask.plan(engine)))
    print(f"  {slow} over {LIMIT_MS:.0f} ms")
    engine.dispose()


def fill(engine: Engine, jobs: int, days: int) -> None:
    """Run database.sql, and let the database count what it has, as a node does every day."""
    script = _script(engine.dialect.name, jobs, days)
    with transaction(engine) as tx:
        for index in _indexes():
            index.drop(tx)
    with engine.connect() as connection:
        for hurry in _HURRY[engine.dialect.name]:  # on this connection alone
            connection.exec_driver_sql(hurry)
            connection.commit()
        for statement in script.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(
                    statement.replace("%", "%%") if engine.dialect.name == "postgresql" else statement
                )
                connection.commit()
        for index in _indexes():
            index.create(connection)
            connection.commit()
    if engine.dialect.name == "sqlite":
        with transaction(engine) as tx:
            tx.exec_driver_sql("PRAGMA analysis_limit = 1000")
            tx.exec_driver_sql("ANALYZE")
    else:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def _indexes() -> list[Index]:
    return [index for table in metadata.sorted_tables for index in sorted(table.indexes, key=lambda i: str(i.name))]


def _script(dialect: str, jobs: int, days: int) -> str:
    """Put numbers and the dialect's words into database.sql.

    ``TIME(n, s)`` is `s` seconds after the n-th job came; the last came 200 s ago, and series without a job lie between
    the others. ``ID(n, part)`` is an id in no order, as those of a node are.
    """
    script = (HERE / "database.sql").read_text().format(jobs=jobs, days=days, digest="0" * 64)

    def time_of(found: re.Match[str]) -> str:
        ago = f"-((({jobs} + {jobs} - {found[1]}) % {jobs}) * {days * 86_400 / jobs:.3f} + 200) + ({found[2]})"
        if dialect == "sqlite":
            return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', ({ago}) || ' seconds')"
        return f"now() + ({ago}) * interval '1 second'"

    def id_of(found: re.Match[str]) -> str:
        number, part = found[1], found[2]
        mixed = f"({number} * 2654435761) % 4294967296"
        if dialect == "sqlite":
            return f"printf('%08x-0000-5000-%d000-%012d', {mixed}, {part}, {number})"
        padded = f"lpad(CAST({number} AS text), 12, '0')"
        return f"lpad(to_hex({mixed}), 8, '0') || '-0000-5000-' || ({part}) || '000-' || {padded}"

    script = re.sub(r"^--.*$", "", script, flags=re.MULTILINE)
    return re.sub(r"ID\((\w+), ([^()]+)\)", id_of, re.sub(r"TIME\((\w+), ([^()]+)\)", time_of, script))


class _Sql:
    """A question of the page."""

    def __init__(self, sql: str) -> None:
        self._sql = sql

    def __call__(self, tx: Connection) -> object:
        return tx.execute(text(self._sql)).all()

    def plan(self, engine: Engine) -> Iterator[str]:
        how = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN (ANALYZE, BUFFERS) "
        with transaction(engine) as tx:
            for row in tx.execute(text(how + self._sql)):
                yield str(row[-1])


def questions(jobs: int) -> Iterator[tuple[str, Callable[[Connection], object]]]:
    """Everything that is asked: the page, then what the commands read."""
    number = min(SOUGHT, jobs // 2 + 3)
    job = f"{number * 2654435761 % 2**32:08x}-0000-5000-4000-{number:012d}"
    for title, sql in re.findall(
        r"^### (.+?)$\n+```sql\n(.+?);\n```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL
    ):
        for example, real in ((EXAMPLE_JOB, job), ("A12345", f"A{number}"), ("P12345", f"P{number // 3}")):
            sql = sql.replace(example, real)
        yield title, _Sql(sql)
    for title, which in (
        ("dicom-node jobs", JobFilter()),
        ("dicom-node jobs --state failed", JobFilter(state="failed")),
        ("dicom-node jobs --model chest_ct", JobFilter(model="chest_ct")),
        ("dicom-node jobs --patient", JobFilter(patient=f"P{number // 3}")),
        ("dicom-node jobs --job, shortened", JobFilter(job=job[:8])),
    ):
        yield title, lambda tx, which=which: list_jobs(tx, which)  # type: ignore[misc]
    for what, name in (
        ("accession number", f"A{number}"),
        ("patient ID", f"P{number // 3}"),
        ("instance UID", f"1.2.840.99999.3.{number}.1"),
        ("result UID", f"1.2.840.99999.4.{number}.1"),
        ("job, shortened", job[:8]),
        ("nothing that is known", "nobody"),
    ):
        yield f"dicom-node explain: {what}", lambda tx, name=name: _explain(tx, name)  # type: ignore[misc]


def _explain(tx: Connection, name: str) -> object:
    found = story.find_series(tx, name)
    return [story.read_series(tx, one) for one in found] or story.find_refusals(tx, name)


def _timed(engine: Engine, ask: Callable[[Connection], object]) -> float:
    with transaction(engine) as tx:
        started = time.perf_counter()
        ask(tx)
        return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
