"""Paints what lies around the lungs: chest wall, bones, mediastinum, abdomen, the table."""

from __future__ import annotations

import numpy as np
import torch

from ai.phantom.anatomy import LEFT, RIGHT, SIDES, Chest
from ai.phantom.fields import Box, Grid, Points, SmoothField, Tubes, bounds, capsule, ellipsoid, paint, soft

AIR, FAT, MUSCLE = -1000.0, -100.0, 50.0
_NOWHERE: Box = (slice(0, 0), slice(0, 0), slice(0, 0))


def paint_body(grid: Grid, chest: Chest, rng: np.random.Generator, blood: float) -> torch.Tensor:
    """Paint everything but the lungs.

    Parameters
    ----------
    grid : Grid
        Where to paint.
    chest : Chest
        The shape of the body.
    rng : numpy.random.Generator
        Decides densities and what lies in the abdomen.
    blood : float
        Hounsfield units of blood in large vessels.

    Returns
    -------
    torch.Tensor of float32, shape (slices, rows, columns)
        Hounsfield units.
    """
    edge = grid.edge_mm
    cage = chest.cage_depth(grid)
    wall = -cage
    hu = _outside(grid, chest, rng)
    _chest_wall(grid, chest, rng, hu, wall)
    texture = SmoothField.draw(rng, *chest.extent_mm(), 9.0).on(grid) * rng.uniform(3, 9)
    fatty = SmoothField.draw(rng, *chest.extent_mm(), 14.0)
    box = bounds(cage > -edge)
    fat = FAT + 25 + 30 * torch.clamp(fatty.on(grid.part(box)), min=0) + texture[box]
    paint(hu[box], soft(cage[box], edge), fat)
    box = bounds((cage > -edge) & (grid.open()[2] < max(chest.dome) + edge))
    _abdomen(grid.part(box), chest, rng, hu[box], cage[box])
    _mediastinum(grid, chest, rng, hu, blood)
    _bones(grid, chest, rng, hu, wall)
    return hu + torch.where(hu > -300, texture, 0)


def _outside(grid: Grid, chest: Chest, rng: np.random.Generator) -> torch.Tensor:
    """Air, and the table below the back."""
    x, y, _ = grid.open()
    hu = torch.full(grid.shape, AIR, device=grid.x.device)
    top = chest.half_depth + sum(chest.layers) + 10 + rng.uniform(0, 8) - 0.0007 * x**2 * rng.uniform(0, 1.5)
    if rng.random() < 0.8:
        behind = slice(int((grid.y < float(top.min()) - grid.edge_mm).sum()), None)
        below, table = y[:, behind] - top, hu[:, behind]
        paint(table, soft(below, grid.edge_mm) * soft(40 - below, grid.edge_mm), rng.uniform(-980, -850))
        paint(table, soft(2 - (below - 3).abs(), grid.edge_mm), rng.uniform(-500, 0))
    return hu


