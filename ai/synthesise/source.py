"""Where the patches that the generative model learns from are cut: phantoms, and annotated scans of a site's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.synthesise.patches import ATTENUATIONS, PatchSet, cut_patch

_LEAST_VOXELS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """A scan with its nodules, as patches are cut from it.

    Parameters
    ----------
    hu : numpy.ndarray of float32, shape (slices, rows, columns)
        Hounsfield units.
    instances : numpy.ndarray of int, same shape
        n in the n-th nodule, counted from 1.
    attenuation : tuple of str
        Of each nodule, in the order of their numbers: one of `ai.synthesise.patches.ATTENUATIONS`.
    spacing_mm : (float, float, float)
        Distances between voxel centres along the three axes.
    """

    hu: NDArray[np.float32]
    instances: NDArray[np.integer]
    attenuation: tuple[str, ...]
    spacing_mm: tuple[float, float, float]


def patches_of(scans: Iterable[Annotated], source: str, size: int, spacing_mm: float) -> PatchSet:
    """Cut one patch around each nodule of each scan.

    Parameters
    ----------
    scans : iterable of Annotated
        Taken one at a time; none is kept.
    source : str
        ``real`` or ``phantom``; kept with each patch.
    size : int
        Voxels along each edge.
    spacing_mm : float
        Distance between voxel centres.

    Returns
    -------
    PatchSet
        Without nodules that leave less than a tenth of the patch's edge around them, and without those that all but
        vanish on the patch's grid.

    Raises
    ------
    ValueError
        If no scan holds such a nodule, or an attenuation is unknown.
    """
    cubes, masks, kinds = [], [], []
    for scan in scans:
        for number, name in enumerate(scan.attenuation, start=1):
            mask = scan.instances == number
            if not mask.any() or _too_long(mask, scan.spacing_mm, size * spacing_mm):
                continue
            cube, inside = cut_patch(scan.hu, mask, scan.spacing_mm, size, spacing_mm)
            if inside.sum() >= _LEAST_VOXELS:
                cubes.append(cube)
                masks.append(inside)
                kinds.append(_kind(name))
    if not cubes:
        raise ValueError("There is no nodule that fits into a patch of that size.")
    return PatchSet(
        np.stack(cubes), np.stack(masks), np.array(kinds, dtype=np.uint8), (source,) * len(cubes), spacing_mm
    )


def phantom_scans(
    seeds: Iterable[int], spacing_mm: float, *, device: str = "cpu", say: Callable[[str], None] = print
) -> Iterator[Annotated]:
    """Draw one phantom for each seed; those without nodules come as well."""
    from ai.phantom.chest import make_phantom

    for count, seed in enumerate(seeds, start=1):
        phantom = make_phantom(seed, (spacing_mm,) * 3, device=device)
        if count % 10 == 0:
            say(f"{count} phantoms drawn")
        yield Annotated(
            phantom.hu.cpu().numpy(),
            phantom.instances.cpu().numpy(),
            tuple(nodule.attenuation for nodule in phantom.nodules),
            (spacing_mm,) * 3,
        )


def _too_long(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float], edge_mm: float) -> bool:
    extent = [
        np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))).size * spacing_mm[axis]
        for axis in range(3)
    ]
    return bool(max(extent) > 0.8 * edge_mm)


def _kind(name: str) -> int:
    try:
        return ATTENUATIONS.index(name)
    except ValueError:
        raise ValueError(f"The attenuation {name!r} is not one of {', '.join(ATTENUATIONS)}.") from None
