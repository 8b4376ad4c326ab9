"""Send real and odd inputs to a running node by dcmtk, and print what became of each as a table.

    python -m benchmarks.inputs DATA                      every part of it, some minutes
    python -m benchmarks.inputs DATA --parts difficult

DATA holds folders of files, archives and single files. The node receives and assembles as it always does. Stored is
compared with what dcmtk sent, byte for byte; pixels with what another decoder says; volumes with highdicom's.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID

from benchmarks.inputs.items import Item, items_in
from benchmarks.inputs.node import Node
from benchmarks.inputs.raw import data_set, with_meta
from benchmarks.inputs.second import second_values, second_volume
from dicom_node.domain.job import JobInstance
from dicom_node.domain.study import Verdict, chosen, holds_single_images
from dicom_node.domain.volumes import Choice
from dicom_node.errors import NodeError
from dicom_node.examination import examine_stored
from dicom_node.pixels import StoredImage
from dicom_node.single_image import load_image
from dicom_node.spool import Spool
from dicom_node.volume import load_volume

PARTS = ["transfer_syntaxes", "enhanced_multiframe", "difficult", "ct_other", "mr_brain", "chest_xray"]
PARTS += ["third_party_results"]
Stored = dict[str, tuple[JobInstance, str]]


class Row(NamedTuple):
    """One item: what was sent how, what is stored, whether pixels and volume are right."""

    item: str
    syntax: str
    stored: str
    decoded: str
    volume: str


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
    print("| item | transfer syntax | stored | pixels | volume |\n|---|---|---|---|---|")
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
        told = {item.name: _send(node, item) for item in items}
        refusals = node.closed()
        stored = node.instances()
        sent = {uid: path for path in node.sent.iterdir() if (uid := _uid_of(path))}
        return {item.name: _row(item, told[item.name], stored, sent, refusals, node.spool) for item in items}
    finally:
        node.stop()


class Told(NamedTuple):
    """How an item was sent, what is stored of it, and what was said of the rest."""

    sender: str
    uids: frozenset[str]
    problem: str


def _send(node: Node, item: Item) -> Told:
    """Send an item by dcmtk; what it does not send, as it is by our own SCU; what nobody would send, its bytes."""
    before = set(node.instances())
    problem = _last(node.send(item.files))
    new = set(node.instances()) - before
    sender = "dcmtk"
    if not new and not (problem := _last(node.send_ourselves(item.files).splitlines()) or problem).count("0x"):
        new = set(node.instances()) - before
        sender = "our own SCU"
    if not new and "0x" not in problem:
        problem = _last(node.send_ourselves([with_meta(file) for file in item.files]).splitlines()) or problem
        new = set(node.instances()) - before
        sender = "our own SCU, under made-up UIDs"
    return Told(sender, frozenset(new), problem)


def _last(lines: Sequence[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "")


def _uid_of(path: Path) -> str:
    """Which instance a storescp says that it was: the data set itself may be odd."""
    return str(read_file_meta_info(path).MediaStorageSOPInstanceUID)


def _row(
    item: Item, told: Told, stored: Stored, sent: dict[str, Path], refusals: dict[str, str | None], spool: Spool
) -> Row:
    if not told.uids:
        answered = re.search(r"0x[0-9A-F]{4}.*", told.problem)
        what = f"refused on the wire, {answered[0]}" if answered else f"not sent: {told.problem}"
        return Row(f"`{item.name}`", "", _plain(what), "", "")
    mine = {uid: stored[uid] for uid in sorted(told.uids)}
    syntaxes = {UID(instance.transfer_syntax_uid).name for instance, _ in mine.values()}
    by_dcmtk = sent if told.sender == "dcmtk" else {}
    same = sum(_same(spool.path(instance.path), by_dcmtk.get(uid), item) for uid, (instance, _) in mine.items())
    kept = f"{len(mine)} of {len(item.files)}, {'all' if same == len(mine) else same} byte for byte"
    if told.sender != "dcmtk":
        kept += f" (by {told.sender}: dcmtk does not send it)"
    by_series: dict[str, list[JobInstance]] = {}
    for instance, series in mine.values():
        by_series.setdefault(series, []).append(instance)
    volumes = Counter(_volume(each, refusals.get(uid), spool) for uid, each in by_series.items())
    pixels = Counter(_pixels(spool.path(instance.path)) for instance, _ in mine.values())
    return Row(f"`{item.name}`", ", ".join(sorted(syntaxes)), kept, _told(pixels), _told(volumes))


def _told(counted: Counter[str]) -> str:
    if len(counted) == 1:
        return next(iter(counted))
    return "; ".join(f"{n} x {what}" for what, n in counted.most_common())


def _same(ours: Path, sent: Path | None, item: Item) -> bool:
    """Whether the data set on disk is the one that came over the wire; meta information is each receiver's own."""
    sources = [sent] if sent else item.files
    return any(data_set(ours) == data_set(source) for source in sources)


