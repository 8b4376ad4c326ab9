"""What a scanner does to an image: kernel, slice thickness, breathing, and noise that has the kernel's grain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

_LOWEST, _HIGHEST = -1024.0, 3071.0
_RUN = 250_000  # voxels that are blurred at once on a processor, so that its caches hold them
# In-plane blur (sigma, mm), overshoot, and the noise's grain: sigma of what is smoothed and of what is taken away.
_KERNELS = {
    "soft": (0.75, 0.0, 0.9, 6.0),
    "standard": (0.55, 0.1, 0.6, 3.0),
    "lung": (0.35, 0.5, 0.35, 1.2),
    "sharp": (0.25, 0.9, 0.2, 0.8),
}
KERNELS = tuple(_KERNELS)


@dataclass(frozen=True, slots=True)
class ScannerPlan:
    """How one scan was made.

    Parameters
    ----------
    kernel : str
        One of `KERNELS`.
    thickness_mm : float
        Full width of the slice profile.
    noise_hu : float
        Standard deviation in the middle of the body.
    dose : str
        ``standard``, ``low`` or ``ultra-low``, what the noise would be called.
    breathing_mm : float
        How far the diaphragm moved during the scan.
    seed : int
        Decides the noise.
    """

    kernel: str = "standard"
    thickness_mm: float = 1.25
    noise_hu: float = 20.0
    dose: str = "standard"
    breathing_mm: float = 0.0
    seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> ScannerPlan:
        """Draw one of those in use: mostly thin slices."""
        noise = float(np.exp(rng.uniform(np.log(6), np.log(55))))
        return cls(
            kernel=KERNELS[int(rng.integers(len(KERNELS)))],
            thickness_mm=float(rng.choice([0.625, 1.0, 1.25, 2.0, 2.5, 3.0], p=[0.15, 0.25, 0.25, 0.15, 0.15, 0.05])),
            noise_hu=noise,
            dose="standard" if noise < 18 else "low" if noise < 38 else "ultra-low",
            breathing_mm=float(rng.uniform(1, 6)) if rng.random() < 0.3 else 0.0,
            seed=int(rng.integers(2**31)),
        )


def scan(hu: torch.Tensor, spacing_mm: tuple[float, float, float], plan: ScannerPlan) -> torch.Tensor:
    """Scan an image.

    Parameters
    ----------
    hu : torch.Tensor of float32, shape (slices, rows, columns)
        Hounsfield units, as sharp as the grid allows. Axial, slices from below upwards.
    spacing_mm : (float, float, float)
        Between slices, rows and columns.
    plan : ScannerPlan
        How.

    Returns
    -------
    torch.Tensor of float32, shape (slices, rows, columns)
        From -1024 to 3071.

    Raises
    ------
    KeyError
        If there is no kernel of that name.
    """
    sigma, overshoot, _, _ = _KERNELS[plan.kernel]
    seen = _breathed(hu, spacing_mm[0], plan.breathing_mm) if plan.breathing_mm > 0 else hu
    wide = np.sqrt(max(0.0, plan.thickness_mm**2 - spacing_mm[0] ** 2))
    seen = blurred(seen, 0.42 * wide / spacing_mm[0], 0)
    for axis in (1, 2):
        seen = blurred(seen, sigma / spacing_mm[axis], axis)
    if overshoot > 0:
        flat = blurred(blurred(seen, 0.9 / spacing_mm[1], 1), 0.9 / spacing_mm[2], 2)
        seen = (seen - flat).mul_(overshoot).add_(seen)
    return _noise(hu, spacing_mm, plan).add_(seen).clamp_(_LOWEST, _HIGHEST)


def blurred(image: torch.Tensor, sigma: float, axis: int) -> torch.Tensor:
    """Gaussian blur along one axis; `sigma` in voxels. Edges are repeated."""
    if sigma < 0.15:
        return image
    radius = max(1, int(np.ceil(2.5 * sigma)))
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    length = image.shape[axis]
    first, last = image.narrow(axis, 0, 1), image.narrow(axis, length - 1, 1)
    total = torch.empty_like(image)
    across = 0 if axis else 1
    run = image.shape[across] if image.is_cuda else max(1, _RUN * image.shape[across] // image.numel())
    for at in range(0, image.shape[across], run):
        count = min(run, image.shape[across] - at)
        part, before, after, out = (each.narrow(across, at, count) for each in (image, first, last, total))
        wide = torch.cat([before] * radius + [part] + [after] * radius, dim=axis)
        torch.mul(wide.narrow(axis, 0, length), float(kernel[0]), out=out)
        for step, weight in enumerate(kernel.tolist()[1:], start=1):
            out.add_(wide.narrow(axis, step, length), alpha=weight)
    return total


def _breathed(hu: torch.Tensor, step_mm: float, reach_mm: float) -> torch.Tensor:
    """The mean of positions during the scan, in the lower third: vessels double, the diaphragm smears."""
    slices = hu.shape[0]
    height = torch.arange(slices, device=hu.device, dtype=torch.float32) / slices
    moving = torch.clamp((0.5 - height) * 3, 0, 1)
    lower = int((moving > 0).sum())
    shares = torch.linspace(0, 1, 4)
    mean = torch.zeros_like(hu[:lower])
    at = torch.arange(slices, device=hu.device, dtype=torch.float32)[:lower]
    for share in shares.tolist():
        from_ = torch.clamp(at + share * reach_mm / step_mm, 0, slices - 1)
        low = from_.floor().long()
        part = (from_ - low)[:, None, None]
        above = torch.clamp(low + 1, max=slices - 1)
        mean += hu[low].mul_(1 - part).add_(hu[above].mul_(part)).div_(len(shares))
    smeared = hu.clone()
    smeared[:lower] += mean.sub_(hu[:lower]).mul_(moving[:lower, None, None])
    return smeared


def _noise(hu: torch.Tensor, spacing_mm: tuple[float, float, float], plan: ScannerPlan) -> torch.Tensor:
    """Noise with the kernel's spectrum, stronger where the body is thick, streaky through the shoulders."""
    _, _, smooth, removed = _KERNELS[plan.kernel]
    generator = torch.Generator().manual_seed(plan.seed)
    white = torch.randn(hu.shape, generator=generator).to(hu.device)
    streaks = blurred(white, 6.0 / spacing_mm[2], 2)
    for axis in (1, 2):
        white = blurred(white, smooth / spacing_mm[axis], axis)
    white -= blurred(blurred(white, removed / spacing_mm[1], 1), removed / spacing_mm[2], 2) * 0.9
    white = blurred(white, 0.35 * plan.thickness_mm / spacing_mm[0], 0)
    white /= white.std().clamp(min=1e-3)
    streaks /= streaks.std().clamp(min=1e-3)
    water = (hu / 1000).add_(1).clamp_(0, 2)
    across = (water.sum(dim=2) * spacing_mm[2]).mean(dim=1)  # mm of water from side to side
    across = across / across.median().clamp(min=1)
    many = torch.clamp(across, 0.7, 2.2)[:, None, None]
    local = functional.avg_pool2d(water[:, None], 8, ceil_mode=True, count_include_pad=False)
    local = functional.interpolate(local, size=hu.shape[1:], mode="bilinear")[:, 0]
    thick = torch.clamp(many - 1.1, 0, 1)
    amount = local.mul_(1.3).clamp_(0, 1).mul_(0.45).add_(0.55).mul_(plan.noise_hu * many)
    white += streaks.mul_(thick).mul_(0.9)
    return white.mul_(amount).div_(torch.sqrt(1 + thick**2))
