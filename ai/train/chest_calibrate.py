"""Learns how the chest pack judges its candidates: logistic regression on what the finished maps say of each.

How likely a candidate is a nodule is what reduces false positives in other detectors, too (Setio et al., Med Image Anal
2017;42:1-13), here in its smallest form: six numbers, so that it cannot learn the scans by heart, and costs no time.
Which attenuation it has is matrix scaling of the network's own answer (Guo et al., ICML 2017, 4.2).

Scans to learn from hold many nodules. A score is the probability of a nodule where `USUAL` of them are found in a scan;
for that the constant of the regression is corrected (King and Zeng, Political Analysis 2001;9:137-63, 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ai.train.chest_scans import KINDS, Scan

USUAL = 1.0  # nodules found in a scan
_SHRINK = 1.0  # times half the squared weights, as much as one candidate's loss
_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Seen:
    """Candidates of some scans.

    Attributes
    ----------
    traits : numpy.ndarray of float64, shape (candidates, traits)
        In the order of the bundle's `network.TRAITS`.
    attenuation : numpy.ndarray of float64, shape (candidates, 3)
        What the network says, as probabilities in the order of `KINDS`.
    truth : numpy.ndarray of int64, shape (candidates,)
        Index into `KINDS` where the middle of a candidate lies within the radius of a nodule, as detections are judged;
        -1 where it hits none.
    scans : int
        How many there were.
    """

    traits: NDArray[np.float64]
    attenuation: NDArray[np.float64]
    truth: NDArray[np.int64]
    scans: int

    @property
    def is_nodule(self) -> NDArray[np.bool_]:
        """Which candidates hit a nodule."""
        return np.asarray(self.truth >= 0)


def look(network: Any, inferer: Any, scans: Iterable[Scan], spacing_mm: float) -> Seen:
    """Have a network with its inferer find the candidates of scans whose nodules are known.

    Parameters
    ----------
    network, inferer : object
        The bundle's.
    scans : iterable of Scan
        Taken one at a time.
    spacing_mm : float
        Voxel size.
    """
    from scripts.nodules import candidates_of  # type: ignore[import-not-found]  # the bundle's own package

    said: list[tuple[float, ...]] = []
    kinds: list[tuple[float, ...]] = []
    truth: list[int] = []
    count = 0
    for count, scan in enumerate(scans, start=1):  # noqa: B007 - how many there were
        with torch.inference_mode():
            crop, region, inside = inferer.cropped(scan.hu.float()[None, None], scan.lungs[None, None])
            found, instances = candidates_of(inferer.maps(crop, region, network), region, spacing_mm)
        start = np.array([part.start for part in inside[2:]])
        for number, candidate in enumerate(found, start=1):
            middle = torch.nonzero(instances[0, 0] == number).float().mean(dim=0).cpu().numpy() + start
            away = np.linalg.norm(scan.centres - middle, axis=1) / (scan.diameters / 2)
            hit = int(np.argmin(away)) if len(away) and away.min() < 1 else -1
            truth.append(int(scan.attenuation[hit + 1]) if hit >= 0 else -1)
            said.append(candidate.traits)
            kinds.append(candidate.attenuation)
    return Seen(
        np.array(said, dtype=np.float64), np.array(kinds, dtype=np.float64), np.array(truth, dtype=np.int64), count
    )


def learn_ranking(seen: Seen) -> torch.nn.Linear:
    """Fit logistic regression.

    Returns
    -------
    torch.nn.Linear
        Traits to the logit of being a nodule, where a scan has `USUAL`.

    Raises
    ------
    ValueError
        If there are no candidates of one of both kinds.
    """
    if not seen.is_nodule.any() or seen.is_nodule.all():
        raise ValueError("Nothing to learn a ranking from: it takes candidates that are nodules and others.")
    traits, target = torch.from_numpy(seen.traits), torch.from_numpy(seen.is_nodule).double()
    middle, spread = traits.mean(dim=0), traits.std(dim=0).clamp(min=1e-6)
    weight = torch.zeros((1, traits.shape[1]), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        logits = ((traits - middle) / spread) @ weight[0] + bias
        each = functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        return each + _SHRINK / 2 * weight.square().sum()

    _minimise(loss, weight, bias)
    more = float(seen.is_nodule.sum()) / seen.scans / USUAL  # nodules than in a usual scan
    return _linear(weight / spread, bias - (weight * middle / spread).sum() - math.log(more))


def learn_attenuation(seen: Seen) -> torch.nn.Linear:
    """Fit matrix scaling, held to what the network says itself by as much as one candidate weighs.

    Returns
    -------
    torch.nn.Linear
        Logarithms of the network's probabilities to logits.
    """
    from scripts.network import log_of  # type: ignore[import-not-found]

    said = torch.as_tensor(log_of(torch.from_numpy(seen.attenuation[seen.is_nodule])))
    target = torch.from_numpy(seen.truth[seen.is_nodule])
    as_said = torch.eye(len(KINDS), dtype=torch.float64)
    weight = as_said.clone().requires_grad_()
    bias = torch.zeros(len(KINDS), dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        each = functional.cross_entropy(said @ weight.T + bias, target, reduction="sum")
        return each + _SHRINK / 2 * ((weight - as_said).square().sum() + bias.square().sum())

    _minimise(loss, weight, bias)
    return _linear(weight, bias)


def _minimise(loss: Callable[[], torch.Tensor], *parameters: torch.Tensor) -> None:
    optimiser = torch.optim.LBFGS(parameters, max_iter=_ROUNDS, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(step)  # type: ignore[no-untyped-call]


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> torch.nn.Linear:
    made = torch.nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    return made
