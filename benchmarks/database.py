"""How long the questions of docs/database.md and of the commands take on a database of a million jobs.

    python -m benchmarks.database                         SQLite and a PostgreSQL of its own, one after the other
    python -m benchmarks.database --jobs 100000 --on sqlite
    python -m benchmarks.database --url postgresql://…    an empty database that is there; filled and left
    python -m benchmarks.database --url … --again         asked again

What counts is the best of several times, for a machine is seldom alone; a question over the limit is shown with the
plan that the database made for it. Of pages and API it is the time that they hold the database, not that of the HTML.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, Engine, Index, event, make_url, text

from benchmarks.site import asked_site
from dicom_node import engine as job_engine
from dicom_node.db import migrate, story
from dicom_node.db.engine import open_engine, reading, transaction
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
    parser.add_argument("--again", action="store_true", help="it was filled before; migrate and ask it")
    parser.add_argument("--folder", type=Path, help="where SQLite's file goes")
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    if given.url:
        measure(given.url, given.jobs, given.days, given.repeat, filled=given.again)
    if not given.url and given.on in ("sqlite", "both"):
        with TemporaryDirectory(dir=given.folder) as folder:
            measure(f"sqlite:///{folder}/node.db", given.jobs, given.days, given.repeat)
    if not given.url and given.on in ("postgresql", "both"):
        from tests.peers.postgresql import PostgreSQL

        server = PostgreSQL()
        try:
            measure(server.database(), given.jobs, given.days, given.repeat)
        finally:
            server.stop()


def measure(url: str, jobs: int, days: int, repeat: int, *, filled: bool = False) -> None:
    """Fill one database and ask it."""
    started = time.monotonic()
    migrate.upgrade(url)
    job_engine.migrate(url)
    engine = open_engine(url, pool_size=2)
    if not filled:
        fill(engine, jobs, days)
    print(f"\n{make_url(url).get_backend_name()}: {jobs:,} jobs, filled in {time.monotonic() - started:.0f} s")
    slow = 0
    with TemporaryDirectory() as home, asked_site(url, engine, Path(home)) as requests:
        slow += _ask(engine, questions(jobs), repeat)
        slow += _ask(engine, requests(min(SOUGHT, jobs // 2 + 3)), repeat)
    print(f"  {slow} over {LIMIT_MS:.0f} ms")
    engine.dispose()


def _ask(engine: Engine, asked: Iterable[tuple[str, Callable[[Connection], object]]], repeat: int) -> int:
    slow = 0
    for title, ask in asked:
        times = [_timed(engine, ask) for _ in range(repeat + 1)]
        best, median = min(times), statistics.median(times)
        slow += best > LIMIT_MS
        mark = "   <-- slow" if best > LIMIT_MS else ""
        print(f"  {best:8.1f} ms  (median {median:7.1f}, first {times[0]:7.1f})  {title}{mark}", flush=True)
        if best > LIMIT_MS and isinstance(ask, _Sql):
            print("\n".join("      " + line for line in ask.plan(engine)))
        elif best > LIMIT_MS:
            print(f"      {_slowest(engine, ask)}")
    return slow


def _slowest(engine: Engine, ask: Callable[[Connection], object]) -> str:
    """Find the statement that takes most of the time."""
    took: list[tuple[float, str]] = []
    started: list[float] = []

    def before(*_: object) -> None:
        started.append(time.perf_counter())

    def after(_: object, __: object, statement: str, parameters: object, *more: object) -> None:
        took.append((time.perf_counter() - started.pop(), f"{' '.join(statement.split())} {parameters}"))

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    _timed(engine, ask)
    event.remove(engine, "before_cursor_execute", before)
    event.remove(engine, "after_cursor_execute", after)
    seconds, statement = max(took)
    return f"{len(took)} statements, the slowest {seconds * 1000:.0f} ms: {statement}"


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
    with reading(engine) as tx:
        started = time.perf_counter()
        answer = ask(tx)
        return (answer if isinstance(answer, float) else time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
