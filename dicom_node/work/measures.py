"""Measurements by the names that cards use, with their codes and units. Each is defined in docs/measurements.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ai.measure.attenuation import LungDensity, lung_density, solid_part
from ai.measure.diameter import Diameters, axial_diameters
from ai.measure.opacity import opacified_percent
from ai.measure.region import Box, shifted
from dicom_node.domain import codes
from dicom_node.domain.finding import Code, Measurement
from dicom_node.domain.model import Measure
from dicom_node.domain.nodule import mean_in_tenths, tenths
from dicom_node.errors import GeometryError
from dicom_node.volume import Volume


@dataclass(frozen=True, eq=False)
class Marked:
    """One thing that was marked, with the voxels around it and no more.

    Attributes
    ----------
    values : numpy.ndarray of float32, shape (a, b, c)
        A crop of the volume.
    mask : numpy.ndarray of bool, shape (a, b, c)
        True where it is.
    affine : numpy.ndarray of float64, shape (4, 4)
        Index of the crop to LPS, mm.
    is_ct : bool
        Only a CT has Hounsfield units.
    nodules : numpy.ndarray of bool, shape (a, b, c), optional
        Where nodules are: no part of the lung that they lie in.
    is_part_solid : bool
        Whether its solid part is to be measured apart.
    surface_mm : float, optional
        Distance to the surface of the lung that it lies in.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    is_ct: bool
    nodules: NDArray[np.bool_] | None = None
    is_part_solid: bool = False
    surface_mm: float | None = None

    @cached_property
    def voxels(self) -> int:
        """How many voxels are marked."""
        return int(np.count_nonzero(self.mask))

    @property
    def volume_ml(self) -> float:
        """Zero for an empty mask: an absent organ is a finding, not an error."""
        return self.voxels * voxel_volume_ml(self.affine)

    @cached_property
    def diameters(self) -> Diameters | None:
        """On the axial plane; None where the volume has none."""
        return axial_diameters(self.mask, self.affine)

    @cached_property
    def solid(self) -> Diameters | None:
        """Diameters of the solid part; None where nothing is solid."""
        return axial_diameters(solid_part(self.values, self.mask), self.affine)

    @cached_property
    def density(self) -> LungDensity | None:
        """Density without nodules; None without Hounsfield units."""
        lung = self.mask if self.nodules is None else self.mask & ~self.nodules
        return lung_density(self.values[lung]) if self.is_ct else None

    @cached_property
    def opacified_percent(self) -> float | None:
        """Opacified share; None without Hounsfield units."""
        return opacified_percent(self.values, self.mask, self.affine, self.nodules) if self.is_ct else None


def marked(volume: Volume, mask: NDArray[np.bool_], box: Box, instances: NDArray[np.uint8] | None = None) -> Marked:
    """Cut out of a volume what is marked in it.

    Parameters
    ----------
    volume : dicom_node.volume.Volume
    mask : numpy.ndarray of bool, shape (a, b, c)
        What is marked in `box`.
    box : three slices
        Where in `volume` it is.
    instances : numpy.ndarray of uint8, shape (slices, rows, columns), optional
        On the grid of `volume`; above 0 where nodules are.
    """
    return Marked(
        values=volume.array[box],
        mask=mask,
        affine=shifted(volume.affine, box),
        is_ct=volume.datasets[0].get("Modality") == "CT",
        nodules=None if instances is None else np.asarray(instances[box] > 0, np.bool_),
    )


def voxel_volume_ml(affine: NDArray[np.float64]) -> float:
    """Volume of one voxel, in millilitres.

    Parameters
    ----------
    affine : numpy.ndarray of float64, shape (4, 4)
        Maps (slice, row, column, 1) to patient coordinates in mm. The distance between slices in it is measured from
        Image Position (Patient), not read from Slice Thickness: the two differ whenever slices overlap.

    Raises
    ------
    GeometryError
        If it is zero or not finite.
    """
    volume_mm3 = float(abs(np.linalg.det(affine[:3, :3])))
    if not np.isfinite(volume_mm3) or volume_mm3 <= 0:
        raise GeometryError("the voxels of the series have no volume: two of its axes are parallel")
    return volume_mm3 / 1000


