"""What the nodule network learns from: phantoms, and nodules put into real lungs, as tensors on one device.

Axes are those of the bundle's preprocessing: towards right, anterior, superior, voxels of one size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ai.contract import Volume
from ai.phantom.chest import make_phantom
from ai.phantom.insertion import insert_nodules
from ai.phantom.nodules import Nodule
from ai.synthesise.paste import paste_nodules
from ai.synthesise.patches import PatchSet

KINDS = ("solid", "part-solid", "ground-glass")
REAL = ("boost-breast", "cptac-c3l00189")  # training only; LIDC-IDRI-0314 is never shown
_MARGIN_MM = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """One scan with its nodules.

    Attributes
    ----------
    hu : torch.Tensor of int16, shape (x, y, z)
    instances : torch.Tensor of uint8, shape (x, y, z)
        n in the n-th nodule.
    lungs : torch.Tensor of uint8, shape (x, y, z)
        1 left, 2 right.
    centres : numpy.ndarray of float64, shape (nodules, 3)
        In voxels.
    diameters : numpy.ndarray of float64, shape (nodules,)
        In voxels.
    attenuation : torch.Tensor of int64, shape (nodules + 1,)
        Index into `KINDS`; entry 0 stands for the background.
    spiculated : torch.Tensor of float32, shape (nodules + 1,)
    places : numpy.ndarray of float64, shape (many, 3)
        Voxels of the lungs to cut patches at.
    share : float
        How often it is chosen, relative to the others.
    """

    hu: torch.Tensor
    instances: torch.Tensor
    lungs: torch.Tensor
    centres: NDArray[np.float64]
    diameters: NDArray[np.float64]
    attenuation: torch.Tensor
    spiculated: torch.Tensor
    places: NDArray[np.float64]
    share: float = 1.0

    def to(self, device: str) -> Scan:
        """The same scan on another device."""
        moved = {
            name: getattr(self, name).to(device) for name in ("hu", "instances", "lungs", "attenuation", "spiculated")
        }
        return replace(self, **moved)


def phantom_scan(seed: int, spacing_mm: float, device: str, nodules: int | None = None) -> Scan:
    """Draw one phantom on `device`, with as many nodules as wanted, and crop it to its lungs."""
    phantom = make_phantom(seed, (spacing_mm,) * 3, device=device, nodules=nodules)
    return _scan(phantom.hu, phantom.instances, phantom.lungs, phantom.affine, phantom.nodules)


def inserted_scan(background: Background, rng: np.random.Generator, count: int, device: str) -> Scan:
    """Put `count` nodules into a real scan."""
    hu = torch.from_numpy(background.hu.astype(np.float32)).to(device)
    lungs = torch.from_numpy(background.lungs).to(device)
    hu, instances, nodules = insert_nodules(hu, background.affine, lungs, rng, count)
    return _scan(hu, instances, lungs, background.affine, nodules)


def pasted_scan(background: Background, rng: np.random.Generator, count: int, patches: Path) -> Scan:
    """Put `count` nodules of a patch file, such as a generative model drew, into a real scan; on the CPU."""
    spacing_mm = float(np.linalg.norm(background.affine[:3, 0]))
    hu, labels, pasted = paste_nodules(
        background.hu.astype(np.float32), background.lungs > 0, (spacing_mm,) * 3, PatchSet.load(patches), count, rng
    )
    nodules = [
        Nodule(
            centre_mm=tuple(background.affine[:3, :3] @ np.array(each.centre) + background.affine[:3, 3]),
            diameter_mm=each.diameter_mm,
            attenuation=each.attenuation,  # type: ignore[arg-type]
            margin="smooth",  # the generator knows none: the patches are not used for the margin
            place="parenchymal",
            solid_diameter_mm=0.0,
            side="",
            lobe=0,
            volume_mm3=0.0,
        )
        for each in pasted
    ]
    lungs = torch.from_numpy(background.lungs)
    return _scan(torch.from_numpy(hu), torch.from_numpy(labels), lungs, background.affine, nodules)


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """A real scan on voxels of one size, cropped to its lungs; arrays of shape (slices, rows, columns), LPS."""

    name: str
    hu: NDArray[np.int16]
    lungs: NDArray[np.uint8]
    affine: NDArray[np.float64]


def background(name: str, volume: Volume, lungs: NDArray[np.uint8], spacing_mm: float) -> Background:
    """Bring a scan onto voxels of one size, crop it to its lungs.

    Parameters
    ----------
    name : str
        What to call it.
    volume : Volume
        Axial, slices from feet to head or the other way round.
    lungs : numpy.ndarray of uint8, shape (slices, rows, columns)
        1 left, 2 right.
    spacing_mm : float
        Voxel size wanted.
    """
    own = np.array(volume.spacing_mm)
    size = [int(n) for n in np.round(np.array(volume.array.shape) * own / spacing_mm)]
    hu = functional.interpolate(
        torch.from_numpy(volume.array)[None, None].clamp(-1024, 3000), size=size, mode="trilinear", align_corners=False
    )[0, 0]
    soft = [
        functional.interpolate(
            torch.from_numpy((lungs == side).astype(np.float32))[None, None], size=size, mode="trilinear"
        )
        for side in (1, 2)
    ]
    labels = ((soft[0][0, 0] > 0.5) + 2 * (soft[1][0, 0] > 0.5)).numpy().astype(np.uint8)
    scale = np.array(volume.array.shape) / np.array(size)
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, :3] * scale
    affine[:3, 3] += volume.affine[:3, :3] @ ((scale - 1) / 2)
    box = _box(labels > 0, spacing_mm)
    affine[:3, 3] += affine[:3, :3] @ np.array([part.start for part in box])
    return Background(name, np.round(hu.numpy()[box]).astype(np.int16), labels[box], affine)


def save_backgrounds(backgrounds: Sequence[Background], path: Path) -> None:
    """Keep prepared scans in one file, so that a machine without DICOM libraries can train."""
    arrays: dict[str, Any] = {}
    for each in backgrounds:
        arrays |= {f"{each.name}/hu": each.hu, f"{each.name}/lungs": each.lungs, f"{each.name}/affine": each.affine}
    np.savez_compressed(path, **arrays)


def load_backgrounds(path: Path) -> Iterator[Background]:
    """Read what `save_backgrounds` wrote."""
    with np.load(path) as arrays:
        for name in sorted({key.split("/")[0] for key in arrays.files}):
            yield Background(name, arrays[f"{name}/hu"], arrays[f"{name}/lungs"], arrays[f"{name}/affine"])


def _box(mask: NDArray[np.bool_], spacing_mm: float) -> tuple[slice, ...]:
    margin = round(_MARGIN_MM / spacing_mm)
    box = []
    for axis in range(3):
        marked = np.flatnonzero(mask.any(axis=tuple(n for n in range(3) if n != axis)))
        box.append(slice(max(0, int(marked[0]) - margin), min(mask.shape[axis], int(marked[-1]) + margin + 1)))
    return tuple(box)


def _scan(
    hu: torch.Tensor,
    instances: torch.Tensor,
    lungs: torch.Tensor,
    affine: NDArray[np.float64],
    nodules: Sequence[Nodule],
) -> Scan:
    spacing_mm = float(np.linalg.norm(affine[:3, 0]))
    box = _box((lungs > 0).cpu().numpy(), spacing_mm)
    to_index = np.linalg.inv(affine)
    start = np.array([part.start for part in box], dtype=np.float64)
    hu, instances, lungs = (tensor[box] for tensor in (hu, instances, lungs))
    size = np.array(hu.shape, dtype=np.float64)
    rows = [to_index[:3, :3] @ np.array(nodule.centre_mm) + to_index[:3, 3] - start for nodule in nodules]
    flip = np.sign(np.array([affine[2, 0], affine[1, 1], affine[0, 2]]))  # slices, rows, columns against S, P, L
    centres = np.array([_to_ras(row, size, flip) for row in rows]).reshape(-1, 3)
    hu, instances, lungs = (_turned(tensor, flip) for tensor in (hu, instances, lungs))
    marked = torch.nonzero(lungs)
    chosen = torch.linspace(0, len(marked) - 1, 20_000).long().to(marked.device)
    device = hu.device
    return Scan(
        hu=hu.round().clamp(-1024, 3000).to(torch.int16).contiguous(),
        instances=instances.to(torch.uint8).contiguous(),
        lungs=lungs.to(torch.uint8).contiguous(),
        centres=centres,
        diameters=np.array([nodule.diameter_mm / spacing_mm for nodule in nodules], dtype=np.float64),
        attenuation=torch.tensor([0, *(KINDS.index(n.attenuation) for n in nodules)], device=device),
        spiculated=torch.tensor([0.0, *(float(n.margin == "spiculated") for n in nodules)], device=device),
        places=marked[chosen].cpu().numpy().astype(np.float64),
    )


def _to_ras(row: NDArray[np.float64], size: NDArray[np.float64], flip: NDArray[np.float64]) -> NDArray[np.float64]:
    slices, rows, columns = row
    right = columns if flip[2] < 0 else size[2] - 1 - columns
    front = rows if flip[1] < 0 else size[1] - 1 - rows
    up = slices if flip[0] > 0 else size[0] - 1 - slices
    return np.array([right, front, up])


def _turned(tensor: torch.Tensor, flip: NDArray[np.float64]) -> torch.Tensor:
    turned = tensor.permute(2, 1, 0)
    axes = [axis for axis, wrong in enumerate((flip[2] > 0, flip[1] > 0, flip[0] < 0)) if wrong]
    return turned.flip(axes) if axes else turned
