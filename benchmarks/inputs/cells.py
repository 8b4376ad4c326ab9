"""The cells of the table: what is stored of an item, whether it is right, and what came back."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.uid import UID

from benchmarks.inputs.answers import told
from benchmarks.inputs.items import Item
from benchmarks.inputs.node import Answer
from benchmarks.inputs.raw import data_set
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

Stored = dict[str, tuple[JobInstance, str]]


class Row(NamedTuple):
    """One item: what was sent how, what is stored, whether pixels and volume are right, and what came back of it."""

    item: str
    syntax: str
    stored: str
    decoded: str
    volume: str
    answer: str


class Seen(NamedTuple):
    """What is there when a round is over.

    Attributes
    ----------
    sent, pacs : dict of str to pathlib.Path
        What dcmtk really sent, and what the PACS has got, by SOP Instance UID.
    refusals, answers : dict
        By Series Instance UID.
    """

    spool: Spool
    stored: Stored
    sent: dict[str, Path]
    refusals: dict[str, str | None]
    answers: dict[str, list[Answer]]
    pacs: dict[str, Path]


class Sending(NamedTuple):
    """How an item was sent, what is stored of it, and what was said of the rest."""

    sender: str
    uids: frozenset[str]
    problem: str


def row_of(item: Item, sending: Sending, seen: Seen) -> Row:
    """Look at what became of an item."""
    by = "" if sending.sender == "dcmtk" else f" (by {sending.sender}: dcmtk does not send it)"
    if not sending.uids:
        answered = re.search(r"0x[0-9A-F]{4}.*", sending.problem)
        what = f"refused on the wire, {answered[0]}{by}" if answered else f"not sent: {sending.problem}"
        return Row(f"`{item.name}`", "", _plain(what), "", "", "")
    mine = {uid: seen.stored[uid] for uid in sorted(sending.uids)}
    syntaxes = {UID(instance.transfer_syntax_uid).name for instance, _ in mine.values()}
    sent = {} if by else seen.sent
    same = sum(_same(seen.spool.path(instance.path), sent.get(uid), item) for uid, (instance, _) in mine.items())
    kept = f"{len(mine)} of {len(item.files)}, {'all' if same == len(mine) else f'but {same} byte for byte'}{by}"
    by_series: dict[str, list[JobInstance]] = {}
    for instance, series in mine.values():
        by_series.setdefault(series, []).append(instance)
    pixels = Counter(_pixels(seen.spool.path(instance.path)) for instance, _ in mine.values())
    volumes = Counter(_volume(each, seen.refusals.get(uid), seen.spool) for uid, each in by_series.items())
    answers = Counter(_answer(each, uid, seen) for uid, each in by_series.items())
    return Row(f"`{item.name}`", ", ".join(sorted(syntaxes)), kept, *map(_told, (pixels, volumes, answers)))


def _answer(instances: list[JobInstance], series: str, seen: Seen) -> str:
    volume = None
    if not seen.refusals.get(series) and not holds_single_images(one.header for one in instances):
        known = {one.sop_instance_uid: seen.spool.path(one.path) for one in instances}
        with suppress(Exception):  # the cell of the volume tells
            volume = second_volume([known[uid] for uid in examine_stored(instances, seen.spool.path).slices])
    return told(seen.answers.get(series, []), seen.pacs, volume)


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
        second = second_volume([spool.path(one.path) for one in slices])
    except Exception as error:  # noqa: BLE001 - the cell tells
        return f"{size}; highdicom reads none ({_plain(str(error))[:100]})"
    array, affine = second.array, second.affine
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