def _number(
    name: Code, value: float | None, unit: Code, digits: int = 1, derivation: Code | None = None
) -> Measurement:
    """Make a measurement; one that has no value says that it was not attempted."""
    rounded = None if value is None else round(value, digits)
    return Measurement(name, rounded, unit, derivation, None if value is not None else codes.NOT_ATTEMPTED)


def _attenuation(derivation: Code, of: Callable[[NDArray[np.float32]], np.floating]) -> Callable[[Marked], Measurement]:
    """Only a CT has Hounsfield units, and only a structure that is there has a mean."""

    def measure(it: Marked) -> Measurement:
        value = float(of(it.values[it.mask])) if it.is_ct and it.voxels else None
        return _number(codes.ATTENUATION, value, codes.HOUNSFIELD_UNIT, derivation=derivation)

    return measure


def _volume(it: Marked) -> Measurement:
    return _number(codes.VOLUME, 1000 * it.volume_ml, codes.CUBIC_MILLIMETER)


def _long_axis(it: Marked) -> Measurement:
    return _number(codes.LONG_AXIS, float(tenths(it.diameters.long_mm)) if it.diameters else None, codes.MILLIMETER)


def _short_axis(it: Marked) -> Measurement:
    return _number(codes.SHORT_AXIS, float(tenths(it.diameters.short_mm)) if it.diameters else None, codes.MILLIMETER)


def _mean_diameter(it: Marked) -> Measurement:
    found = it.diameters
    value = float(mean_in_tenths(found.long_mm, found.short_mm).mm) if found else None
    return _number(codes.DIAMETER, value, codes.MILLIMETER, derivation=codes.MEAN)


def _solid_diameter(it: Marked) -> Measurement | None:
    """Only of a part-solid nodule: a solid one is all solid, one of ground glass not at all."""
    if not it.is_part_solid or it.diameters is None:
        return None
    found = it.solid
    value = float(mean_in_tenths(found.long_mm, found.short_mm).mm) if found else 0.0
    return _number(codes.SOLID_DIAMETER, value, codes.MILLIMETER, derivation=codes.MEAN)


def _surface_distance(it: Marked) -> Measurement:
    return _number(codes.SURFACE_DISTANCE, it.surface_mm, codes.MILLIMETER)


def _emphysema_index(it: Marked) -> Measurement:
    return _number(codes.EMPHYSEMA_INDEX, it.density.emphysema_percent if it.density else None, codes.PERCENT)


def _percentile_15(it: Marked) -> Measurement:
    value = it.density.percentile_15_hu if it.density else None
    return _number(codes.ATTENUATION, value, codes.HOUNSFIELD_UNIT, derivation=codes.PERCENTILE_15)


def _opacification(it: Marked) -> Measurement:
    return _number(codes.OPACIFICATION, it.opacified_percent, codes.PERCENT)


MEASURES: dict[str, Callable[[Marked], Measurement | None]] = {
    Measure.VOLUME: _volume,
    Measure.MEAN_ATTENUATION: _attenuation(codes.MEAN, lambda values: values.mean(dtype=np.float64)),
    Measure.MIN_ATTENUATION: _attenuation(codes.MINIMUM, np.min),
    Measure.MAX_ATTENUATION: _attenuation(codes.MAXIMUM, np.max),
    Measure.LONG_AXIS: _long_axis,
    Measure.SHORT_AXIS: _short_axis,
    Measure.MEAN_DIAMETER: _mean_diameter,
    Measure.SOLID_DIAMETER: _solid_diameter,
    Measure.SURFACE_DISTANCE: _surface_distance,
    Measure.EMPHYSEMA_INDEX: _emphysema_index,
    Measure.DENSITY_PERCENTILE_15: _percentile_15,
    Measure.OPACIFICATION: _opacification,
}
