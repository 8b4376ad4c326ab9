"""What the readers of LIDC-IDRI saw, as masks, volumes and classes.

Up to four radiologists outlined nodules of 3 mm and more, slice by slice, and gave each of them nine characteristics;
smaller nodules and non-nodules got a point. An outline lies on the pixels *just outside* the nodule, so that the
nodule is what is strictly within it; an outline whose ``inclusion`` is false cuts a hole. Armato et al., Med Phys
2011;38:915-31, and the collection's annotation guide (doi 10.7937/K9/TCIA.2015.LO9QL9SX).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.contract import Volume
from ai.data.lidc_xml import Mark, Outline, Reading
from ai.data.nodule import SMALLEST_MM, Nodule, centre_of, sphere_mm, voxel_ml

_Marked = tuple[Mark, NDArray[np.int64]]


def mask_of(mark: Mark, volume: Volume) -> NDArray[np.bool_]:
    """Voxels that one reader took for the nodule.

    Parameters
    ----------
    mark : Mark
        One that is outlined.
    volume : Volume
        The series that was read, axial.

    Returns
    -------
    numpy.ndarray of bool, shape (slices, rows, columns)

    Raises
    ------
    ValueError
        If an outline lies on no slice of the volume.
    """
    mask = np.zeros(volume.array.shape, dtype=np.bool_)
    mask.ravel()[_voxels(mark, volume)] = True
    return mask


def nodules_of(reading: Reading, volume: Volume, agreeing: int = 3) -> tuple[tuple[Nodule, ...], NDArray[np.uint8]]:
    """Bring the readers together.

    Marks of different readers that overlap are one nodule. It counts when at least `agreeing` readers outlined it
    (LUNA16: three of four); everything else that anybody marked is excluded, neither right nor wrong to find.

    Parameters
    ----------
    reading : Reading
        What was marked.
    volume : Volume
        The series that was read.
    agreeing : int
        Readers that have to have outlined a nodule.

    Returns
    -------
    nodules : tuple of Nodule
        Volume: the mean over those readers. Diameter: of the sphere of that volume. Attenuation: by the mean of
        ``texture``, below 2.5 ground-glass, from 3.5 on solid. Margin: spiculated from a mean of 3 on.
    instances : numpy.ndarray of uint8, shape (slices, rows, columns)
        Voxels that at least half of the readers who outlined the nodule marked.
    """
    instances = np.zeros(volume.array.shape, dtype=np.uint8)
    nodules = []
    for number, group in enumerate(_together(_outlined(reading, volume)), start=1):
        voxels, count = np.unique(np.concatenate([voxels for _, voxels in group]), return_counts=True)
        consensus = voxels[count * 2 >= len(group)]
        instances.ravel()[consensus] = number
        nodules.append(_nodule(group, consensus, volume, number, agreeing))
    points = [mark for mark in reading.marks if not mark.is_outlined]
    return (*nodules, *(_point(mark, volume) for mark in points)), instances


def volume_ml(mark: Mark, volume: Volume) -> float:
    """Volume that one reader outlined, in millilitres."""
    return len(_voxels(mark, volume)) * voxel_ml(volume)


def _outlined(reading: Reading, volume: Volume) -> list[_Marked]:
    marked = [(mark, _voxels(mark, volume)) for mark in reading.marks if mark.is_outlined]
    return [(mark, voxels) for mark, voxels in marked if len(voxels)]  # an outline of one pixel holds nothing


def _voxels(mark: Mark, volume: Volume) -> NDArray[np.int64]:
    """Flat indices: a scan may have a hundred outlined marks, and a mask for each would fill the memory."""
    planes: dict[int, NDArray[np.bool_]] = {}
    size = volume.array[0].size
    for outline in sorted(mark.outlines, key=lambda outline: not outline.inclusion):
        within = _strictly_within(outline.points, volume.array.shape[1:])
        index = _slice_of(outline, volume)
        plane = planes.setdefault(index, np.zeros(within.shape, dtype=np.bool_))
        planes[index] = plane | within if outline.inclusion else plane & ~within
    found = [np.flatnonzero(plane) + index * size for index, plane in sorted(planes.items())]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _nodule(
    group: Sequence[_Marked],
    consensus: NDArray[np.int64],
    volume: Volume,
    number: int,
    agreeing: int,
) -> Nodule:
    mean_ml = float(np.mean([len(voxels) for _, voxels in group])) * voxel_ml(volume)
    diameter_mm = sphere_mm(mean_ml)
    rated = {name: _mean([mark for mark, _ in group], name) for name in ("texture", "spiculation", "malignancy")}
    return Nodule(
        centre_mm=centre_of(consensus, volume),
        diameter_mm=diameter_mm,
        attenuation=_attenuation(rated["texture"]),
        margin=_margin(rated["spiculation"]),
        volume_ml=mean_ml,
        malignancy=None if np.isnan(rated["malignancy"]) else rated["malignancy"],
        excluded=len({mark.reader for mark, _ in group}) < agreeing or diameter_mm < SMALLEST_MM,
        instance=number,
    )


def _mean(marks: Sequence[Mark], characteristic: str) -> float:
    ratings = [mark.characteristics[characteristic] for mark in marks if characteristic in mark.characteristics]
    return float(np.mean(ratings)) if ratings else float("nan")


def _point(mark: Mark, volume: Volume) -> Nodule:
    """A small nodule or a non-nodule, of unknown size: taken for 3 mm, and excluded."""
    outline = mark.outlines[0]
    row, column = outline.points[0]
    x, y, z = (volume.affine @ np.array([_slice_of(outline, volume), row, column, 1.0]))[:3]
    return Nodule((float(x), float(y), float(z)), SMALLEST_MM, excluded=True)


def _attenuation(texture: float) -> str:
    if np.isnan(texture):
        return ""
    return "ground-glass" if texture < 2.5 else "part-solid" if texture < 3.5 else "solid"


def _margin(spiculation: float) -> str:
    return "" if np.isnan(spiculation) else "spiculated" if spiculation >= 3 else "smooth"


def _together(marked: Sequence[_Marked]) -> list[list[_Marked]]:
    """Groups of marks that overlap, directly or over others; the most agreed upon first."""
    groups: list[list[_Marked]] = []
    for mark, voxels in marked:
        joined, apart = [(mark, voxels)], []
        for group in groups:
            if any(len(np.intersect1d(voxels, other, True)) for _, other in group):
                joined += group
            else:
                apart.append(group)
        groups = [*apart, joined]
    return sorted(groups, key=lambda group: (len(group), sum(len(voxels) for _, voxels in group)), reverse=True)


def _strictly_within(points: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels enclosed by the outline, without the outline itself."""
    corners = np.array(points)
    low, size = corners.min(axis=0), np.ptp(corners, axis=0) + 1
    line = np.zeros(size, dtype=np.bool_)
    for here, there in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        steps = int(max(np.abs(there - here).max(), 1))
        rows, columns = np.rint(np.linspace(here - low, there - low, steps + 1)).astype(int).T
        line[rows, columns] = True
    within = np.zeros(shape, dtype=np.bool_)
    box = slice(low[0], low[0] + size[0]), slice(low[1], low[1] + size[1])
    within[box] = ndimage.binary_fill_holes(line) & ~line
    return within


def _slice_of(outline: Outline, volume: Volume) -> int:
    along = float(volume.affine[2, 0])
    if along == 0:
        raise ValueError("The volume is not axial: the reading belongs to another series.")
    exact = (outline.z_mm - float(volume.affine[2, 3])) / along
    if abs(exact - round(exact)) > 0.3 or not 0 <= round(exact) < len(volume.array):
        raise ValueError(f"There is no slice at z = {outline.z_mm:g} mm: the reading belongs to another series.")
    return round(exact)
