"""A thin parametric thorax: enough anatomy to vary what a few real scans cannot.

Body and fat, ribs, spine and breastbone, heart and great vessels, trachea and bronchi, two lungs with vessels, a
diaphragm, an abdomen with gas, a table. Gas outside the lungs is there on purpose: a model has to tell it from lung.
Coordinates are LPS millimetres around the middle of the chest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.contract import Volume

LEFT, RIGHT = 1, 2
_AIR, _FAT, _MUSCLE, _BLOOD, _BONE = -1000.0, -100.0, 45.0, 50.0, 420.0

_Field = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Thorax:
    """One phantom and its truth.

    Parameters
    ----------
    volume : Volume
        Hounsfield units, axial.
    labels : numpy.ndarray of uint8, shape (slices, rows, columns)
        1 in the left lung, 2 in the right, 0 elsewhere; airways outside the lungs and vessels at the hilum are 0.
    """

    volume: Volume
    labels: NDArray[np.uint8]


def make_thorax(seed: int, spacing_mm: float = 3.0) -> Thorax:
    """Draw one phantom.

    Parameters
    ----------
    seed : int
        The same seed draws the same body.
    spacing_mm : float
        Distance between voxel centres along all three axes.

    Returns
    -------
    Thorax
    """
    rng = np.random.default_rng(seed)
    half_mm = np.array([190.0, 150.0, 210.0])  # left, posterior, superior
    count = np.ceil(2 * half_mm / spacing_mm).astype(int)
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * spacing_mm for n in count]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    bend = [_smooth_noise(rng, x.shape, 50.0 / spacing_mm) * rng.uniform(4, 12) for _ in range(3)]
    field = _Frame(x + bend[0], y + bend[1], z + bend[2], rng)
    hu, labels = _draw(field)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing_mm
    affine[:3, 3] = [axes[0][0], axes[1][0], axes[2][0]]
    affine[3, 3] = 1
    return Thorax(Volume(ndimage.gaussian_filter(hu, 0.4).astype(np.float32), affine), labels)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Bent coordinates (LPS, mm) at every voxel, and the random numbers that shape this body."""

    x: _Field
    y: _Field
    z: _Field
    rng: np.random.Generator

    def ellipsoid(
        self, centre: tuple[float, float, float], radii: tuple[float, float, float], power: float = 2
    ) -> _Field:
        """Below 1 inside; `power` above 2 makes it boxier."""
        parts = zip((self.x, self.y, self.z), centre, radii, strict=True)
        return np.asarray(sum(np.abs((axis - c) / r) ** power for axis, c, r in parts))

    def tube(self, start: NDArray[np.float64], end: NDArray[np.float64]) -> _Field:
        """Distance in mm from the segment between two points."""
        step = end - start
        along = ((self.x - start[0]) * step[0] + (self.y - start[1]) * step[1] + (self.z - start[2]) * step[2]) / float(
            step @ step
        )
        along = np.clip(along, 0, 1)
        return np.asarray(
            np.sqrt(
                (self.x - start[0] - along * step[0]) ** 2
                + (self.y - start[1] - along * step[1]) ** 2
                + (self.z - start[2] - along * step[2]) ** 2
            )
        )


def _draw(frame: _Frame) -> tuple[_Field, NDArray[np.uint8]]:
    rng = frame.rng
    width, depth = rng.uniform(140, 180), rng.uniform(95, 125)
    hu = np.full(frame.x.shape, _AIR, dtype=np.float32)
    _draw_table(frame, hu, depth)
    widening = 1 + 0.25 * np.clip((frame.z - 90) / 80, 0, 1)  # the shoulders
    body = (np.abs(frame.x / (width * widening)) ** 2.4 + np.abs(frame.y / depth) ** 2.4).astype(np.float32)
    hu[body < 1] = _FAT + rng.uniform(-15, 15)
    fat_share = rng.uniform(0.78, 0.93)
    hu[body < fat_share] = _MUSCLE
    cage = (np.abs(frame.x / (width * 0.86)) ** 2.3 + np.abs(frame.y / (depth * 0.84)) ** 2.3).astype(np.float32)
    _draw_ribs(frame, hu, cage)
    labels = _lungs(frame, cage)
    hu[(cage < 0.9) & (labels == 0)] = rng.uniform(20, 60)  # mediastinum and abdomen
    _draw_abdomen(frame, hu, labels)
    _draw_bones(frame, hu, depth)
    _draw_lungs(frame, hu, labels)
    _draw_airway(frame, hu, labels)
    return hu, labels