def _chest_wall(grid: Grid, chest: Chest, rng: np.random.Generator, hu: torch.Tensor, wall: torch.Tensor) -> None:
    """Skin, fat, muscle and the muscles between the ribs, from outside inwards."""
    x, y, z = grid.open()
    edge = grid.edge_mm
    muscle, fat = chest.layers
    layers = chest.wall.on(grid)
    thick = 1 + 0.3 * layers
    up = torch.clamp((z - 30) / 90, 0, 1)
    shoulders = 60 * chest.shoulders * up * torch.clamp(x.abs() / chest.half_width - 0.35, 0, 1)
    back = torch.clamp(y / chest.half_depth - 0.3, 0, 1) * 10
    muscle_end = 11 + muscle * thick + shoulders + back + 10 * up * (x.abs() < chest.half_width * 0.8)
    skin = muscle_end + fat * thick.clamp(min=0.5) + shoulders * 0.4 + 3
    if chest.female:
        for sign in (-1.0, 1.0):
            centre = np.array([sign * chest.half_width * 0.5, -chest.half_depth - 14, rng.uniform(-50, -10)])
            size = rng.uniform(18, 42)
            radii = np.array([size * 1.6, size, size * 1.7])
            box = _around(grid, centre, radii)
            breast = ellipsoid(grid.part(box), centre, radii)
            skin[box] = torch.maximum(skin[box], torch.clamp(wall[box] + breast, max=200) * (breast > 0))
    paint(hu, soft(skin - wall, edge), MUSCLE - 10)
    paint(hu, soft(skin - 2 - wall, edge), FAT + rng.uniform(-8, 8))
    if chest.female:
        front = slice(0, int((grid.y < -chest.half_depth * 0.8).sum()))
        part = grid.part((slice(None), front, slice(None)))
        gland = torch.clamp(chest.folds.on(part) - 0.6, 0, 1) * (wall > muscle_end)[:, front]
        paint(hu[:, front], soft(skin[:, front] - 6 - wall[:, front], edge) * gland * rng.uniform(0, 1), 20.0)
    planes = soft(0.45 - (layers * 0.8 + torch.remainder(wall, 13) / 13 - 0.5).abs() * 3, 0.4)
    paint(hu, soft(muscle_end - wall, edge), MUSCLE)
    paint(hu, soft(muscle_end - wall - 2, edge) * soft(wall - 12, edge) * planes, FAT)
    paint(hu, soft(11 - wall, edge), 5.0)
    paint(hu, soft(8 - wall, edge), 35.0)
    paint(hu, soft(2.0 - wall, edge), -30.0)


def _around(grid: Grid, centre: Points, radii: Points) -> Box:
    """Where an ellipsoid is seen, however it is turned; a box without voxels if nowhere."""
    reach = radii.max() * (1 + grid.edge_mm / radii.min())
    return grid.box(centre - reach, centre + reach) or _NOWHERE


def _abdomen(grid: Grid, chest: Chest, rng: np.random.Generator, hu: torch.Tensor, cage: torch.Tensor) -> None:
    edge = grid.edge_mm
    x, _, _ = grid.open()
    below = torch.where(x > 0, -chest.diaphragm_depth(grid, LEFT), -chest.diaphragm_depth(grid, RIGHT))
    paint(hu, soft(torch.minimum(below, cage), edge), 45.0)
    inside = torch.minimum(below - 3, cage - 3)
    liver = torch.minimum(inside, 30 - x + 12 * chest.folds.on(grid))
    left = torch.minimum(inside, x - 26 + 12 * chest.folds.on(grid))
    paint(hu, soft(left, edge), -90.0)
    paint(hu, soft(liver, edge), rng.uniform(40, 70))
    low = chest.dome[0]
    spleen = np.array([chest.half_width * 0.62, chest.half_depth * 0.35, low - rng.uniform(25, 50)])
    paint(hu, soft(torch.minimum(ellipsoid(grid, spleen, np.array([28.0, 42, 40])), inside), edge), rng.uniform(45, 60))
    stomach = np.array([chest.half_width * 0.4, -chest.half_depth * 0.25, low - rng.uniform(25, 40)])
    bag = torch.minimum(ellipsoid(grid, stomach, rng.uniform(25, 45, 3)), inside)
    paint(hu, soft(bag, edge), rng.uniform(10, 45))
    _, y, _ = grid.open()
    level = float(stomach[1]) + rng.uniform(-25, 10)
    paint(hu, soft(torch.minimum(bag - 3.5, level - y), edge), -980.0)
    for _ in range(int(rng.integers(0, 4))):  # the colon's flexures
        at = np.array([rng.uniform(0.2, 0.8) * chest.half_width, rng.uniform(-60, 10), low - rng.uniform(25, 70)])
        gut = torch.minimum(ellipsoid(grid, at, rng.uniform(12, 26, 3)), inside)
        paint(hu, soft(gut, edge), 30.0)
        paint(hu, soft(gut - 2.5, edge), rng.uniform(-980, -300))