def _pixels(path: Path) -> str:
    data = path.read_bytes()
    image = StoredImage.of(data)
    if "Rows" not in image.header:
        return "none"
    try:
        ours = image.stored_values()
    except Exception as error:  # noqa: BLE001 - the cell tells
        first = (str(error).strip().splitlines() or [""])[0]
        return f"refused: {_plain(first)[:120]}"
    try:
        who, theirs = second_values(path)
    except Exception as error:  # noqa: BLE001 - the cell tells
        return f"decoded; no second decoder ({_plain(str(error))[:80]})"
    ours = np.asarray(ours, np.int64)
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}, {who} has {theirs.shape}"
    most = int(np.abs(ours - theirs).max())
    return f"equal to {who}" if most == 0 else f"differ from {who} by up to {most}"


def _volume(instances: list[JobInstance], refusal: str | None, spool: Spool) -> str:
    verdict = examine_stored(instances, spool.path)
    if refusal:
        return f"refused: {_plain(refusal)}{_each(verdict, instances, spool)}"
    if verdict.refusal:
        return f"WRONG: the node found a volume, we do not: {verdict.refusal}"
    known = {instance.sop_instance_uid: instance for instance in instances}
    if holds_single_images(instance.header for instance in instances):
        sizes = [" x ".join(map(str, load_image(spool, known[uid]).shape)) for uid in verdict.slices]
        return f"{len(sizes)} single: {', '.join(sizes)}"
    return _compared([known[uid] for uid in verdict.slices], {}, spool)


def _each(verdict: Verdict, instances: Sequence[JobInstance], spool: Spool) -> str:
    """Of several volumes in one series, what each is when a card takes it."""
    known = {instance.sop_instance_uid: instance for instance in instances}
    cells: Counter[str] = Counter()
    for part in verdict.parts:
        choice = tomllib.loads(part.to_choose().replace(", ", "\n"))
        taken = chosen(verdict, choice)
        cells[taken.refusal or _compared([known[uid] for uid in taken.slices], choice, spool)] += 1
    return f" When a card takes one: {_told(cells)}" if cells else ""


def _compared(slices: list[JobInstance], choice: Choice, spool: Spool) -> str:
    try:
        volume = load_volume(spool, slices, choice)
    except NodeError as error:
        return f"refused when read: {_plain(str(error))}"
    size = " x ".join(map(str, volume.array.shape))
    try:
        array, affine = second_volume([spool.path(one.path) for one in slices])
    except Exception as error:  # noqa: BLE001 - the cell tells
        return f"{size}; highdicom reads none ({_plain(str(error))[:100]})"
    if not _runs_alike(volume.affine, affine):
        array, affine = array[::-1], affine @ np.array([[-1, 0, 0, len(array) - 1], *np.eye(4)[1:]])
    values = float(np.abs(volume.array - array).max()) if array.shape == volume.array.shape else np.inf
    places = float(np.abs(volume.affine - affine).max())
    alike = values <= 1e-3 * max(1.0, float(np.abs(array).max()) / 1000) and places < 0.15
    return f"{size}, {'as highdicom has it' if alike else f'DIFFERS from highdicom: {values:g}, {places:g} mm'}"


def _runs_alike(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return float(ours[:3, 0] @ theirs[:3, 0]) > 0


def _plain(text: str) -> str:
    """Leave out UIDs, which say nothing to a reader."""
    words = text.replace("\n", " ").split()
    return " ".join("…" if word.count(".") > 4 and word[0].isdigit() else word for word in words)


if __name__ == "__main__":
    main()
