"""Grids in patient space and what is drawn on them: smooth random fields, soft edges, thousands of tubes at once.

Shapes are functions of millimetres, so one body can be drawn on any grid; every random number is drawn by numpy on the
CPU, so that a GPU draws the same body.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]
Points = NDArray[np.float64]
_SLAB = 2_000_000  # voxels that are drawn at once on a processor: what its caches hold makes it more than twice as fast
_CHUNK = 3_000_000  # voxels that are worked on at once, so that memory stays bounded
_CACHED = 200_000  # of those, how many a processor works on at once, so that its caches hold them


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Voxel centres along the three axes of patient space.

    Parameters
    ----------
    z, y, x : torch.Tensor of float32, one-dimensional
        LPS millimetres of each slice, row and column, ascending: to superior, posterior and left.
    spacing_mm : (float, float, float)
        Distances between them, in the same order.
    """

    z: torch.Tensor
    y: torch.Tensor
    x: torch.Tensor
    spacing_mm: tuple[float, float, float]

    @classmethod
    def covering(
        cls, low_mm: Points, high_mm: Points, spacing_mm: tuple[float, float, float], device: torch.device | str
    ) -> Grid:
        """Cover the box between two LPS points (x, y, z)."""
        axes = []
        for axis, step in zip((2, 1, 0), spacing_mm, strict=True):
            count = max(2, int(np.ceil((high_mm[axis] - low_mm[axis]) / step)))
            start = (low_mm[axis] + high_mm[axis] - (count - 1) * step) / 2
            axes.append(torch.from_numpy((start + np.arange(count) * step).astype(np.float32)).to(device))
        return cls(axes[0], axes[1], axes[2], spacing_mm)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return len(self.z), len(self.y), len(self.x)

    @property
    def affine(self) -> NDArray[np.float64]:
        """(slice, row, column, 1) to LPS mm."""
        affine = np.zeros((4, 4))
        affine[[2, 1, 0], [0, 1, 2]] = self.spacing_mm
        affine[:3, 3] = float(self.x[0]), float(self.y[0]), float(self.z[0])
        affine[3, 3] = 1
        return affine

    @property
    def edge_mm(self) -> float:
        """Side of the cube that is as large as a voxel: how wide a sharp edge looks."""
        return float(np.prod(self.spacing_mm) ** (1 / 3))

    def open(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x, y and z of every voxel, shaped to be broadcast to (slices, rows, columns)."""
        return self.x[None, None, :], self.y[None, :, None], self.z[:, None, None]

    def points(self) -> torch.Tensor:
        """LPS x, y, z of every voxel, shape (slices, rows, columns, 3)."""
        return torch.stack([axis.expand(self.shape) for axis in self.open()], dim=-1)

    def box(self, low_mm: Points, high_mm: Points) -> Box | None:
        """The voxels between two LPS points, or None if there are none."""
        if 0 in self.shape:
            return None
        found = []
        for axis, values, step in zip((2, 1, 0), (self.z, self.y, self.x), self.spacing_mm, strict=True):
            first = int(np.floor((low_mm[axis] - float(values[0])) / step))
            last = int(np.ceil((high_mm[axis] - float(values[0])) / step)) + 1
            first, last = max(0, first), min(len(values), last)
            if first >= last:
                return None
            found.append(slice(first, last))
        return found[0], found[1], found[2]

    def slabs(self) -> Iterator[slice]:
        """Slices in runs that are small enough for a processor's caches; all at once on a GPU."""
        step = len(self.z) if self.x.is_cuda else max(1, _SLAB // (len(self.y) * len(self.x)))
        for first in range(0, len(self.z), step):
            yield slice(first, min(first + step, len(self.z)))

    def part(self, box: Box) -> Grid:
        """The grid of some of its voxels."""
        return Grid(self.z[box[0]], self.y[box[1]], self.x[box[2]], self.spacing_mm)


@dataclass(frozen=True, slots=True, eq=False)
class SmoothField:
    """A smooth random function of space: cubic B-splines over normal random numbers, standard deviation about one.

    Parameters
    ----------
    knots : numpy.ndarray of float32, shape (z, y, x)
        Random numbers.
    origin_mm : (float, float, float)
        z, y, x of the first.
    step_mm : float
        Distance between knots: the function varies over about twice that.
    """

    knots: NDArray[np.float32]
    origin_mm: tuple[float, float, float]
    step_mm: float

    @classmethod
    def draw(cls, rng: np.random.Generator, low_mm: Points, high_mm: Points, step_mm: float) -> SmoothField:
        """Draw one over the box between two LPS points."""
        counts = [int(np.ceil((high_mm[axis] - low_mm[axis]) / step_mm)) + 5 for axis in (2, 1, 0)]
        z, y, x = (float(low_mm[axis]) - 2 * step_mm for axis in (2, 1, 0))
        return cls(3 * rng.standard_normal(counts, dtype=np.float32), (z, y, x), step_mm)

    def on(self, grid: Grid) -> torch.Tensor:
        """Its values, float32, shape (slices, rows, columns)."""
        values = torch.from_numpy(self.knots).to(grid.x.device)
        along_z, along_y, along_x = (
            _weights(axis, origin, self.step_mm, count)
            for axis, origin, count in zip((grid.z, grid.y, grid.x), self.origin_mm, self.knots.shape, strict=True)
        )
        values = torch.tensordot(along_z, values, dims=([1], [0]))
        values = torch.matmul(along_y, values)
        return torch.matmul(values, along_x.T)


def _weights(axis: torch.Tensor, origin: float, step: float, count: int) -> torch.Tensor:
    """One row for each voxel, one column for each knot."""
    u = ((axis - origin) / step)[:, None] - torch.arange(count, device=axis.device, dtype=torch.float32)
    u = u.abs()
    near = 2 / 3 - u**2 + u**3 / 2
    far = torch.clamp(2 - u, min=0) ** 3 / 6
    return torch.where(u < 1, near, far)


def bounds(where: torch.Tensor) -> Box:
    """The smallest box around what is true; one without voxels if nothing is."""
    above = where.any(dim=0)
    found = [
        torch.nonzero(each).flatten() for each in (where.flatten(1).any(dim=1), above.any(dim=1), above.any(dim=0))
    ]
    z, y, x = (slice(int(each[0]), int(each[-1]) + 1) if len(each) else slice(0, 0) for each in found)
    return z, y, x


def soft(depth_mm: torch.Tensor, edge_mm: float) -> torch.Tensor:
    """Share of a voxel that lies inside, from how deep inside its centre is."""
    return (depth_mm / edge_mm).add_(0.5).clamp_(0, 1)


def paint(hu: torch.Tensor, share: torch.Tensor, value: torch.Tensor | float) -> None:
    """Mix a tissue into `hu`, in place."""
    hu += (value - hu).mul_(share)


def smooth_minimum(first: torch.Tensor, second: torch.Tensor, width_mm: float) -> torch.Tensor:
    """Smooth minimum: the union of two distances with the groove filled, or two depths with the corner rounded."""
    mix = (second - first).mul_(0.5).div_(width_mm).add_(0.5).clamp_(0, 1)
    groove = (width_mm * mix).mul_(1 - mix)
    return (first - second).mul_(mix).add_(second).sub_(groove)


def capsule(grid: Grid, start: Points, end: Points, radius_mm: float) -> torch.Tensor:
    """Distance in mm from a thick segment, negative inside."""
    x, y, z = grid.open()
    step = end - start
    px, py, pz = x - float(start[0]), y - float(start[1]), z - float(start[2])
    along = (px * float(step[0]) + py * float(step[1]) + pz * float(step[2])) / max(float(step @ step), 1e-6)
    along = torch.clamp(along, 0, 1)
    square = (
        (px - along * float(step[0])) ** 2 + (py - along * float(step[1])) ** 2 + (pz - along * float(step[2])) ** 2
    )
    return torch.sqrt(square) - radius_mm


def ellipsoid(grid: Grid, centre: Points, radii: Points, axes: Points | None = None) -> torch.Tensor:
    """About the depth in mm inside an ellipsoid, negative outside; `axes` holds its directions as rows."""
    offsets = [values - float(middle) for values, middle in zip(grid.open(), centre, strict=True)]
    if axes is not None:
        x, y, z = offsets
        offsets = [x * float(row[0]) + y * float(row[1]) + z * float(row[2]) for row in axes]
    x, y, z = (offset.div(float(radius)).square_() for offset, radius in zip(offsets, radii, strict=True))
    rho = (x + y + z).sqrt_()
    return rho.neg_().add_(1).mul_(float(np.mean(radii) if axes is None else np.min(radii)))


@dataclass(frozen=True, slots=True, eq=False)
class Tubes:
    """Tapering round segments.

    Parameters
    ----------
    start, end : numpy.ndarray of float64, shape (n, 3)
        LPS mm.
    start_radius_mm, end_radius_mm : numpy.ndarray of float64, shape (n,)
        Radii at both ends.
    """

    start: Points
    end: Points
    start_radius_mm: NDArray[np.float64]
    end_radius_mm: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def joined(cls, *parts: Tubes) -> Tubes:
        """All of them as one."""
        return cls(
            np.concatenate([part.start for part in parts]),
            np.concatenate([part.end for part in parts]),
            np.concatenate([part.start_radius_mm for part in parts]),
            np.concatenate([part.end_radius_mm for part in parts]),
        )

    @classmethod
    def along(cls, points: Points, radii: NDArray[np.float64]) -> Tubes:
        """A curve through points."""
        return cls(points[:-1], points[1:], radii[:-1], radii[1:])

    def scaled(self, factor: float, more_mm: float = 0.0) -> Tubes:
        """The same tubes, thicker or thinner."""
        return Tubes(
            self.start, self.end, self.start_radius_mm * factor + more_mm, self.end_radius_mm * factor + more_mm
        )

    def where(self, chosen: NDArray[np.bool_]) -> Tubes:
        """Some of them."""
        return Tubes(self.start[chosen], self.end[chosen], self.start_radius_mm[chosen], self.end_radius_mm[chosen])

    def on(self, grid: Grid, blur_mm: float = 0.0) -> torch.Tensor:
        """Share of each voxel that lies inside any of them, float32, shape (slices, rows, columns).

        A tube thinner than a voxel fills as much of it as its cross-section does.
        """
        shares = torch.zeros(grid.shape, device=grid.x.device)
        edge = float(np.hypot(grid.edge_mm, blur_mm))
        low, size = _bounds(self, grid, edge)
        inside = (size > 0).all(axis=1)
        order = np.flatnonzero(inside)[np.argsort(size[inside].prod(axis=1), kind="stable")]
        size, first = size[order], 0
        while first < len(order):
            last = _chunk_end(size, first)
            most = size[first:last].max(axis=0)
            step = last - first if grid.x.is_cuda else max(1, _CACHED // int(most.prod()))
            for part in range(first, last, step):
                _draw(shares, self, order[part : min(part + step, last)], low, most, grid, edge)
            first = last
        return shares


def _bounds(tubes: Tubes, grid: Grid, edge: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    reach = np.maximum(np.maximum(tubes.start_radius_mm, tubes.end_radius_mm), edge / 2)[:, None] + edge / 2
    low_mm, high_mm = np.minimum(tubes.start, tubes.end) - reach, np.maximum(tubes.start, tubes.end) + reach
    origin = grid.affine[[2, 1, 0], 3]
    low = np.ceil((low_mm[:, ::-1] - origin) / grid.spacing_mm).astype(np.int64)
    high = np.floor((high_mm[:, ::-1] - origin) / grid.spacing_mm).astype(np.int64)
    low, high = np.maximum(low, 0), np.minimum(high, np.array(grid.shape) - 1)
    return low, high - low + 1


def _chunk_end(size: NDArray[np.int64], first: int) -> int:
    most = _CHUNK // int(size[first].prod()) + 1
    largest = np.maximum.accumulate(size[first : first + most], axis=0).prod(axis=1)
    fits = np.flatnonzero((largest * np.arange(1, len(largest) + 1) <= _CHUNK) & (largest <= 2 * largest[0] + 64))
    return first + max(1, int(fits[-1]) + 1 if len(fits) else 1)


def _draw(
    shares: torch.Tensor,
    tubes: Tubes,
    chosen: NDArray[np.int64],
    low: NDArray[np.int64],
    most: NDArray[np.int64],
    grid: Grid,
    edge: float,
) -> None:
    device = shares.device

    def moved(values: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)

    first = torch.from_numpy(low[chosen]).to(device)
    index, offset = [], []  # beyond the last voxel stands that one again: its share is what it is
    start, step = moved(tubes.start[chosen]), moved(tubes.end[chosen] - tubes.start[chosen])
    for axis, (values, count) in enumerate(zip((grid.z, grid.y, grid.x), most, strict=True)):
        at = first[:, axis, None] + torch.arange(int(count), device=device)
        index.append(torch.clamp(at, max=len(values) - 1))
        offset.append(values[index[-1]] - start[:, 2 - axis, None])
    pz, py, px = offset[0][:, :, None, None], offset[1][:, None, :, None], offset[2][:, None, None, :]
    sx, sy, sz = (step[:, axis, None, None, None] for axis in range(3))
    length = torch.clamp((step**2).sum(dim=1), min=1e-6)[:, None, None, None]
    dot = px * sx + py * sy + pz * sz
    along = (dot / length).clamp_(0, 1)
    square = (px**2 + py**2 + pz**2).sub_(dot.mul_(2 * along)).add_(along.square().mul_(length))
    near, far = (moved(r[chosen])[:, None, None, None] for r in (tubes.start_radius_mm, tubes.end_radius_mm))
    radius = along.mul_(far - near).add_(near)
    drawn = torch.clamp(radius, min=edge / 2)
    share = soft(drawn - square.clamp_(min=0).sqrt_(), edge).mul_(radius.div_(drawn).square_())
    flat = (index[0][:, :, None, None] * len(grid.y) + index[1][:, None, :, None]) * len(grid.x) + index[2][
        :, None, None, :
    ]
    shares.view(-1).scatter_reduce_(0, flat.reshape(-1), share.reshape(-1), "amax")