def _draw_table(frame: _Frame, hu: _Field, depth: float) -> None:
    if frame.rng.random() < 0.7:
        below = frame.y - depth - frame.rng.uniform(4, 15) - 0.0008 * frame.x**2 * frame.rng.uniform(-1, 1)
        hu[(below > 0) & (below < frame.rng.uniform(4, 25)) & (np.abs(frame.x) < 180)] = frame.rng.uniform(-900, -200)


def _draw_ribs(frame: _Frame, hu: _Field, cage: _Field) -> None:
    pitch, slope = frame.rng.uniform(24, 32), frame.rng.uniform(0.2, 0.5)
    phase = np.mod(frame.z - slope * frame.y, pitch) / pitch
    hu[(cage > 0.94) & (cage < 1.08) & (phase < 0.4) & (np.abs(frame.z) < 170)] = _BONE * frame.rng.uniform(0.7, 1.3)


def _lungs(frame: _Frame, cage: _Field) -> NDArray[np.uint8]:
    rng = frame.rng
    labels = np.zeros(cage.shape, dtype=np.uint8)
    heart = frame.ellipsoid(
        (rng.uniform(15, 40), rng.uniform(-45, -20), rng.uniform(-70, -40)),
        (rng.uniform(48, 68), rng.uniform(38, 55), rng.uniform(50, 72)),
    )
    middle = np.abs(frame.x - 0.04 * frame.z) / (
        rng.uniform(14, 30) + rng.uniform(10, 25) * np.exp(-((frame.y - 10) ** 2) / 2200)
    )
    spine = ((frame.x / 30) ** 2 + ((frame.y - 78) / 42) ** 2).astype(np.float32)
    for value, side in ((LEFT, 1.0), (RIGHT, -1.0)):
        top, base = rng.uniform(105, 155), rng.uniform(-120, -60)
        taper = 1 - 0.55 * np.clip((frame.z - (top - 90)) / 90, 0, 1) ** 2  # towards the apex
        shell = cage / taper**2
        dome_height = rng.uniform(25, 60)
        dome = base + dome_height * np.exp(-((frame.x - side * 75) ** 2 / 5500 + (frame.y + 5) ** 2 / 4500))
        inside = (shell < 0.88) & (frame.z < top) & (frame.z > dome) & (middle > 1) & (heart > 1) & (spine > 1)
        labels[inside & (side * frame.x > 0)] = value
        if rng.random() < 0.25:  # collapse, effusion or a large mass: soft tissue where lung was
            labels[(labels == value) & _loss(frame, side, top, base)] = 0
    for value in (LEFT, RIGHT):
        marks, found = ndimage.label(labels == value)
        if found > 1:
            labels[(labels == value) & (marks != np.argmax(np.bincount(marks.ravel())[1:]) + 1)] = 0
    return labels


def _loss(frame: _Frame, side: float, top: float, base: float) -> NDArray[np.bool_]:
    rng = frame.rng
    kind = rng.integers(3)
    if kind == 0:  # fluid behind and below
        return np.asarray(frame.z - 0.9 * frame.y < base + rng.uniform(-40, 40))
    if kind == 1:  # an upper lobe
        return np.asarray(frame.z + 0.5 * frame.y * rng.uniform(-1, 1) > top - rng.uniform(30, 110))
    centre = (side * rng.uniform(50, 120), rng.uniform(-60, 60), rng.uniform(-40, 80))
    radius = rng.uniform(18, 45)
    return frame.ellipsoid(centre, (radius, radius, radius)) < 1


def _draw_abdomen(frame: _Frame, hu: _Field, labels: NDArray[np.uint8]) -> None:
    rng = frame.rng
    for _ in range(rng.integers(0, 7)):
        radii = rng.uniform(8, 38, size=3)
        centre = (rng.uniform(-110, 110), rng.uniform(-70, 40), rng.uniform(-205, -100))
        gas = frame.ellipsoid(centre, (radii[0], radii[1], radii[2])) + _smooth_noise(rng, hu.shape, 4) * 0.3
        hu[(gas < 1) & (labels == 0) & (hu > -60)] = rng.uniform(-1000, -500)


