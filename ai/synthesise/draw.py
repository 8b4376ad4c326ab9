"""Draws nodule patches from a trained diffusion model, keeps those that hold a nodule, and says how they compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.synthesise.diffusion import LOW_HU, read_design, sample_diffusion
from ai.synthesise.patches import ATTENUATIONS, CLASSES, SIZE_EDGES_MM, PatchSet

_ROUNDS = 4
_SMALLEST_VOXELS = 4
_CONTRAST_HU = 60.0


def draw_patches(
    run: Path,
    count: int,
    *,
    device: str = "cpu",
    seed: int = 0,
    steps: int = 50,
    say: Callable[[str], None] = print,
) -> PatchSet:
    """Draw `count` patches, spread evenly over the classes that the model knows.

    Parameters
    ----------
    run : pathlib.Path
        What `ai.synthesise.diffusion.train_diffusion` wrote.
    count : int
        Patches wanted.
    device : str
        A torch device.
    seed : int
        The same seed draws the same patches on the same machine.
    steps : int
        DDIM steps.
    say : callable
        Told how many were drawn and refused.

    Returns
    -------
    PatchSet
        Fewer than `count` if the model still draws too many without a nodule after four rounds.
    """
    design = read_design(run)
    rng = np.random.default_rng(seed)
    kept: list[tuple[NDArray[np.float16], NDArray[np.uint8], int]] = []
    drawn = 0
    for number in range(_ROUNDS):
        missing = count - len(kept)
        if missing <= 0:
            break
        wanted = rng.permutation(np.resize(np.array(design.known), missing))
        hu, masks, _ = sample_diffusion(run, wanted, device=device, seed=seed * _ROUNDS + number, steps=steps)
        drawn += missing
        for cube, mask, which in zip(hu, masks, wanted, strict=True):
            nodule = _nodule(cube, mask)
            if nodule is not None:
                kept.append((cube, nodule, int(which) // (len(SIZE_EDGES_MM) + 1)))
        say(f"round {number + 1}: {len(kept)} of {count} patches hold a nodule")
    say(f"{drawn - len(kept)} of {drawn} drawn patches were refused: no nodule, or one that runs out of the patch")
    shape = (0, *(design.size,) * 3)
    return PatchSet(
        np.stack([cube for cube, _, _ in kept]) if kept else np.zeros(shape, dtype=np.float16),
        np.stack([mask for _, mask, _ in kept]) if kept else np.zeros(shape, dtype=np.uint8),
        np.array([attenuation for _, _, attenuation in kept], dtype=np.uint8),
        ("diffusion",) * len(kept),
        design.spacing_mm,
    )


def _nodule(cube: NDArray[np.float16], mask: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The largest connected part of a mask; None if it is no nodule: too small, cut off, or no denser than lung."""
    parts, found = ndimage.label(mask)
    if not found:
        return None
    sizes = np.bincount(parts.ravel())[1:]
    nodule = parts == int(sizes.argmax()) + 1
    inner = nodule[1:-1, 1:-1, 1:-1]
    around = ndimage.binary_dilation(nodule, iterations=3) & ~ndimage.binary_dilation(nodule)
    if nodule.sum() < _SMALLEST_VOXELS or inner.sum() != nodule.sum() or not around.any():
        return None
    contrast = float(np.median(cube[nodule].astype(np.float32)) - np.median(cube[around].astype(np.float32)))
    return nodule.astype(np.uint8) if contrast >= _CONTRAST_HU else None


def compare(drawn: PatchSet, training: PatchSet) -> list[Mapping[str, float | str]]:
    """How drawn patches resemble those that the model learnt from, class by class.

    Parameters
    ----------
    drawn, training : PatchSet
        On one grid.

    Returns
    -------
    list of mapping
        For each class in either: ``class``, the number of patches, mean Hounsfield units in and just around the nodule,
        mean diameter in mm, and ``nearest``: the median, over the drawn patches, of the distance (root of the mean
        squared difference, HU) to the most similar training patch; ``nearest_training`` is the same among training
        patches. A model that copies has ``nearest`` near zero.
    """
    rows: list[Mapping[str, float | str]] = []
    for number in range(CLASSES):
        ours, theirs = (part.only(np.flatnonzero(part.classes == number)) for part in (drawn, training))
        if len(ours) or len(theirs):
            attenuation, size = divmod(number, len(SIZE_EDGES_MM) + 1)
            row: dict[str, float | str] = {"class": f"{ATTENUATIONS[attenuation]} {_size_name(size)}"}
            for name, part in (("drawn", ours), ("training", theirs)):
                row |= {f"{name} {key}": value for key, value in _summary(part).items()}
            row["nearest"] = _nearest(ours, theirs, itself=False)
            row["nearest_training"] = _nearest(theirs, theirs, itself=True)
            rows.append(row)
    return rows


def _size_name(size: int) -> str:
    if size == 0:
        return f"< {SIZE_EDGES_MM[0]:g} mm"
    upper = f" to {SIZE_EDGES_MM[size]:g}" if size < len(SIZE_EDGES_MM) else " or more"
    return f"{SIZE_EDGES_MM[size - 1]:g}{upper} mm"


def _summary(part: PatchSet) -> dict[str, float]:
    if not len(part):
        return {"n": 0.0, "HU inside": float("nan"), "HU around": float("nan"), "mm": float("nan")}
    hu, masks = np.maximum(part.hu.astype(np.float32), LOW_HU), part.masks > 0
    around = np.stack([ndimage.binary_dilation(mask, iterations=3) & ~mask for mask in masks])
    return {
        "n": float(len(part)),
        "HU inside": float(hu[masks].mean()),
        "HU around": float(hu[around].mean()),
        "mm": float(part.diameters_mm.mean()),
    }


def _nearest(ours: PatchSet, theirs: PatchSet, *, itself: bool) -> float:
    """Median distance to the nearest of the others; compared with itself, a patch is not its own neighbour."""
    if not len(ours) or len(theirs) < 1 + itself:
        return float("nan")
    reference = np.maximum(theirs.hu.astype(np.float32), LOW_HU).reshape(len(theirs), -1)
    distances = []
    for number, cube in enumerate(np.maximum(ours.hu.astype(np.float32), LOW_HU)):
        squared = ((reference - cube.reshape(1, -1)) ** 2).mean(axis=1)
        if itself:
            squared[number] = np.inf
        distances.append(float(np.sqrt(squared.min())))
    return float(np.median(distances))
