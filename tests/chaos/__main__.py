"""``python -m tests.chaos``: kill -9 at many random points, on both databases, and the ledger of each run."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.intake import run_intake
from tests.chaos.ledger import Ledger
from tests.chaos.road import run_road
from tests.conftest import DEMO
from tests.node import RunningNode
from tests.peers.orthanc import Orthanc
from tests.peers.postgresql import PostgreSQL


def main() -> int:
    """Run what the command line asks for; 1 where something happened that must not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--intake", type=int, default=200, metavar="N", help="kills while instances arrive (200)")
    parser.add_argument("--road", type=int, default=24, metavar="N", help="kills on the whole road (24)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    asked = parser.parse_args()
    ledgers = []
    for kind in asked.database or ["sqlite", "postgresql"]:
        if asked.intake:
            ledgers.append(_run(f"intake, {kind}", kind, lambda home, url: _intake(home, url, asked)))
        if asked.road:
            ledgers.append(_run(f"road, {kind}", kind, lambda home, url: _road(home, url, asked)))
    return 1 if any(ledger.problems or ledger.stored != ledger.acknowledged for ledger in ledgers) else 0


def _run(name: str, database: str, chaos: Callable[[Path, str], Ledger]) -> Ledger:
    started = time.monotonic()
    with TemporaryDirectory(prefix="dicom-node-chaos-") as folder, _database(database, Path(folder)) as url:
        ledger = chaos(Path(folder), url)
    print(f"\n{name}, {time.monotonic() - started:.0f} s\n{ledger}", flush=True)
    return ledger


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'node.db'}"
        return
    server = PostgreSQL()
    try:
        yield server.database()
    finally:
        server.stop()


def _intake(home: Path, url: str, asked: argparse.Namespace) -> Ledger:
    return run_intake(home / "home", url, asked.intake, asked.seed, _say)


def _road(home: Path, url: str, asked: argparse.Namespace) -> Ledger:
    pacs = Orthanc(home / "orthanc").start()
    node = RunningNode(home / "home", pacs.dicom_port, pacs.ae, database_url=url, quiet_s=1.5, patience_s=20.0)
    try:
        node.start()
        return run_road(node, pacs, sorted(DEMO.glob("*.dcm")), home, asked.road, asked.seed, _say)
    finally:
        node.stop()
        pacs.discard()


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
