"""Cuts one training patch out of a scan, turned, stretched, bent, blurred and made noisy at random.

Three real scans are few; what the scanner, the patient's pose and the patient's shape would have varied is varied here.
Patches are made as the bundle's preprocessing makes them: axes towards right, anterior, superior, isotropic voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ai.contract import Volume

_EMPTY_HU = -1024.0


@dataclass(frozen=True, slots=True)
class Source:
    """A scan as a tensor: channels Hounsfield units above -1024, left lung, right lung."""

    tensor: torch.Tensor
    to_index: NDArray[np.float64]
    middle_mm: NDArray[np.floating]

    @classmethod
    def of(cls, volume: Volume, labels: NDArray[np.uint8]) -> Source:
        """Prepare one scan; `labels` holds 1 in the left and 2 in the right lung."""
        channels = np.stack([np.clip(volume.array, _EMPTY_HU, 3000) - _EMPTY_HU, labels == 1, labels == 2])
        centre = np.append(np.argwhere(labels > 0).mean(axis=0), 1.0)
        tensor = torch.from_numpy(channels.astype(np.float32))[None]
        to_index = np.asarray(np.linalg.inv(volume.affine), dtype=np.float64)
        return cls(tensor, to_index, (volume.affine @ centre)[:3])


def cut_patch(
    source: Source, rng: np.random.Generator, size: tuple[int, int, int], spacing_mm: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut one random patch.

    Parameters
    ----------
    source : Source
        The scan.
    rng : numpy.random.Generator
        Decides everything; the same state cuts the same patch.
    size : (int, int, int)
        Voxels towards right, anterior and superior.
    spacing_mm : float
        Distance between voxel centres.

    Returns
    -------
    image : torch.Tensor of float32, shape (1, right, anterior, superior)
        Hounsfield units.
    target : torch.Tensor of int64, shape (1, right, anterior, superior)
        1 in the left lung, 2 in the right. A mirrored patch has its labels exchanged: the left lung is the one on the
        patient's left, also where the heart lies right.
    """
    mirrored = rng.random() < 0.2
    grid = _grid(source, rng, size, spacing_mm, mirrored)
    sampled = functional.grid_sample(source.tensor, grid, align_corners=False)[0]
    left, right = (sampled[2:], sampled[1:2]) if mirrored else (sampled[1:2], sampled[2:])
    target = (left > 0.5).long() + 2 * (right > 0.5).long()
    image = sampled[:1] + _EMPTY_HU
    _cut_off(rng, image, target)
    return _scanner(rng, image, target, spacing_mm), target


def _grid(
    source: Source, rng: np.random.Generator, size: tuple[int, int, int], spacing_mm: float, mirrored: bool
) -> torch.Tensor:
    """Where in the scan each voxel of the patch lies, as `grid_sample` wants it: from -1 to 1, last axis first."""
    shape = np.array(source.tensor.shape[2:])
    mirror = np.diag([-1.0 if mirrored else 1.0, 1.0, 1.0])
    offset = rng.uniform(-1, 1, 3) * np.array([70.0, 55.0, 100.0]) * (rng.random() ** 0.5)
    to_lps = np.diag([-1.0, -1.0, 1.0])  # the patch is cut in RAS
    to_source = np.diag(2 / shape) @ source.to_index[:3, :3] @ to_lps
    middle = source.to_index @ np.append(source.middle_mm + to_lps @ offset, 1.0)
    turn = to_source @ _turn(rng) @ mirror @ np.diag(np.array(size) * spacing_mm / 2)
    theta = np.concatenate([turn[::-1, ::-1], (2 * (middle[:3] + 0.5) / shape - 1)[::-1, None]], axis=1)
    straight = functional.affine_grid(
        torch.from_numpy(theta.astype(np.float32))[None], [1, 1, *size], align_corners=False
    )
    bend = rng.normal(0, rng.uniform(0, 9), (6, 6, 6, 3)) @ to_source[::-1].T
    coarse = torch.from_numpy(np.moveaxis(bend, -1, 0).astype(np.float32))[None]
    fine = functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True)
    return straight + fine.permute(0, 2, 3, 4, 1)


def _turn(rng: np.random.Generator) -> NDArray[np.float64]:
    """Rotation of some degrees, stretching by a quarter, a little shear."""
    angles = np.radians(rng.normal(0, 1, 3) * np.array([6.0, 5.0, 8.0]))
    turn = np.diag(rng.uniform(0.8, 1.22, 3) * rng.uniform(0.9, 1.1))
    for axis, angle in enumerate(angles):
        first, second = [n for n in range(3) if n != axis]
        rotation = np.eye(3)
        rotation[[first, second], [first, second]] = np.cos(angle)
        rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
        turn = rotation @ turn
    return turn + rng.normal(0, 0.03, (3, 3))


def _cut_off(rng: np.random.Generator, image: torch.Tensor, target: torch.Tensor) -> None:
    """Now and then the scan ends inside the chest: nothing there, nothing to find there."""
    if rng.random() < 0.3:
        edge = int(rng.integers(0, int(image.shape[-1] * 0.6)))
        gone = slice(0, edge) if rng.random() < 0.5 else slice(image.shape[-1] - edge, None)
        image[..., gone] = _EMPTY_HU
        target[..., gone] = 0


def _scanner(rng: np.random.Generator, image: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Lung density, contrast, thick slices, smooth kernels, noise."""
    lung = target > 0
    image = image + lung * torch.clamp((-image - 300) / 600, 0, 1) * float(rng.uniform(-60, 170))
    image = (image + 1000) * float(rng.uniform(0.94, 1.06)) - 1000 + float(rng.normal(0, 12))
    if rng.random() < 0.5:
        width = float(rng.uniform(1, 8)) / spacing_mm
        image = _blurred(image, width, -1)
    if rng.random() < 0.3:
        width = float(rng.uniform(1, 3)) / spacing_mm
        image = _blurred(_blurred(image, width, -2), width, -3)
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32)) * float(rng.gamma(1.5, 25))
    if rng.random() < 0.5:
        noise = functional.avg_pool3d(noise[None], 3, stride=1, padding=1)[0] * 2.5
    return image + noise


def _blurred(image: torch.Tensor, sigma: float, axis: int) -> torch.Tensor:
    radius = max(1, round(2 * sigma))
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (steps / max(sigma, 0.1)) ** 2)
    moved = (image - _EMPTY_HU).movedim(axis, -1)
    flat = moved.reshape(-1, 1, moved.shape[-1])
    flat = functional.conv1d(flat, (kernel / kernel.sum())[None, None], padding=radius)
    return flat.reshape(moved.shape).movedim(-1, axis) + _EMPTY_HU
