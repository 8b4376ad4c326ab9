"""A denoising diffusion model in three dimensions, on MONAI's networks: it draws a nodule together with its outline.

Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020; predicted is the velocity of Salimans and Ho,
"Progressive Distillation", ICLR 2022, on the cosine schedule of Nichol and Dhariwal, ICML 2021; drawn with the DDIM
steps of Song et al., ICLR 2021. Attenuation and size class are given to the network as one class embedding.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers.inferer import DiffusionInferer
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from monai.networks.schedulers.ddim import DDIMScheduler
from monai.networks.schedulers.ddpm import DDPMScheduler
from numpy.typing import NDArray

from ai.synthesise.patches import CLASSES, SIZE_EDGES_MM, PatchSet

LOW_HU, HIGH_HU = -1000.0, 400.0
_TIMESTEPS = 1000
_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Design:
    """What a diffusion model is made of, beside its weights.

    Parameters
    ----------
    size : int
        Voxels along each edge of a patch; a multiple of two to the power of levels minus one.
    spacing_mm : float
        Distance between voxel centres.
    channels : tuple of int
        Features at each level of the network.
    known : tuple of int
        Classes (see `ai.synthesise.patches.class_of`) that were in the training patches; no other can be drawn.
    """

    size: int
    spacing_mm: float
    channels: tuple[int, ...]
    known: tuple[int, ...]

    def network(self) -> DiffusionModelUNet:
        """A network of this design, untrained."""
        return DiffusionModelUNet(
            spatial_dims=3,
            in_channels=2,
            out_channels=2,
            num_res_blocks=1,
            channels=self.channels,
            attention_levels=[False] * (len(self.channels) - 1) + [True],
            norm_num_groups=min(16, self.channels[0]),
            num_head_channels=min(32, self.channels[-1]),
            num_class_embeds=CLASSES,
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: whatever ends first. `minutes` counts from the start of training; `batch` patches a step."""

    minutes: float | None = None
    steps: int | None = None
    batch: int = 64
    learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        if self.minutes is None and self.steps is None:
            raise ValueError("Say how long to train: --minutes, --steps or both.")

    def spent(self, step: int, elapsed_s: float) -> float:
        """Part of the budget that is used up; 1 or more ends the training."""
        by_time = elapsed_s / (60 * self.minutes) if self.minutes else 0.0
        return max(by_time, step / self.steps if self.steps else 0.0)


