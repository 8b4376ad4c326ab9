"""Cuts training patches around and between nodules: turned, stretched and scanned anew at random, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ai.train.chest_scans import Scan

_LOW_HU, _HIGH_HU = -1000.0, 400.0
_AT_NODULE = 0.6
_SHARE = (1.0, 1.0, 2.0)  # of solid, part-solid and ground-glass nodules, however many there are of each
_SMALL = 5.0  # voxels across: smaller ones are looked at no more often


@dataclass(frozen=True, slots=True)
class Patches:
    """A batch and its truth; all of shape (batch, x, y, z), `image` with a channel.

    Attributes
    ----------
    image : torch.Tensor of float32, shape (batch, 1, x, y, z)
        0 to 1.
    heat : torch.Tensor of float32
        1 at the centre of a nodule, falling off with its size.
    inside : torch.Tensor of uint8
        Above zero in a nodule.
    attenuation : torch.Tensor of int64
        0 solid, 1 part-solid, 2 ground-glass; of meaning in nodules alone.
    spiculated : torch.Tensor of float32
        1 in a spiculated nodule.
    boxes : tuple of torch.Tensor of float32, shape (nodules, 6)
        For each patch the nodules whose centre lies in it: least and greatest x, y, z in voxels (xyzxyz).
    """

    image: torch.Tensor
    heat: torch.Tensor
    inside: torch.Tensor
    attenuation: torch.Tensor
    spiculated: torch.Tensor
    boxes: tuple[torch.Tensor, ...]


def cut_patches(scans: Sequence[Scan], rng: np.random.Generator, size: int) -> Patches:
    """Cut one patch out of each scan.

    Parameters
    ----------
    scans : sequence of Scan
        On one device.
    rng : numpy.random.Generator
        Decides everything but the noise, which comes from torch's own.
    size : int
        Voxels along each axis.
    """
    parts = [_cut(scan, rng, size) for scan in scans]
    *maps, boxes = zip(*parts, strict=True)
    image, heat, inside, attenuation, spiculated = (torch.stack(group) for group in maps)
    return Patches(image[:, None], heat, inside, attenuation, spiculated, boxes)


def _cut(scan: Scan, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, ...]:
    middle = _middle(scan, rng, size)
    turn = _turn(rng)
    half = int(np.ceil(size / 2 * np.abs(turn).sum(axis=1).max())) + 2
    low = np.round(middle).astype(int) - half
    block = [_block(volume, low, 2 * half + 1, empty) for volume, empty in ((scan.hu, -1000), (scan.instances, 0))]
    # grid_sample counts from -1 to 1 over the block and takes its axes in reverse
    offset = (middle - low) / half - 1
    theta = np.concatenate([(turn * size / (2 * half + 1))[::-1, ::-1], offset[::-1, None]], axis=1)
    device = scan.hu.device
    grid = functional.affine_grid(
        torch.from_numpy(theta.astype(np.float32))[None].to(device), [1, 1, size, size, size], align_corners=False
    )
    hu = functional.grid_sample(block[0].float()[None, None], grid, align_corners=False, padding_mode="border")[0, 0]
    near = functional.grid_sample(block[1].float()[None, None], grid, mode="nearest", align_corners=False)[0, 0]
    instances = near.long()
    attenuation = scan.attenuation[instances]
    spiculated = scan.spiculated[instances]
    heat, boxes = _heat(scan, middle, turn, size)
    image = (_scanner(hu, rng) - _LOW_HU) / (_HIGH_HU - _LOW_HU)
    return image.clamp(0, 1), heat, (instances > 0).to(torch.uint8), attenuation, spiculated, boxes


def _middle(scan: Scan, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    if len(scan.centres) and rng.random() < _AT_NODULE:
        chances = _chances(scan)
        chosen = scan.centres[rng.choice(len(chances), p=chances)]
        return np.asarray(chosen + rng.uniform(-0.4, 0.4, 3) * size, dtype=np.float64)
    return np.asarray(scan.places[rng.integers(len(scan.places))] + rng.uniform(-4, 4, 3), dtype=np.float64)


def _chances(scan: Scan) -> NDArray[np.float64]:
    """How likely each nodule is looked at: small ones more than large ones, and each kind by its share."""
    kinds = scan.attenuation[1:].cpu().numpy()
    each = 1 / np.maximum(scan.diameters, _SMALL)
    for kind in np.unique(kinds):
        each[kinds == kind] *= _SHARE[kind] / each[kinds == kind].sum()
    return np.asarray(each / each.sum())


def _turn(rng: np.random.Generator) -> NDArray[np.float64]:
    """Rotation of some degrees about every axis, mirrored at random, stretched: patch voxels to scan voxels."""
    turn = np.diag(rng.choice([-1.0, 1.0], 3) * rng.uniform(0.85, 1.18, 3))
    for axis, angle in enumerate(np.radians(rng.normal(0, 10, 3))):
        first, second = [n for n in range(3) if n != axis]
        rotation = np.eye(3)
        rotation[[first, second], [first, second]] = np.cos(angle)
        rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
        turn = rotation @ turn
    return np.asarray(turn)


def _block(volume: torch.Tensor, low: NDArray[np.int_], length: int, empty: int) -> torch.Tensor:
    inner = [slice(max(0, a), min(n, a + length)) for a, n in zip(low.tolist(), volume.shape, strict=True)]
    inner = [slice(s.start, max(s.start, s.stop)) for s in inner]
    part = volume[tuple(inner)]
    if tuple(part.shape) == (length,) * 3:
        return part
    whole = torch.full((length,) * 3, empty, dtype=volume.dtype, device=volume.device)
    whole[tuple(slice(s.start - a, s.stop - a) for s, a in zip(inner, low.tolist(), strict=True))] = part
    return whole


def _heat(
    scan: Scan, middle: NDArray[np.float64], turn: NDArray[np.float64], size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    device = scan.hu.device
    heat = torch.zeros((size,) * 3, device=device)
    places = (scan.centres - middle) @ np.linalg.inv(turn).T + (size - 1) / 2
    shrink = float(np.abs(np.linalg.det(turn))) ** (1 / 3)
    axis = torch.arange(size, device=device, dtype=torch.float32)
    boxes = []
    for place, diameter in zip(places, scan.diameters / shrink, strict=True):
        centre = np.round(place)
        if (centre < 0).any() or (centre >= size).any():
            continue
        sigma = max(0.8, float(diameter) / 7)
        x, y, z = (torch.exp(-((axis - float(c)) ** 2) / (2 * sigma**2)) for c in centre)
        heat = torch.maximum(heat, x[:, None, None] * y[None, :, None] * z[None, None, :])
        boxes.append(np.concatenate([place - diameter / 2, place + diameter / 2]))
    return heat, torch.from_numpy(np.array(boxes, dtype=np.float32).reshape(-1, 6)).to(device)


def _scanner(hu: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Scanners differ: thick slices, sharp and soft kernels, calibration, noise."""
    if rng.random() < 0.4:
        hu = _blurred(hu, int(rng.integers(0, 3)), float(rng.uniform(0.4, 1.6)))
    if rng.random() < 0.35:
        soft = hu
        for axis in range(3):
            soft = _blurred(soft, axis, float(rng.uniform(0.5, 0.9)))
        hu = soft if rng.random() < 0.5 else hu + float(rng.uniform(0.2, 0.7)) * (hu - soft)
    hu = (hu + 1000) * float(rng.uniform(0.95, 1.05)) - 1000 + float(rng.normal(0, 15))
    noise = torch.randn(hu.shape, device=hu.device) * float(rng.gamma(1.5, 14))
    if rng.random() < 0.6:
        noise = functional.avg_pool3d(noise[None, None], 3, stride=1, padding=1)[0, 0] * 2.8
    return hu + noise


def _blurred(hu: torch.Tensor, axis: int, sigma: float) -> torch.Tensor:
    steps = torch.arange(-4, 5, dtype=torch.float32, device=hu.device)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    shape = [1, 1, 1, 1, 1]
    shape[2 + axis] = 9
    padding = [4 if n == axis else 0 for n in range(3)]
    weights = (kernel / kernel.sum()).reshape(shape)
    return functional.conv3d((hu + 1000)[None, None], weights, padding=padding)[0, 0] - 1000  # air around the patch
