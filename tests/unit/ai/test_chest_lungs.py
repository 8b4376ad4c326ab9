"""The lungs of the chest pack: what is taken for the wrong lung, and how the coarse grid comes back to the scan's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import ai

BUNDLE = Path(ai.__file__).parent / "bundles" / "chest_ct"
BACKGROUND, LEFT, RIGHT, RIGHT_OR_LEFT, RIGHT_OR_NONE = range(5)
LIKELIHOODS = torch.tensor(
    [[0.90, 0.05, 0.05], [0.05, 0.90, 0.05], [0.05, 0.05, 0.90], [0.20, 0.35, 0.45], [0.35, 0.20, 0.45]]
)
ROI = (32, 32, 32)


@pytest.fixture
def lungs_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lungs that the pack outlines where the network says what the voxels of `kinds` stand for."""
    monkeypatch.syspath_prepend(str(BUNDLE))
    from scripts.inferer import LUNGS_HU, ChestInferer  # type: ignore[import-not-found]

    def outline(kinds: torch.Tensor) -> torch.Tensor:
        low, high = LUNGS_HU

        def says(window: torch.Tensor) -> torch.Tensor:
            kind = torch.round(window[:, 0] * (len(LIKELIHOODS) - 1)).long()
            return LIKELIHOODS.log()[kind].movedim(-1, 1)

        inferer = ChestInferer(1.25, 2.5, ROI, ROI)
        inferer.without = ("nodule",)
        hu = low + kinds.float() / (len(LIKELIHOODS) - 1) * (high - low)
        lungs: torch.Tensor = inferer(hu[None, None], SimpleNamespace(lungs=says))["lungs"][0, 0]
        return lungs

    return outline


@pytest.mark.parametrize(("kind", "becomes"), [(RIGHT_OR_LEFT, LEFT), (RIGHT_OR_NONE, BACKGROUND)])
def test_a_part_of_one_lung_taken_for_the_other_is_what_it_is_second_likeliest_to_be(
    lungs_of: Any, kind: int, becomes: int
) -> None:
    kinds = torch.zeros((60, 40, 40), dtype=torch.int64)
    kinds[6:22, 8:32, 8:32] = RIGHT
    kinds[36:54, 8:32, 8:32] = LEFT
    kinds[38:46, 12:24, 12:24] = kind  # surrounded by the left lung
    lungs = lungs_of(kinds)
    assert (lungs[40:45, 14:23, 14:23] == becomes).all()
    assert (lungs[8:21, 10:31, 10:31] == RIGHT).all()
    assert (lungs == RIGHT).sum() < 20 * 28 * 28  # nowhere but there


def test_what_is_connected_to_neither_lung_is_none(lungs_of: Any) -> None:
    kinds = torch.zeros((60, 40, 40), dtype=torch.int64)
    kinds[6:22, 8:32, 8:32] = RIGHT
    kinds[36:54, 8:32, 2:20] = LEFT
    kinds[40:50, 8:32, 30:38] = RIGHT_OR_LEFT  # as gas in the stomach may be taken for
    lungs = lungs_of(kinds)
    assert (lungs[38:52, 10:30, 4:18] == LEFT).all()
    assert not lungs[30:, :, 24:].any()


@pytest.mark.parametrize("size", [40, 41])
def test_an_outline_comes_back_to_where_it_was(lungs_of: Any, size: int) -> None:
    kinds = torch.zeros((size, size, size), dtype=torch.int64)
    kinds[10:21, 10:21, 30:] = LEFT  # of every second voxel, 10 to 20 are in it
    where = torch.nonzero(lungs_of(kinds))
    first, last = where.min(dim=0).values, where.max(dim=0).values
    assert (first + last)[:2].tolist() == [30, 30]
    assert 9 <= first[0] <= 10
    assert 29 <= first[2] <= 30
    assert last[2] == size - 1


def test_only_what_is_reported_is_explained(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.syspath_prepend(str(BUNDLE))
    from scripts.inferer import NODULES_HU, ChestInferer
    from scripts.network import ChestNet  # type: ignore[import-not-found]

    class Bright(torch.nn.Module):
        """A centre where it is brightest around, the surer the brighter; what is bright lies inside."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            said = torch.full((1, 6, *image.shape[2:]), -9.0)
            said[:, 0], said[:, 1] = 20 * (image[:, 0] - 0.75), 20 * (image[:, 0] - 0.5)
            return said

    low, high = NODULES_HU
    image = torch.zeros((1, 1, 48, 48, 48))
    image[0, 0, 10:13, 10:13, 10:13], image[0, 0, 11, 11, 11] = 0.7, 0.9
    image[0, 0, 36:39, 36:39, 36:39], image[0, 0, 37, 37, 37] = 0.6, 0.7
    network = ChestNet([8, 16], [4, 8], 1)  # whose score is the centre's, as long as it has not learnt another
    network.nodules = Bright()
    network.eval()
    found = ChestInferer(1.25, 2.5, ROI, ROI).find(
        low + image * (high - low), torch.ones_like(image, dtype=torch.uint8), network
    )
    assert not network.training  # explaining leaves it as it was: the next answer is the same
    scores = [one["score"] for one in found["nodules_found"]]
    assert (len(scores), scores[0] > 0.9, scores[1] < 0.5) == (2, True, True)
    spoke = found["nodules_saliency"][0, 0]
    assert spoke[10:13, 10:13, 10:13].max() == 1
    assert spoke[34:41, 34:41, 34:41].max() == 0