def train_diffusion(
    patches: PatchSet,
    run: Path,
    budget: Budget,
    *,
    channels: tuple[int, ...] = (32, 64, 128),
    device: str = "cpu",
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> list[float]:
    """Train a model and write it to `run` (``design.json``, ``model.pt``, ``losses.csv``).

    Parameters
    ----------
    patches : PatchSet
        What to learn from.
    run : pathlib.Path
        Folder to write; what an earlier run left there is replaced.
    budget : Budget
        With `steps` alone the result depends on `seed` and the machine's arithmetic only; with `minutes` also on the
        machine's speed.
    channels : tuple of int
        Features at each level.
    device : str
        A torch device. On CUDA the network computes in bfloat16.
    seed : int
        Decides weights, order, noise and turns.
    say : callable
        Told a line every ten seconds.

    Returns
    -------
    list of float
        Mean squared error of the predicted velocity at each step.
    """
    torch.manual_seed(seed)
    chosen = torch.device(device)
    present = sorted({int(number) for number in patches.classes})
    design = Design(patches.hu.shape[-1], patches.spacing_mm, channels, tuple(present))
    network = design.network().to(chosen)
    averaged = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=budget.learning_rate, weight_decay=1e-4)
    scheduler = _scheduler(DDPMScheduler)
    images, classes = _tensors(patches, chosen)
    weights = _balanced(classes)
    generator, noises = torch.Generator().manual_seed(seed), torch.Generator(chosen).manual_seed(seed)
    losses: list[float] = []
    started = said = time.monotonic()
    size = sum(parameter.numel() for parameter in network.parameters())
    say(f"{len(patches)} patches of {design.size}³ voxels of {design.spacing_mm:g} mm")
    say(f"{size / 1e6:.1f} M weights, {device_name(chosen)}")
    while (spent := budget.spent(len(losses), time.monotonic() - started)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(budget.learning_rate, len(losses), spent)
        loss = _step(network, scheduler, images, classes, weights, budget.batch, generator, noises)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        _average(averaged, network, min(0.999, len(losses) / (len(losses) + 10)))
        if time.monotonic() - said > _EVERY_S:
            said = time.monotonic()
            say(_progress(losses, said - started, spent))
    _write_run(run, design, averaged, losses, {"budget": asdict(budget), "seed": seed, "device": device_name(chosen)})
    say(_progress(losses, time.monotonic() - started, 1.0))
    return losses


def sample_diffusion(
    run: Path,
    classes: NDArray[np.integer],
    *,
    device: str = "cpu",
    seed: int = 0,
    steps: int = 50,
    batch: int = 64,
) -> tuple[NDArray[np.float16], NDArray[np.uint8], Design]:
    """Draw one patch for each wanted class.

    Parameters
    ----------
    run : pathlib.Path
        What `train_diffusion` wrote.
    classes : numpy.ndarray of int, shape (patches,)
        Each one of the classes that the model knows.
    device : str
        A torch device.
    seed : int
        The same seed draws the same patches on the same machine.
    steps : int
        DDIM steps.
    batch : int
        Patches drawn at once.

    Returns
    -------
    hu : numpy.ndarray of float16, shape (patches, size, size, size)
        Hounsfield units from -1000 to 400.
    masks : numpy.ndarray of uint8, same shape
        1 where the model drew nodule; nothing is checked yet.
    design : Design

    Raises
    ------
    ValueError
        If a class is wanted that the model was not trained on.
    """
    design = read_design(run)
    unknown = sorted(set(np.asarray(classes).tolist()) - set(design.known))
    if unknown:
        raise ValueError(f"The model in {run.name} was not trained on the classes {unknown}; it knows {design.known}.")
    chosen = torch.device(device)
    network = design.network()
    network.load_state_dict(torch.load(run / "model.pt", map_location="cpu", weights_only=True))
    network.to(chosen).eval()
    scheduler = _scheduler(DDIMScheduler)
    scheduler.set_timesteps(steps)
    inferer: Any = DiffusionInferer(scheduler)  # its annotations know no class labels
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for start in range(0, len(classes), batch):
        wanted = torch.as_tensor(np.asarray(classes)[start : start + batch], dtype=torch.long, device=chosen)
        noise = torch.randn((len(wanted), 2, *(design.size,) * 3), generator=generator).to(chosen)
        with torch.inference_mode(), _mixed(chosen):
            made = inferer.sample(noise, partial(network, class_labels=wanted), scheduler, verbose=False)
        drawn.append(made.float().cpu().numpy())
    pixels = np.concatenate(drawn) if drawn else np.zeros((0, 2, *(design.size,) * 3), dtype=np.float32)
    hu = LOW_HU + (np.clip(pixels[:, 0], -1, 1) + 1) / 2 * (HIGH_HU - LOW_HU)
    return hu.astype(np.float16), (pixels[:, 1] > 0).astype(np.uint8), design


def read_design(run: Path) -> Design:
    """Read what a model is made of.

    Raises
    ------
    ValueError
        If the model was trained with other size classes than this version has.
    """
    found = json.loads((run / "design.json").read_text(encoding="utf-8"))
    if tuple(found["size_edges_mm"]) != SIZE_EDGES_MM:
        raise ValueError(f"{run.name} was trained with size classes at {found['size_edges_mm']} mm; train it again.")
    return Design(found["size"], found["spacing_mm"], tuple(found["channels"]), tuple(found["known"]))


def device_name(device: torch.device) -> str:
    """What a person calls the device: the card's name, or ``CPU`` with its threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU, {torch.get_num_threads()} threads"


def _scheduler(kind: Callable[..., Any]) -> Any:
    return kind(num_train_timesteps=_TIMESTEPS, schedule="cosine", prediction_type="v_prediction")


def _tensors(patches: PatchSet, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """All patches on the device: (patches, 2, size, size, size) from -1 to 1, and their classes."""
    hu = (np.clip(patches.hu.astype(np.float32), LOW_HU, HIGH_HU) - LOW_HU) / (HIGH_HU - LOW_HU) * 2 - 1
    masks = patches.masks.astype(np.float32) * 2 - 1
    images = torch.from_numpy(np.stack([hu, masks], axis=1)).to(device)
    return images, torch.from_numpy(patches.classes).to(device)


def _balanced(classes: torch.Tensor) -> torch.Tensor:
    """How often to take each patch: a rare class as often as the square root of its share."""
    counts = torch.bincount(classes.cpu(), minlength=CLASSES).float()
    return counts[classes.cpu()].rsqrt()


def _step(
    network: DiffusionModelUNet,
    scheduler: DDPMScheduler,
    images: torch.Tensor,
    classes: torch.Tensor,
    weights: torch.Tensor,
    batch: int,
    generator: torch.Generator,
    noises: torch.Generator,
) -> torch.Tensor:
    """Mean squared error of one batch. Noise is drawn where it is needed: a processor would hold a GPU up."""
    device = images.device
    index = torch.multinomial(weights, batch, replacement=True, generator=generator).to(device)
    clean = _turned(images[index], generator)
    noise = torch.randn(clean.shape, generator=noises, device=device)
    timesteps = torch.randint(0, _TIMESTEPS, (batch,), generator=generator).to(device)
    inferer: Any = DiffusionInferer(scheduler)
    with _mixed(device):
        predicted = inferer(clean, partial(network, class_labels=classes[index]), noise=noise, timesteps=timesteps)
    return torch.nn.functional.mse_loss(predicted.float(), scheduler.get_velocity(clean, noise, timesteps))


def _turned(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One of the 48 symmetries of the cube, the same for the whole batch: a nodule has no up and no left."""
    order = (torch.randperm(3, generator=generator) + 2).tolist()
    mirrored = [axis + 2 for axis in range(3) if torch.rand(1, generator=generator).item() < 0.5]
    return images.permute(0, 1, *order).flip(mirrored).contiguous()


def _mixed(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def _learning_rate(highest: float, step: int, spent: float) -> float:
    """Warm up over 20 steps, then follow a cosine down to a hundredth."""
    return float(highest * min(1.0, (step + 1) / 20) * (0.01 + 0.99 * (1 + np.cos(np.pi * min(spent, 1.0))) / 2))


@torch.no_grad()
def _average(averaged: torch.nn.Module, network: torch.nn.Module, keep: float) -> None:
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - keep)


def _progress(losses: list[float], elapsed_s: float, spent: float) -> str:
    recent = float(np.mean(losses[-50:])) if losses else float("nan")
    pace = len(losses) / max(elapsed_s, 1e-9)
    return f"step {len(losses)}  loss {recent:.4f}  {pace:.2f} steps/s  {elapsed_s:.0f} s  {min(spent, 1.0):.0%}"


def _write_run(
    run: Path, design: Design, averaged: torch.nn.Module, losses: list[float], more: Mapping[str, Any]
) -> None:
    run.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().half() for name, value in averaged.state_dict().items()}
    part = run / ".model.pt.part"
    torch.save(weights, part)
    part.replace(run / "model.pt")
    rows = [f"{step},{loss:.6f}" for step, loss in enumerate(losses, start=1)]
    (run / "losses.csv").write_text("\n".join(["step,loss", *rows]) + "\n", encoding="utf-8")
    described = {**asdict(design), "size_edges_mm": SIZE_EDGES_MM, "steps": len(losses), **more}
    (run / "design.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
