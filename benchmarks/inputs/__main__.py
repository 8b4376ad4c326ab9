"""Send real and odd inputs to a running node by dcmtk, and print what became of each as a table.

    python -m benchmarks.inputs DATA                      every part of it, some minutes
    python -m benchmarks.inputs DATA --parts difficult

DATA holds folders of files, archives and single files. The node is a whole one, with a rule that wants everything and
a model that marks what is bright. Stored is compared with what dcmtk sent, byte for byte; pixels with what another
decoder says; volumes with highdicom's; and what a storescp gets back with what of highdicom's volume is bright.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.inputs.cells import Row, Seen, Sending, row_of
from benchmarks.inputs.items import Item, items_in
from benchmarks.inputs.node import Node, received
from benchmarks.inputs.raw import with_meta
from benchmarks.inputs.storescu import as_they_are, problem_in

PARTS = ["transfer_syntaxes", "enhanced_multiframe", "difficult", "ct_other", "mr_brain", "chest_xray"]
PARTS += ["third_party_results"]


def main() -> None:
    """Parse, send round by round, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--parts", nargs="+", default=PARTS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # broken inputs are what this is about
    rows: dict[str, Row] = {}
    with TemporaryDirectory() as folder:
        items = list(items_in(given.data, given.parts, Path(folder) / "items"))
        rounds = _rounds(items)
        for number, some in enumerate(rounds):
            print(f"round {number + 1} of {len(rounds)}: {len(some)} items", file=sys.stderr, flush=True)
            for row in _round(Path(folder) / f"round{number}", some).values():
                rows[row.item] = row
                print(_line(row), file=sys.stderr, flush=True)
    print("| item | transfer syntax | stored | pixels | volume | sent back |\n|---|---|---|---|---|---|")
    for name in sorted(rows):
        print(_line(rows[name]))


def _line(row: Row) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |"


def _rounds(items: list[Item]) -> list[list[Item]]:
    """Spread items over as few nodes as may be: two that share a series would be taken for one."""
    rounds: list[list[Item]] = []
    for item in items:
        for some in rounds:
            if not any(item.series & other.series for other in some):
                some.append(item)
                break
        else:
            rounds.append([item])
    return rounds


def _round(folder: Path, items: list[Item]) -> dict[str, Row]:
    node = Node(folder)
    try:
        sent = {item.name: _send(node, item) for item in items}
        refusals, answers = node.ended()
        seen = Seen(node.spool, node.instances(), received(node.sent), refusals, answers, received(node.pacs))
        return {item.name: row_of(item, sent[item.name], seen) for item in items}
    finally:
        node.stop()


def _send(node: Node, item: Item) -> Sending:
    """Send an item by dcmtk; what it does not send, as it is by our own SCU; what nobody would send, its bytes."""
    before = set(node.instances())
    problem = problem_in(node.send(as_they_are(item.files, node.folder / "storescu.cfg"), item.files))
    sender = "dcmtk"
    for ourselves in ("our own SCU", "our own SCU, under made-up UIDs"):
        if not problem or _is_refusal(problem) or before != set(node.instances()):
            break
        files = item.files if sender == "dcmtk" else tuple(map(with_meta, item.files))
        sender, problem = ourselves, _last(node.send_ourselves(files).splitlines())
    return Sending(sender, frozenset(set(node.instances()) - before), problem)


def _is_refusal(problem: str) -> bool:
    return "0x" in problem


def _last(lines: Sequence[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "")


if __name__ == "__main__":
    main()
