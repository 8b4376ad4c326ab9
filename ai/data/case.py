"""One scan with what is known of it: the form into which every reader turns its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ai.contract import Volume
from ai.data.nodule import Nodule


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a case comes from.

    Parameters
    ----------
    source : str
        The collection, e.g. ``LIDC-IDRI``.
    licence : str
        As the source states it; ``unknown`` where it does not.
    reference : str
        Who or what made the labels.
    """

    source: str
    licence: str
    reference: str


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One scan.

    Parameters
    ----------
    id : str
        Unique within its source, fit for a file name.
    patient : str
        What is never split between folds.
    images : mapping of str to Volume
        By channel, all on one grid: ``ct``; ``t1``, ``t1ce``, ``t2``, ``flair``; ``red``, ``green``, ``blue``.
    provenance : Provenance
        Source, licence, and who made the reference.
    labels : numpy.ndarray of uint8, shape (slices, rows, columns), optional
        None where nothing was outlined but nodules, or nothing at all.
    label_names : mapping of int to str
        What each value in `labels` means.
    nodules : tuple of Nodule
        Empty where there are none or the source does not say; `knows_nodules` tells which.
    instances : numpy.ndarray of uint8, shape (slices, rows, columns), optional
        `Nodule.instance` where that nodule is.
    knows_nodules : bool
        Whether somebody looked for nodules: only then does an empty list mean that there are none.
    split : str
        As the source divides itself: ``train``, ``test``, ``subset3``; empty where it does not.
    """

    id: str
    patient: str
    images: Mapping[str, Volume]
    provenance: Provenance
    labels: NDArray[np.uint8] | None = None
    label_names: Mapping[int, str] = field(default_factory=dict)
    nodules: tuple[Nodule, ...] = ()
    instances: NDArray[np.uint8] | None = None
    knows_nodules: bool = False
    split: str = ""

    @property
    def volume(self) -> Volume:
        """The first image: the only one where a scan has one channel."""
        return next(iter(self.images.values()))


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A case that was found but not yet read: a set may be far larger than memory."""

    id: str
    patient: str
    read: Callable[[], Case]
