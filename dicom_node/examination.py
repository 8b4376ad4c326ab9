"""A stored series as examination sees it: the slices in its files, and those among them that are copies of others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dicom_node.db.series import ClosedSeries
from dicom_node.digest import digest_of
from dicom_node.domain.study import Verdict, examine
from dicom_node.multiframe import Stored, slices_of
from dicom_node.pixels import StoredImage

logger = logging.getLogger(__name__)

A_COPY = "a copy of another slice: the same place and the same pixels under another UID"
_VALUES = ("RescaleSlope", "RescaleIntercept", "RescaleType", "PixelSpacing", "BitsStored", "PixelRepresentation")


def examine_stored(
    instances: Iterable[Stored], path: Callable[[str], Path], expected_count: int | None = None
) -> Verdict:
    """Find the volumes of a stored series, as `domain.study.examine` does; pixels are looked at only to find copies.

    Parameters
    ----------
    path : callable
        Where a file of the spool is, e.g. `Spool.path`.
    expected_count : int, optional
        How many instances there should be, where somebody told.
    """
    stored = {instance.sop_instance_uid: instance for instance in instances}
    slices = slices_of(stored.values(), path)
    verdict = examine(slices, expected_count)
    copies = {uid: A_COPY for twins in verdict.twins for uid in _copies(twins, stored, path)}
    return examine(slices, expected_count, copies) if copies else verdict


def examine_closed(series: ClosedSeries, path: Callable[[str], Path]) -> Verdict:
    """Find the volumes of a series as they were found when it was closed, with what it was refused for beside them."""
    verdict = examine_stored(series.instances, path)
    if series.refusal not in (None, verdict.refusal):  # for what was not sent, or not stored
        verdict = replace(verdict, refusal=series.refusal, parts=())
    if series.lacking is not None:
        verdict.facts["complete"] = False
    return verdict


def _copies(twins: Sequence[str], stored: Mapping[str, Stored], path: Callable[[str], Path]) -> list[str]:
    """Of slices at one place, those with the pixels of one before them."""

    def first_of(look: Callable[[StoredImage], bytes]) -> dict[tuple[str, ...], str]:
        first: dict[tuple[str, ...], str] = {}
        for uid in twins:
            image = StoredImage.of(path(stored[uid].path).read_bytes())
            first.setdefault((digest_of(look(image)), *(str(image.header.get(keyword)) for keyword in _VALUES)), uid)
        return first

    try:
        first = first_of(StoredImage.encoded)
        if len(first) > 1:  # the same pixels may be encoded in several ways
            first = first_of(StoredImage.little_endian)
    except Exception as error:  # noqa: BLE001 - whatever parsers and codecs say of broken bytes: they are no copies
        logger.warning("slices at one place cannot be compared: %s", type(error).__name__)
        return []
    return [uid for uid in twins if uid not in first.values()]
