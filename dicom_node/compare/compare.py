"""Compare what two models said of the series that both ran on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import Engine

from dicom_node.compare.agreement import Agreement, Marked, agree, marked
from dicom_node.compare.images import Differing, differing
from dicom_node.db.engine import reading
from dicom_node.db.pairs import Answer, Pair, read_pairs
from dicom_node.errors import SpoolError
from dicom_node.picture import WINDOWS, grey, outline, packed_masks, read_overlay
from dicom_node.spool import Spool

COLOURS = ((230, 159, 0), (86, 180, 233))  # the first model's outline and the second's; told apart by any eye
_BOTH = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Compared:
    """One series on which both models were run; `skipped` says why it could not be compared.

    `images` is how far the images differ that both made of it.
    """

    pair: Pair
    agreement: Agreement | None
    skipped: str = ""
    images: tuple[Differing, ...] = ()


def compare(
    engine: Engine, spool: Spool, first: str, second: str, *, since: datetime | None = None, limit: int = 100
) -> Iterator[Compared]:
    """Compare two models on the newest series that both completed.

    Parameters
    ----------
    first, second : str
        Names of models.
    limit : int
        Most series that are looked at.
    """
    with reading(engine) as tx:
        pairs = list(read_pairs(tx, first, second, since, limit))
    for pair in pairs:
        if pair.apart:
            yield Compared(pair, None, pair.apart)
            continue
        try:
            agreement = agree(_marked(spool, pair.first), _marked(spool, pair.second))
            images = differing(*([spool.path(file) for file in one.maps] for one in (pair.first, pair.second)))
        except (SpoolError, FileNotFoundError) as error:
            yield Compared(pair, None, str(error))
        else:
            yield Compared(pair, agreement, images=images)


def draw_worst(spool: Spool, pair: Pair, file: Path) -> bool:
    """Draw the slice on which two answers differ most, each as an outline; where both run, white.

    Returns
    -------
    bool
        False when there is nothing to draw: no voxel differs, or the images are gone.
    """
    first, second = _whole(_marked(spool, pair.first)), _whole(_marked(spool, pair.second))
    differing = {uid: _differing(first.get(uid), second.get(uid)) for uid in first.keys() | second.keys()}
    worst = max(differing, key=lambda uid: (differing[uid], uid), default="")
    if not worst or not differing[worst] or worst not in pair.images:
        return False
    shown = grey(spool, pair.images[worst], WINDOWS["lung"])
    rgb = shown if shown.ndim == 3 else np.repeat(shown[:, :, None], 3, axis=2)
    lines = [outline(_unpacked(masks.get(worst), shown.shape[:2])) for masks in (first, second)]
    for line, colour in zip(lines, COLOURS, strict=True):
        rgb[line] = colour
    rgb[lines[0] & lines[1]] = _BOTH
    Image.fromarray(rgb).save(file)
    return True


def _marked(spool: Spool, answer: Answer) -> list[Marked]:
    if answer.seg is None:
        return marked(answer.segments, {})
    path = spool.path(answer.seg)
    if not path.is_file():
        raise SpoolError(f"The segmentation of job {answer.job_id[:8]} is not in the spool.")
    return marked(answer.segments, packed_masks(read_overlay(path)))


def _whole(things: list[Marked]) -> dict[str, NDArray[np.uint8]]:
    """Everything that was marked, image by image."""
    whole: dict[str, NDArray[np.uint8]] = {}
    for thing in things:
        for uid, voxels in thing.mask.items():
            whole[uid] = whole[uid] | voxels if uid in whole else voxels
    return whole


def _differing(a: NDArray[np.uint8] | None, b: NDArray[np.uint8] | None) -> int:
    if a is None or b is None:
        there = a if a is not None else b
        return int(np.bitwise_count(there).sum()) if there is not None else 0
    return int(np.bitwise_count(a ^ b).sum())


def _unpacked(voxels: NDArray[np.uint8] | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if voxels is None:
        return np.zeros(shape, bool)
    return np.unpackbits(voxels, count=int(np.prod(shape))).reshape(shape).astype(bool)