def _mediastinum(grid: Grid, chest: Chest, rng: np.random.Generator, hu: torch.Tensor, blood: float) -> None:
    edge = grid.edge_mm
    centre, radii, axes = chest.heart
    around = _around(grid, centre, radii)
    part, image = grid.part(around), hu[around]
    heart = ellipsoid(part, centre, radii, axes)
    muscle = 45.0 + 0.35 * max(0.0, blood - 45)
    paint(image, soft(heart - 1, edge), FAT)
    paint(image, soft(heart - rng.uniform(2.5, 6), edge), muscle)
    for shift, size in (((24, -8, -10), 0.42), ((-16, -14, 4), 0.45), ((-28, 8, 12), 0.36), ((6, 22, 22), 0.4)):
        chamber = ellipsoid(part, centre + np.array(shift, dtype=float), radii * size, axes)
        paint(image, soft(torch.minimum(chamber, heart - 8), edge), blood * rng.uniform(0.85, 1.0))
    margin = {"oesophagus": 1.5, "trachea": 2.0}
    for name, (start, end, radius) in chest.great_tubes().items():
        if name in ("anterior fat",):
            continue
        holds_gas = name == "oesophagus" and rng.random() < 0.5
        box = grid.box(np.minimum(start, end) - radius - 4, np.maximum(start, end) + radius + 4)
        if box is None:
            continue
        depth = -capsule(grid.part(box), start, end, radius - margin.get(name, 2.0))
        soft_tissue = "bronchus" in name or name in ("oesophagus", "trachea") or "upper" in name
        paint(hu[box], soft(depth - 6 if "upper" in name else depth, edge), 45.0 if soft_tissue else blood)
        if holds_gas:
            paint(hu[box], soft(depth - 4.5, edge), -800.0)
    for _ in range(int(rng.integers(3, 9))):  # lymph nodes
        node = chest.carina + rng.normal(0, 1, 3) * np.array([26, 16, 30])
        _blob(grid, hu, node, rng.uniform(2.5, 6, 3), rng.uniform(30, 55) if rng.random() < 0.85 else 350)


def _blob(grid: Grid, hu: torch.Tensor, centre: Points, radii: Points, value: float) -> None:
    box = grid.box(centre - radii.max() - 3, centre + radii.max() + 3)
    if box is not None:
        paint(hu[box], soft(ellipsoid(grid.part(box), centre, radii), grid.edge_mm), value)


def _bones(grid: Grid, chest: Chest, rng: np.random.Generator, hu: torch.Tensor, wall: torch.Tensor) -> None:
    marrow, cortex = rng.uniform(130, 260), rng.uniform(450, 900)
    ribs = [rib for side in (LEFT, RIGHT) for rib in _ribs(chest, rng, side)]
    for share, value in _shells(grid, Tubes.joined(*ribs), marrow, cortex):
        paint(hu, share, value)
    _spine(grid, chest, rng, hu, marrow, cortex)
    _sternum(grid, hu, wall, marrow, cortex)
    _shoulder_blades(grid, chest, hu, wall, cortex)


def _spine(grid: Grid, chest: Chest, rng: np.random.Generator, hu: torch.Tensor, marrow: float, cortex: float) -> None:
    """Vertebral bodies, discs, arches with their processes, and the canal."""
    edge, canal_y = grid.edge_mm, chest.spine_y + 23
    low = np.array([-30 - edge, chest.spine_y - 17 - edge, float(grid.z[0])])
    box = grid.box(low, np.array([30 + edge, canal_y + 36 + edge, float(grid.z[-1])])) or _NOWHERE
    hu, (x, y, z) = hu[box], grid.part(box).open()
    pitch = 24.0
    phase = (torch.remainder(z + rng.uniform(0, 24), pitch) - pitch / 2).abs()
    pinch = 2.0 * torch.clamp(1 - phase / 10, 0, 1)  # the bodies are waisted
    body = 17 - pinch - torch.sqrt((x / 1.06) ** 2 + ((y - chest.spine_y) / 0.94) ** 2)
    disc = soft(phase - (pitch / 2 - 2.2), edge)
    canal = 9 - torch.sqrt(x**2 + (y - canal_y) ** 2)
    arch = 13.5 - torch.sqrt(x**2 + (y - canal_y) ** 2)
    spike = torch.minimum(3.5 - x.abs(), torch.minimum(y - canal_y - 8, canal_y + 36 - y))
    wing = torch.minimum(4.5 - (y - canal_y - 4 - 0.25 * x.abs()).abs(), 30 - x.abs())
    level = soft(9 - phase, 2.0)
    for depth, present in ((arch, level), (spike, level), (wing, soft(6 - phase, 2.0)), (body, 1 - disc)):
        paint(hu, soft(depth, edge) * present, cortex)
        paint(hu, soft(depth - 1.6, edge) * present, marrow)
    paint(hu, soft(body, edge) * disc, 80.0)
    paint(hu, soft(canal, edge), 20.0)


