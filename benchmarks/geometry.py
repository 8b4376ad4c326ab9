"""Proves every way of cutting a patient through the whole node and Orthanc, on SQLite and on PostgreSQL.

    python -m benchmarks.geometry
    python -m benchmarks.geometry --only sqlite

A phantom that is alike in no direction is cut in each way that the node accepts, sent to a node and to Orthanc by
C-STORE, segmented by a model that knows values and no places, delivered to Orthanc, and read back from there. Each
line says how many marked voxels were compared with the phantom, and how long the cell took from the first C-STORE. A
voxel that differs ends it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.integration.results.phantom_node import phantom_node, prove_cell
from tests.peers.orthanc import Orthanc
from tests.peers.postgresql import PostgreSQL
from tests.unit.results.test_geometry import GRIDS

DATABASES = ("sqlite", "postgresql")


def main() -> None:
    """Print one row for each cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=DATABASES, default="")
    chosen = parser.parse_args().only
    with tempfile.TemporaryDirectory() as scratch:
        orthanc = Orthanc(Path(scratch) / "orthanc").start()
        try:
            for name in DATABASES:
                if chosen in ("", name):
                    with _database(name) as url:
                        _prove(name, url, orthanc, Path(scratch) / name)
        finally:
            orthanc.discard()


def _prove(database: str, url: str, orthanc: Orthanc, home: Path) -> None:
    node = phantom_node(home, orthanc, url)
    node.start()
    try:
        for number, name in enumerate(GRIDS):
            started = perf_counter()
            voxels = prove_cell(name, node, orthanc, home / f"cell{number}")
            print(f"{database:<11}{name:<38}{voxels:>8} voxels equal {perf_counter() - started:6.1f} s", flush=True)
    finally:
        node.stop()


@contextmanager
def _database(name: str) -> Iterator[str]:
    if name == "sqlite":
        yield "sqlite:///node.db"
        return
    server = PostgreSQL()
    try:
        yield server.database()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
