"""Segmentation: a network outlines, Dice and cross-entropy teach it, Dice judges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers.inferer import SlidingWindowInferer
from monai.losses.dice import DiceCELoss
from monai.transforms.compose import Compose
from torch.utils.data import Dataset

from ai.regrid import to_grid
from ai.train.cases import Case, CaseSet
from ai.train.networks import network_config
from ai.train.pipeline import augmentation, built, patches, preprocessing
from ai.train.prepared import make_ready
from ai.train.recipe import Recipe
from ai.train.task import Rows

_INDICES = [{"_target_": "FgBgToIndicesd", "keys": "label", "fg_postfix": "_fg_indices", "bg_postfix": "_bg_indices"}]


class Segmentation:
    """One label map for each image; labels do not overlap.

    Parameters
    ----------
    recipe : Recipe
    data : CaseSet
        Its labels become the outputs, in the order of their values.
    cache : pathlib.Path
        Folder for prepared cases, where the recipe asks for it.

    Raises
    ------
    ValueError
        If the set names no labels.
    """

    def __init__(self, recipe: Recipe, data: CaseSet, cache: Path) -> None:
        if not data.labels:
            raise ValueError("dataset.json: labels: segmentation needs a name for each value of the label maps.")
        self._recipe, self._cache = recipe, cache
        self.names = tuple(data.labels.values())
        self._values = tuple(data.labels)
        self.outputs = ("background", *self.names)
        self.network_config: Mapping[str, Any] = network_config(recipe, len(data.channels), len(self.outputs))
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)

    def begin(self, network: torch.nn.Module) -> None:
        """Nothing: it begins as MONAI makes it."""

    def prepare(self, cases: Sequence[Case], *, training: bool) -> Dataset[Any]:
        """Images and label maps, made ready; where patches may lie is looked up once."""
        missing = [case.name for case in cases if case.label is None]
        if missing:
            raise ValueError(f"dataset.json: {missing[0]} has no label map, and segmentation needs one of every case.")
        numbered = {"_target_": "ai.train.prepared.Renumber", "keys": "label", "values": list(self._values)}
        npz = all(case.images[0].suffix == ".npz" for case in cases)
        ready = preprocessing(self._recipe.data, ("image", "label"), npz=npz)
        steps = [*ready, numbered, *(_INDICES if training else [])]
        listed = [{"image": _files(case), "label": str(case.label), "case": case.name} for case in cases]
        return make_ready(listed, built(steps), self._recipe.data.cache, self._cache)

    def cut(self) -> Compose:
        """A patch with foreground in its middle as often as the recipe says, varied at random."""
        return built([*patches(self._recipe), *augmentation(self._recipe.augment, self.names)])

    def loss(self, network: torch.nn.Module, batch: Mapping[str, Any], device: torch.device) -> torch.Tensor:
        """Dice plus cross-entropy."""
        answer = network(_tensor(batch["image"], device))
        found = self._loss(answer.float(), _tensor(batch["label"], device))
        assert isinstance(found, torch.Tensor)
        return found

    def judge(
        self, network: torch.nn.Module, prepared: Dataset[Any], device: torch.device, keep: Path | None = None
    ) -> Rows:
        """Dice of each output on the prepared grid; an output that is in neither mask is left out.

        Kept are label maps on the source's grid, as NIfTI.
        """
        inferer = SlidingWindowInferer(self._recipe.data.patch, overlap=0.5, mode="gaussian")
        rows: Rows = []
        for number in range(len(prepared)):  # type: ignore[arg-type]
            case = prepared[number]
            answer = inferer(_tensor(case["image"], device)[None], network)
            assert isinstance(answer, torch.Tensor)
            said, truth = answer.argmax(dim=1)[0], _tensor(case["label"], device)[0].long()
            dice = {name: _dice(said == n, truth == n) for n, name in enumerate(self.names, start=1)}
            known = {name: value for name, value in dice.items() if value is not None}
            score = float(np.mean(list(known.values()))) if known else 1.0
            if keep is not None:
                _write(said, case["image"], keep / f"{case['case']}.nii.gz")
            rows.append({"case": case["case"], "score": score, **{f"Dice {name}": v for name, v in known.items()}})
        return rows


def _write(labels: torch.Tensor, image: Any, path: Path) -> None:
    from ai.data.nifti import write_nifti  # here: training itself needs no nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    source = np.asarray(image.meta["original_affine"], dtype=np.float64)
    shape = tuple(int(size) for size in image.meta["spatial_shape"])
    own = np.asarray(image.affine, dtype=np.float64)
    back = to_grid(labels.to(torch.uint8).cpu().numpy()[None], own, source, shape)[0]
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ source  # MONAI speaks RAS
    write_nifti(back.transpose(2, 1, 0), lps[:, [2, 1, 0, 3]], path)


def _files(case: Case) -> str | list[str]:
    return str(case.images[0]) if len(case.images) == 1 else [str(image) for image in case.images]


def _tensor(found: Any, device: torch.device) -> torch.Tensor:
    plain = found.as_tensor() if hasattr(found, "as_tensor") else found
    assert isinstance(plain, torch.Tensor)
    return plain.to(device, non_blocking=True)


def _dice(said: torch.Tensor, truth: torch.Tensor) -> float | None:
    total = int(said.sum()) + int(truth.sum())
    return 2 * int((said & truth).sum()) / total if total else None