def _sternum(grid: Grid, hu: torch.Tensor, wall: torch.Tensor, marrow: float, cortex: float) -> None:
    edge = grid.edge_mm
    box = grid.box(np.array([-17 - edge, float(grid.y[0]), -75 - edge]), np.array([17 + edge, 0.0, 70 + edge]))
    if box is None:
        return
    x, y, z = grid.part(box).open()
    plate = torch.minimum(6 - (wall[box] - 8).abs(), 17 - x.abs())
    plate = torch.minimum(plate, torch.minimum(z + 75, 70 - z))
    plate = torch.where(y < 0, plate, -10.0)
    paint(hu[box], soft(plate, edge), cortex * 0.8)
    paint(hu[box], soft(plate - 1.5, edge), marrow * 0.7)


def _shells(grid: Grid, tubes: Tubes, marrow: float, cortex: float) -> list[tuple[torch.Tensor, float]]:
    return [(tubes.on(grid), cortex), (tubes.scaled(1.0, -1.3).on(grid), marrow)]


def _ribs(chest: Chest, rng: np.random.Generator, side: int) -> list[Tubes]:
    """Ten ribs as curves on the cage, from the spine outwards, downwards and forwards."""
    drop, pitch = rng.uniform(65, 95), rng.uniform(22, 26)
    ribs = []
    for number in range(12):
        top = chest.apex + 22 - number * pitch + rng.normal(0, 1)
        angle = np.linspace(0.16, 2.75 if number < 8 else 2.1, 22)  # 0 behind, pi in front
        height = top - drop * (1 - np.cos(angle)) / 2 * min(1.0, 0.45 + 0.08 * number)
        points = np.stack([_on_cage(chest, side, a, z, 5.2) for a, z in zip(angle, height, strict=True)])
        radius = np.interp(angle, [0, 0.5, 2.2, 2.75], [4.2, 4.6, 4.3, 3.6])
        for shift in (-2.2, 2.2):  # taller than thick
            moved = points + np.array([0.0, 0.0, shift])
            ribs.append(Tubes.along(moved, radius))
    return ribs


def _on_cage(chest: Chest, side: int, angle: float, z: float, outside_mm: float) -> Points:
    """A point at some distance from the cage's inner surface (the inverse of `Chest.cage_depth`)."""
    up = float(np.clip((z + 40) / (chest.apex + 40), 0, 1.3))
    down = float(np.clip((-60 - z) / 120, 0, 1))
    width = chest.half_width * (1 - 0.42 * up**2.2 + 0.03 * down) + outside_mm
    depth = chest.half_depth * (1 - 0.36 * up**2.4 + 0.02 * down) + outside_mm
    sine, cosine = np.sin(angle), np.cos(angle)
    reach = (abs(sine / width) ** 2.15 + abs(cosine / depth) ** 2.15) ** (-1 / 2.15)
    return np.array([SIDES[side] * reach * sine, 12 * up**2 + reach * cosine, z])


def _shoulder_blades(grid: Grid, chest: Chest, hu: torch.Tensor, wall: torch.Tensor, cortex: float) -> None:
    edge = grid.edge_mm
    front, top = chest.half_depth * 0.05, 125.0
    low = np.array([float(grid.x[0]), front - edge, 5 - edge])
    box = grid.box(low, np.array([float(grid.x[-1]), float(grid.y[-1]), top + edge]))
    if box is None:
        return
    x, y, z = grid.part(box).open()
    out = 22 + 0.12 * torch.clamp(z, min=0)
    sheet = 2.6 - (wall[box] - out).abs()
    reach = torch.minimum(x.abs() - chest.half_width * 0.45, y - front)
    tall = torch.minimum(z - 5, top - z)
    paint(hu[box], soft(torch.minimum(sheet, torch.minimum(reach, tall)), edge), cortex * 0.7)
