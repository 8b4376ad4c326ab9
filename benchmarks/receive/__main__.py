"""Send the same 300 slices to our receiver and to others, side by side, and say how many were taken in a second.

    python -m benchmarks.receive                              everything, some minutes
    python -m benchmarks.receive --rounds 1 --associations 4 --only node
    python -m benchmarks.receive --postgresql                 on a PostgreSQL, too: ours, and Orthanc with its plugin

Everybody runs on this machine at once and is sent to in turn, round after round; what counts is the median. Unwritten
data of one is synced before the next has its turn. Linux only: processor times are read from /proc.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.receive.acceptors import Acceptor, Node, OrthancDurable, Sink, Storescp
from benchmarks.receive.series import SYNTAXES, Messages, messages

_COMPARED = {"Orthanc, SQLite": "Orthanc", "Orthanc, PostgreSQL": "its PostgreSQL", "socket sink, files synced": "sink"}

Measured = dict[str, list[tuple[float, float]]]  # name -> seconds and processor seconds of each round


def main() -> None:
    """Parse, start everybody, send, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--syntax", choices=[*SYNTAXES], nargs="+", default=[*SYNTAXES])
    parser.add_argument("--only", choices=("node", "sink", "orthanc", "storescp"), nargs="+")
    parser.add_argument("--postgresql", action="store_true", help="ours and Orthanc on one PostgreSQL server, too")
    parser.add_argument("--folder", type=Path, default=Path("var"), help="on the disk that is measured")
    given = parser.parse_args()
    given.folder.mkdir(exist_ok=True)
    runs = count(1)
    series = [messages(syntax, given.slices) for syntax in given.syntax]
    with (
        TemporaryDirectory(dir=given.folder.resolve(), prefix="receive-") as folder,
        acceptors(Path(folder), given.only, postgresql=given.postgresql) as everybody,
    ):
        for syntax, one in zip(given.syntax, series, strict=True):
            print(f"\n{syntax}, {one.data_bytes / 1000:.0f} kB a slice, {given.slices} slices")
            for associations in given.associations:
                print(f"  {associations} association{'s' * (associations > 1)}")
                tell(measure(everybody, one, associations, given.rounds, runs), given.slices)


@contextmanager
def acceptors(folder: Path, only: list[str] | None, *, postgresql: bool) -> Iterator[list[Acceptor]]:
    """Start everybody, and end them."""
    makers: dict[str, Callable[[], Acceptor]] = {
        "node": lambda: Node(folder / "node"),
        "orthanc": lambda: OrthancDurable(folder / "orthanc"),
        "storescp": lambda: Storescp(folder / "storescp"),
        "sink": lambda: Sink(folder / "sink"),
    }
    started: list[Acceptor] = []
    server = None
    try:
        if postgresql:
            from tests.peers.postgresql import PostgreSQL

            server = PostgreSQL(fsync=True)
            if only is None or "node" in only:
                started.append(Node(folder / "node-postgresql", server.database()))
            if (only is None or "orthanc" in only) and OrthancDurable.plugin.exists():
                started.append(OrthancDurable(folder / "orthanc-postgresql", server.database()))
            elif only is None or "orthanc" in only:
                print("Orthanc on PostgreSQL: NOT MEASURED, its plugin is not there (Debian: orthanc-postgresql)")
        for name, make in makers.items():
            if only is None or name in only:
                started.append(make())
        yield started
    finally:
        for one in started:
            one.stop()
        if server is not None:
            server.stop()


def measure(
    everybody: list[Acceptor], series: Messages, associations: int, rounds: int, runs: Iterator[int]
) -> Measured:
    """Send to everybody in turn."""
    found: Measured = defaultdict(list)
    for _ in range(rounds):
        for one in everybody:
            os.sync()
            before = one.cpu_s()
            seconds = one.take(series, next(runs), associations)
            found[one.name].append((seconds, one.cpu_s() - before))
    return found


def tell(found: Measured, slices: int) -> None:
    """Print the medians, and what they are to Orthanc's and to the sink's."""
    rates = {name: slices / statistics.median(seconds for seconds, _ in rounds) for name, rounds in found.items()}
    for name, rounds in found.items():
        cpu_ms = statistics.median(cpu for _, cpu in rounds) / slices * 1000
        ratios = [
            f"{rates[name] / rates[other]:5.2f} x {short}"
            for other, short in _COMPARED.items()
            if other in rates and other != name
        ]
        print(f"    {name:28} {rates[name]:7.0f} /s   {cpu_ms:5.2f} ms CPU   {'   '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