def _draw_bones(frame: _Frame, hu: _Field, depth: float) -> None:
    rng = frame.rng
    vertebra = ((frame.x / 19) ** 2 + ((frame.y - 70) / 17) ** 2).astype(np.float32)
    disc = np.mod(frame.z, 28) < 5
    hu[(vertebra < 1) & ~disc] = rng.uniform(180, 350)
    hu[(vertebra < 1.3) & (vertebra > 0.85) & ~disc] = _BONE
    hu[(np.abs(frame.x) < 16) & (np.abs(frame.y + depth * 0.8) < 6) & (frame.z > -70) & (frame.z < 90)] = 300
    aorta = ((frame.x - 22) / 13) ** 2 + ((frame.y - 42) / 13) ** 2
    hu[(aorta < 1) & (hu > 0)] = _BLOOD + rng.uniform(0, 200) * (rng.random() < 0.5)


def _draw_lungs(frame: _Frame, hu: _Field, labels: NDArray[np.uint8]) -> None:
    rng = frame.rng
    lung = labels > 0
    density = rng.uniform(-900, -720) + rng.uniform(0, 0.7) * frame.y + 25 * _smooth_noise(rng, hu.shape, 5)
    hu[lung] = density[lung]
    for side in (1.0, -1.0):
        hilum = np.array([side * rng.uniform(32, 45), rng.uniform(0, 20), rng.uniform(-5, 20)])
        for _ in range(rng.integers(10, 20)):
            target = np.array([side * rng.uniform(60, 125), rng.uniform(-75, 75), rng.uniform(-110, 110)])
            elbow = hilum + (target - hilum) * 0.5 + rng.normal(0, 10, 3)
            for start, end, radius in ((hilum, elbow, rng.uniform(3, 6)), (elbow, target, rng.uniform(1.2, 3))):
                distance = frame.tube(start, end)
                hu[lung & (distance < radius)] = _BLOOD + rng.uniform(-20, 100)
        root = frame.tube(hilum, hilum * np.array([0.3, 1, 1])) < rng.uniform(9, 15)
        hu[root & (hu < 0)] = _BLOOD
        labels[root] = 0
    for _ in range(rng.integers(0, 4)):  # nodules and consolidations too small to leave the outline
        centre = (rng.uniform(-120, 120), rng.uniform(-70, 80), rng.uniform(-90, 90))
        radii = rng.uniform(4, 13, size=3)
        hu[lung & (frame.ellipsoid(centre, (radii[0], radii[1], radii[2])) < 1)] = rng.uniform(-300, 60)


def _draw_airway(frame: _Frame, hu: _Field, labels: NDArray[np.uint8]) -> None:
    rng = frame.rng
    carina = np.array([rng.uniform(-8, 6), rng.uniform(5, 20), rng.uniform(10, 40)])
    pieces = [(carina, np.array([rng.uniform(-6, 6), carina[1] - 15, 240.0]), rng.uniform(6.5, 10))]
    for side in (1.0, -1.0):
        pieces.append(
            (carina, np.array([side * rng.uniform(35, 50), carina[1] + 8, carina[2] - 25]), rng.uniform(4, 7))
        )
    distances = [(frame.tube(start, end), radius) for start, end, radius in pieces]
    for distance, radius in distances:
        hu[distance < radius + 2.5] = np.where(hu[distance < radius + 2.5] > -1000, _MUSCLE, -1000)
        labels[distance < radius + 2.5] = 0
    for distance, radius in distances:
        hu[distance < radius] = -990


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> _Field:
    """Noise of standard deviation one that varies over about `size` voxels."""
    coarse = rng.standard_normal([max(2, int(np.ceil(n / size)) + 1) for n in shape]).astype(np.float32)
    zoomed = ndimage.zoom(coarse, [n / c for n, c in zip(shape, coarse.shape, strict=True)], order=1)
    return np.asarray(zoomed[tuple(slice(0, n) for n in shape)] * 1.3, dtype=np.float32)
