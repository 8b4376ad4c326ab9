"""The shape of one chest: cage, diaphragm, mediastinum, lungs and fissures as functions of millimetres.

Origin: x in the middle, y in the middle of the cage, z at the carina. LPS: x to the left, y backwards, z upwards.
Proportions are those of adult chest CT at full inspiration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ai.phantom.fields import Grid, Points, SmoothField, capsule, ellipsoid, smooth_minimum

LEFT, RIGHT = 1, 2
LOBES = {
    1: "left upper lobe",
    2: "left lower lobe",
    3: "right upper lobe",
    4: "right middle lobe",
    5: "right lower lobe",
}
SIDES = {LEFT: 1.0, RIGHT: -1.0}  # sign of x


@dataclass(frozen=True, slots=True, eq=False)
class Chest:
    """Sizes in mm and random surfaces of one chest."""

    half_width: float
    half_depth: float
    apex: float
    dome: tuple[float, float]  # height of the diaphragm's domes, left and right
    drop: tuple[float, float]  # depth of the costophrenic recess below them
    midline: float
    heart: tuple[Points, Points, Points]  # centre, radii, axes
    slope: tuple[float, float]  # of the oblique fissures: rise per mm backwards
    oblique: tuple[float, float]  # their height at y = 0
    horizontal: tuple[float, float, float]  # height of the horizontal fissure, its slopes in x and y
    layers: tuple[float, float]  # muscle and fat of the chest wall
    shoulders: float
    female: bool
    relief: SmoothField  # of the pleura
    folds: SmoothField  # of the fissures
    wall: SmoothField  # of the chest wall's layers
    junction: tuple[float, float, float]  # where the lungs come closest in front, half their distance there, and more

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Chest:
        """Draw one chest."""
        size = float(np.clip(rng.normal(1.0, 0.07), 0.85, 1.15))
        half_width, half_depth = size * rng.uniform(108, 136), size * rng.uniform(84, 106)
        right = -rng.uniform(72, 112) * size
        left = right - rng.uniform(0, 18)
        low, high = np.array([-210.0, -160, -240]), np.array([210.0, 170, 190])
        return cls(
            half_width=half_width,
            half_depth=half_depth,
            apex=size * rng.uniform(92, 118),
            dome=(left, right),
            drop=(rng.uniform(35, 65), rng.uniform(35, 65)),
            midline=rng.uniform(0, 6),
            heart=_heart(rng, size, half_depth, right),
            slope=(rng.uniform(0.85, 1.35), rng.uniform(0.8, 1.3)),
            oblique=(rng.uniform(-38, -8), rng.uniform(-48, -18)),
            horizontal=(rng.uniform(-24, 6), rng.uniform(-0.05, 0.25), rng.uniform(-0.1, 0.25)),
            layers=(rng.uniform(6, 16), rng.gamma(2.5, 6) + 4),
            shoulders=rng.uniform(0.15, 0.5),
            female=bool(rng.random() < 0.5),
            relief=SmoothField.draw(rng, low, high, 22.0),
            folds=SmoothField.draw(rng, low, high, 26.0),
            wall=SmoothField.draw(rng, low, high, 30.0),
            junction=(rng.uniform(-15, 45), rng.uniform(1.8, 4.0), rng.uniform(3, 9)),
        )

    @property
    def spine_y(self) -> float:
        """Middle of the vertebral bodies."""
        return self.half_depth * 0.66

    @property
    def carina(self) -> Points:
        """Where the trachea divides."""
        return np.array([-3.0, self.spine_y - 43, 0.0])

    def hilum(self, side: int) -> Points:
        """Where a lung's bronchus and vessels enter it."""
        sign = SIDES[side]
        return np.array([self.midline + sign * (43 if side == LEFT else 41), self.spine_y - 34, -14.0 - 4 * sign])

    def extent_mm(self) -> tuple[Points, Points]:
        """Two LPS points around what a chest CT shows of it."""
        margin = sum(self.layers)
        low = np.array([-self.half_width - margin - 22, -self.half_depth - margin - 22, self.lowest - 12])
        high = np.array([self.half_width + margin + 22, self.half_depth + margin + 42, self.apex + 22])
        return low, high

    @property
    def lowest(self) -> float:
        """Where the lungs end below."""
        return min(dome - drop for dome, drop in zip(self.dome, self.drop, strict=True)) - 22

    def cage_depth(self, grid: Grid) -> torch.Tensor:
        """Depth below the parietal pleura of the chest wall, in mm; negative in the wall."""
        x, y, z = grid.open()
        up = torch.clamp((z + 40) / (self.apex + 40), 0, 1.3)
        down = torch.clamp((-60 - z) / 120, 0, 1)
        width = self.half_width * (1 - 0.42 * up**2.2 + 0.03 * down)
        depth = self.half_depth * (1 - 0.36 * up**2.4 + 0.02 * down)
        middle = 12 * up**2
        flat = torch.clamp(-(y - middle), min=0) * 0.04  # flatter in front than behind
        rho = ((x / width).abs() ** 2.15 + ((y - middle).abs() / (depth - flat)) ** 2.15) ** (1 / 2.15)
        return (1 - rho) * (0.5 * (width + depth))

    def diaphragm_depth(self, grid: Grid, side: int) -> torch.Tensor:
        """Height in mm above one half of the diaphragm, measured across it."""
        x, y, z = grid.open()
        sign, dome, drop = SIDES[side], self.dome[side - 1], self.drop[side - 1]
        rho = ((x - sign * self.half_width * 0.47) / (self.half_width * 0.52)) ** 2 + (
            (y + 8) / (self.half_depth * 0.95)
        ) ** 2
        low = torch.clamp(rho, max=1.35)
        return (z - (dome - drop * low**1.4)) * 0.8

    def mediastinum(self, grid: Grid) -> torch.Tensor:
        """Distance in mm from the mediastinum and the spine, negative inside."""
        x, _, z = grid.open()
        height, least, more = self.junction
        half = least + more * (1 - torch.exp(-(((z - height) / 40) ** 2)))
        distance = ((x - self.midline - 0.02 * z).abs() - half).expand(grid.shape).clone()
        for start, end, radius in self.great_tubes().values():
            self._add(grid, distance, start, end, radius, 13.0)
        centre, radii, axes = self.heart
        distance = smooth_minimum(distance, -ellipsoid(grid, centre, radii, axes), 9.0)
        middle = np.array([4.0, -12.0, min(self.dome) - 32])
        distance = smooth_minimum(distance, -ellipsoid(grid, middle, np.array([62.0, 62.0, 45.0])), 9.0)
        return smooth_minimum(distance, self.spine(grid) - 2.5, 6.0)

    def spine(self, grid: Grid) -> torch.Tensor:
        """Distance in mm from vertebral bodies, arches and what lies behind them, negative inside."""
        x, y, _ = grid.open()
        body = torch.sqrt((x / 18) ** 2 + ((y - self.spine_y) / 16) ** 2) * 17 - 17
        behind = torch.maximum(x.abs() - 15 - 0.25 * torch.clamp(y - self.spine_y, min=0), self.spine_y + 6 - y)
        return torch.minimum(body, behind)

    def great_tubes(self) -> dict[str, tuple[Points, Points, float]]:
        """Vessels, airways and fat of the mediastinum: two ends and a radius with what lies around."""
        y, m = self.spine_y, self.midline
        front = -self.half_depth
        left, right = self.hilum(LEFT), self.hilum(RIGHT)
        arch = [
            np.array([-16 + m, y - 72, -25.0]),
            np.array([-14 + m, y - 68, 15.0]),
            np.array([4 + m, y - 52, 32.0]),
            np.array([20 + m, y - 28, 20.0]),
            np.array([22 + m, y - 17, -10.0]),
            np.array([14 + m, y - 19, self.lowest]),
        ]
        names = ("ascending aorta", "aortic arch", "arch behind", "descending arch", "descending aorta")
        tubes = {name: (a, b, 14.0) for name, a, b in zip(names, arch[:-1], arch[1:], strict=True)}
        trunk, fork = np.array([18 + m, y - 80, -38.0]), np.array([10 + m, y - 52, -12.0])
        return tubes | {
            "pulmonary trunk": (trunk, fork, 13.0),
            "right pulmonary artery": (fork, right + np.array([6.0, -6, 0]), 10.5),
            "left pulmonary artery": (fork, left + np.array([-4.0, -3, 4]), 11.0),
            "left atrium": (np.array([-24 + m, y - 40, -42.0]), np.array([26 + m, y - 40, -40.0]), 17.0),
            "superior vena cava": (np.array([-27 + m, y - 62, -40.0]), np.array([-24 + m, y - 62, 70.0]), 9.0),
            "oesophagus": (np.array([4 + m, y - 27, self.lowest]), np.array([2 + m, y - 25, 200.0]), 8.0),
            "trachea": (self.carina, np.array([m - 1, y - 50, 200.0]), 11.0),
            "right main bronchus": (self.carina, right, 10.0),
            "left main bronchus": (self.carina, left, 9.0),
            "right intermediate bronchus": (right, right + np.array([-3.0, -2, -24]), 9.5),
            "left hilum": (left, left + np.array([3.0, 3, -16]), 8.5),
            "right upper hilum": (right, right + np.array([-3.0, -3, 10]), 7.5),
            "left upper hilum": (left, left + np.array([2.0, -6, 6]), 8.0),
            "right veins": (np.array([-22 + m, y - 44, -38.0]), right + np.array([-1.0, -16, -22]), 8.0),
            "left veins": (np.array([26 + m, y - 44, -36.0]), left + np.array([1.0, -14, -16]), 8.0),
            "upper left vessels": (np.array([14 + m, y - 45, 28.0]), np.array([22 + m, y - 42, 190.0]), 12.0),
            "upper right vessels": (np.array([-12 + m, y - 58, 35.0]), np.array([-24 + m, y - 44, 190.0]), 12.0),
            "anterior fat": (np.array([2 + m, front + 14, -60.0]), np.array([m, front + 26, 60.0]), 9.0),
            "azygos": (np.array([-8 + m, y - 20, self.lowest]), np.array([-9 + m, y - 22, 18.0]), 5.0),
        }

    @staticmethod
    def _add(grid: Grid, distance: torch.Tensor, start: Points, end: Points, radius: float, width: float) -> None:
        reach = radius + 24
        box = grid.box(np.minimum(start, end) - reach, np.maximum(start, end) + reach)
        if box is not None:
            distance[box] = smooth_minimum(distance[box], capsule(grid.part(box), start, end, radius), width)

    def lungs(self, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the lungs are.

        Parameters
        ----------
        grid : Grid
            Where to look.

        Returns
        -------
        depth_mm : torch.Tensor of float32, shape (slices, rows, columns)
            About the depth below the visceral pleura, negative outside the lungs.
        left : torch.Tensor of bool, shape (slices, rows, columns)
            On the left of the midline.
        """
        x, y, z = grid.open()
        left = (x - self.midline - 0.02 * z) > 0
        below = torch.where(left, self.diaphragm_depth(grid, LEFT), self.diaphragm_depth(grid, RIGHT))
        middle = self.apex - 72
        over = torch.clamp((z - middle) / 72, 0, 2)
        wide, deep = 0.36 * self.half_width + 6, 0.62 * self.half_depth
        shift = torch.where(left, 1.0, -1.0) * (self.half_width * 0.36 + 3)
        rho = torch.sqrt((((x - shift) / wide) ** 2 + ((y - 14) / deep) ** 2) * torch.clamp(over * 1.6, 0, 1) + over**2)
        cap = (1 - rho) * 58
        around = smooth_minimum(self.cage_depth(grid), cap, 8.0)
        depth = torch.minimum(torch.minimum(around, below), self.mediastinum(grid))
        return depth + 0.9 * self.relief.on(grid), left

    def fissures(self, grid: Grid, left: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Height in mm above the oblique and above the horizontal fissure, measured across them.

        The left lung has no horizontal fissure; its values there mean nothing.
        """
        x, y, z = grid.open()
        folds = 4.5 * self.folds.on(grid)
        sign = torch.where(left, 1.0, -1.0)
        lateral = (sign * x - 60) / 60
        slope = torch.where(left, self.slope[0], self.slope[1])
        height = torch.where(left, self.oblique[0], self.oblique[1])
        over = (z - height - slope * y + 9 * lateral**2 - 5 * lateral - 0.0012 * y * y + folds) / torch.sqrt(
            1 + slope**2
        )
        at, in_x, in_y = self.horizontal
        flat = z - at + in_x * (-x - 60) - in_y * y * 0.5 + 0.0012 * (y + 20) ** 2 + folds
        return over, flat

    def lobes(self, grid: Grid, depth: torch.Tensor, left: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Lobe of every voxel (uint8, see `LOBES`, 0 outside), and its distance from the nearest fissure in mm."""
        over, flat = self.fissures(grid, left)
        right_lobe = torch.where(over < 0, 5, torch.where(flat < 0, 4, 3))
        lobe = torch.where(left, torch.where(over < 0, 2, 1), right_lobe)
        lobe = torch.where(depth > 0, lobe, 0).to(torch.uint8)
        crossing = torch.where(~left & (over > 0), torch.minimum(over.abs(), flat.abs()), over.abs())
        return lobe, crossing


def _heart(rng: np.random.Generator, size: float, half_depth: float, dome: float) -> tuple[Points, Points, Points]:
    centre = np.array([rng.uniform(14, 26), -half_depth * rng.uniform(0.28, 0.4), max(dome + 12, -78.0)])
    radii = size * np.array([rng.uniform(58, 72), rng.uniform(42, 52), rng.uniform(44, 54)])
    long = np.array([0.78, -0.35, -0.5])
    long /= np.linalg.norm(long)
    across = np.cross(long, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across)
    return centre, radii, np.stack([long, across, np.cross(long, across)])
