"""Detection: a network marks the centre and the body of each thing to find; FROC judges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms.compose import Compose
from torch.nn import functional
from torch.utils.data import Dataset

from ai.data.nodule import Nodule
from ai.evaluate.bootstrap import Interval
from ai.evaluate.froc import Candidate, Scan, performance
from ai.train.cases import Case, CaseSet
from ai.train.centre_detector import CENTRE, INSIDE, CentreInferer
from ai.train.networks import network_config
from ai.train.pipeline import augmentation, built, patches, preprocessing
from ai.train.prepared import make_ready
from ai.train.recipe import Recipe
from ai.train.task import Rows

NAME = "nodule"
APART_MM = 5.0
_LEAST_SCORE = 0.02
_PRIOR = -4.6
_ALPHA, _BETA = 2, 4  # Law and Deng 2018, CornerNet, equation 1


class Detection:
    """One kind of thing, found one by one.

    Parameters
    ----------
    recipe : Recipe
    data : CaseSet
    cache : pathlib.Path
        Folder for prepared cases, where the recipe asks for it.
    """

    outputs = ("background", NAME)

    def __init__(self, recipe: Recipe, data: CaseSet, cache: Path) -> None:
        self._recipe, self._cache = recipe, cache
        self.network_config: Mapping[str, Any] = network_config(recipe, len(data.channels), 2)

    def begin(self, network: torch.nn.Module) -> None:
        """Begin by saying that centres are rare."""
        start_rare(network)

    def prepare(self, cases: Sequence[Case], *, training: bool) -> Dataset[Any]:
        """Images with the maps to learn: centre, inside."""
        unknown = [case.name for case in cases if not case.knows_nodules]
        if unknown:
            raise ValueError(
                f"dataset.json: nodules: nobody looked for nodules in {unknown[0]}, so it teaches nothing."
            )
        npz = all(case.images[0].suffix == ".npz" for case in cases)
        outlined = npz or all(case.instances is not None for case in cases)
        drawn = {"_target_": "ai.train.targets.DrawNodules", "keys": "image", "patch": list(self._recipe.data.patch)}
        keys = ("image", "label") if outlined and any(case.nodules for case in cases) else ("image",)
        steps = [*preprocessing(self._recipe.data, keys, npz=npz, label="instances"), drawn]
        listed = [
            {
                "image": str(case.images[0]) if len(case.images) == 1 else [str(image) for image in case.images],
                **({"label": str(case.instances or case.images[0])} if "label" in keys else {}),
                "case": case.name,
                "nodules": [asdict(nodule) for nodule in case.nodules],
            }
            for case in cases
        ]
        return make_ready(listed, built(steps), self._recipe.data.cache, self._cache)

    def cut(self) -> Compose:
        """A patch with a nodule near its middle as often as the recipe says, mirrored and turned by right angles.

        The maps to learn are exact only under these: nothing is interpolated.
        """
        varied = augmentation(self._recipe.augment, (), exact=True)
        return built([*patches(self._recipe), *varied])

    def loss(self, network: torch.nn.Module, batch: Mapping[str, Any], device: torch.device) -> torch.Tensor:
        """Penalty-reduced focal loss of the centres, Dice and cross-entropy of the bodies."""
        image, maps = (torch.as_tensor(batch[key]).to(device, non_blocking=True) for key in ("image", "label"))
        answer = network(image).float()
        return _focal(answer[:, CENTRE], maps[:, CENTRE]) + _overlap(answer[:, INSIDE], maps[:, INSIDE])

    def judge(
        self, network: torch.nn.Module, prepared: Dataset[Any], device: torch.device, keep: Path | None = None
    ) -> Rows:
        """Candidates of each case, in LPS mm; ``score`` is the CPM over all of them, the same in every row."""
        spacing = self._recipe.data.spacing_mm or (1.0,)
        apart = max(3, round(APART_MM / min(spacing)))
        inferer = CentreInferer(self._recipe.data.patch, NAME, _LEAST_SCORE, apart)
        rows: Rows = []
        for number in range(len(prepared)):  # type: ignore[arg-type]
            case = prepared[number]
            found = inferer(torch.as_tensor(case["image"])[None].to(device), network)["instances_found"]
            affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(case["image"].affine)
            places = [(affine @ [*each["centre"], 1.0])[:3].tolist() for each in found]
            candidates = [[*place, each["score"]] for place, each in zip(places, found, strict=True)]
            rows.append({"case": case["case"], "candidates": candidates, "nodules": case["nodules"]})
        figures = {name: interval.value for name, interval in self.pooled(rows, resamples=0).items()}
        return [{**row, **figures, "score": figures["CPM"]} for row in rows]

    def pooled(self, rows: Rows, *, resamples: int = 1000) -> dict[str, Interval]:
        """FROC over the candidates of all rows: CPM, and sensitivity at each number of false positives per scan."""
        found = performance([_scan(row) for row in rows], resamples=resamples)
        named = {f"sensitivity at {rate:g}": value for rate, value in found.at.items()}
        return {"CPM": found.cpm, **named}


def start_rare(network: torch.nn.Module) -> None:
    """Set the last layer's bias so that a centre is as unlikely as it is (Lin et al. 2017, RetinaNet, section 4.1)."""
    last = [parameter for name, parameter in network.named_parameters() if name.endswith("bias")][-1:]
    if last and last[0].shape == (2,):
        with torch.no_grad():
            last[0][CENTRE] = _PRIOR


def _scan(row: Mapping[str, Any]) -> Scan:
    candidates = tuple(Candidate((x, y, z), score) for x, y, z, score in row["candidates"])
    nodules = tuple(Nodule(**{**nodule, "centre_mm": tuple(nodule["centre_mm"])}) for nodule in row["nodules"])
    return Scan(row["case"], candidates, nodules)


def _focal(logits: torch.Tensor, heat: torch.Tensor) -> torch.Tensor:
    chance = torch.sigmoid(logits).clamp(1e-4, 1 - 1e-4)
    centre = heat >= 1
    hit = -torch.log(chance) * (1 - chance) ** _ALPHA * centre
    miss = -torch.log(1 - chance) * chance**_ALPHA * (1 - heat) ** _BETA * ~centre
    return (hit.sum() + miss.sum()) / centre.sum().clamp(min=1)


def _overlap(logits: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    chance = torch.sigmoid(logits)
    dice = 1 - (2 * (chance * inside).sum() + 1) / (chance.sum() + inside.sum() + 1)
    return dice + functional.binary_cross_entropy_with_logits(logits, inside)
