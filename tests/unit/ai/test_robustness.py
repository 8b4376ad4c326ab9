"""The same chest is scanned in other ways, its truth with it, and what the model then says is summed up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ai.contract import Detection, LabelMap, ModelTimeout, Prediction, Volume
from ai.data.case import Case, Provenance
from ai.data.nodule import outlined_nodule
from ai.evaluate.conditions import Condition, conditions, coronal, thinned, turned
from ai.evaluate.log import ResultLog
from ai.evaluate.robustness import robustness_table, rows, run_robustness

AFFINE = np.array([[0, 0, 1.5, -60], [0, 1.5, 0, -50], [2.0, 0, 0, 100], [0, 0, 0, 1.0]])
KINDS = ("solid", "ground-glass")


@pytest.fixture(scope="module")
def case() -> Case:
    """Two lungs, a nodule in each."""
    z, y, x = np.indices((40, 70, 84))
    lungs, instances = np.zeros(z.shape, np.uint8), np.zeros(z.shape, np.uint8)
    for value, middle in ((1, 60), (2, 24)):
        lungs[((z - 20) / 16) ** 2 + ((y - 35) / 25) ** 2 + ((x - middle) / 16) ** 2 < 1] = value
    instances[(z - 24) ** 2 + (y - 45) ** 2 + (x - 60) ** 2 < 16] = 1
    instances[(z - 16) ** 2 + (y - 28) ** 2 + (x - 20) ** 2 < 10] = 2
    hu = np.where(lungs > 0, -850, 40) + 800 * (instances > 0)
    volume = Volume(hu.astype(np.float32), AFFINE)
    nodules = tuple(
        replace(outlined_nodule(instances == number, volume, number), attenuation=kind)
        for number, kind in enumerate(KINDS, start=1)
    )
    source = Provenance("made here", "none needed", "drawn")
    return Case("a", "a", {"ct": volume}, source, lungs, nodules=nodules, instances=instances, knows_nodules=True)


def where(case: Case, number: int) -> NDArray[np.float64]:
    """Middle of a nodule's voxels, in patient space."""
    assert case.instances is not None
    index = np.argwhere(case.instances == number).mean(axis=0)
    return np.asarray((case.volume.affine @ np.append(index, 1.0))[:3])


@pytest.mark.parametrize("change", [partial(thinned, every=2), coronal, turned])
def test_image_labels_and_truth_of_a_changed_scan_stay_together(case: Case, change: Callable[[Case], Case]) -> None:
    changed = change(case)
    hu = changed.volume.array

    assert changed.labels is not None
    assert changed.instances is not None
    for number, nodule in enumerate(changed.nodules, start=1):
        assert np.linalg.norm(where(changed, number) - nodule.centre_mm) < 1.5
        assert np.median(hu[changed.instances == number]) == -50
    assert np.median(hu[changed.labels > 0]) == -850
    for value in (1, 2):
        assert where(replace(changed, instances=changed.labels), value)[0] * (3 - 2 * value) > 0, "left stays left"


def test_another_order_of_storing_moves_nothing_and_a_turn_does(case: Case) -> None:
    stored, rolled = coronal(case), turned(case)
    index = np.array([3, 40, 50])
    at = (case.volume.affine @ np.append(index, 1.0))[:3]
    z, y, x = np.rint(np.linalg.inv(stored.volume.affine) @ np.append(at, 1.0))[:3].astype(int)

    assert stored.volume.array[z, y, x] == case.volume.array[3, 40, 50]
    assert stored.volume.array.shape == (70, 40, 84)
    assert stored.nodules == case.nodules
    assert np.linalg.norm(where(rolled, 1) - where(case, 1)) > 5
    assert thinned(case, 4).volume.spacing_mm == (8.0, 1.5, 1.5)
    assert len({condition.name for condition in conditions()}) == len(conditions())


class Knowing:
    """Marks the truth, and something unsure beside it; of a scan that is too noisy it says nothing."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.asked = 0

    def predict(self, volume: Volume, *, timeout_s: float) -> Prediction:
        self.asked += 1
        if volume.array.max() > 1000:
            raise ModelTimeout("The model did not answer within 1 s.")
        assert self.case.labels is not None
        assert self.case.instances is not None
        lungs = LabelMap(self.case.labels, {1: "left lung", 2: "right lung"})
        sure = (Detection("nodule", 0.9, {"attenuation": {"solid": 1.0, "ground-glass": 0.0}}),)
        instances = np.where(self.case.instances == 1, 1, 0).astype(np.uint8)
        instances[:2, :3, :3] = 2
        return Prediction((lungs,), {"infer": 1.0}, "cpu", (*sure, Detection("nodule", 0.2)), instances)


def test_each_scan_is_asked_about_once_and_summed_up_at_the_score_that_is_reported(case: Case, tmp_path: Path) -> None:
    model = Knowing(case)
    noisy = replace(case, images={"ct": Volume(case.volume.array + 2000, AFFINE)})
    wanted = (Condition("reference"), Condition("noise", {"noise_hu": 900}))
    drawn: list[tuple[int, int]] = []
    steps: list[str] = []

    def scans(seed: int, todo: Sequence[Condition]) -> Iterator[Case]:
        drawn.append((seed, len(todo)))
        yield from (noisy if condition.plan else case for condition in todo)

    def run(seeds: Sequence[int], some: Sequence[Condition]) -> ResultLog:
        log = ResultLog(tmp_path / "robustness.jsonl", {"bundle": "x"})
        run_robustness(model, seeds, some, scans, log, timeout_s=1, step=steps.append)
        return log

    run([7], wanted[:1])
    log = run([7, 8], wanted)
    reference, failed = rows(log, [7, 8], wanted, least_score=0.5)

    assert drawn == [(7, 1), (7, 1), (8, 2)], "what is in the log is not drawn again"
    assert model.asked == 4
    assert len(steps) == 5
    assert (reference.scans, reference.found, reference.nodules) == (2, 2, 4)
    assert (reference.found_larger, reference.larger) == (2, 4)
    assert (reference.lung_dice, reference.dice, reference.named_right) == (1, 1, 1)
    assert reference.false_per_scan == 0, "what is below that score is not reported"
    assert rows(log, [7], wanted, least_score=0.1)[0].false_per_scan == 1
    assert (failed.scans, failed.nodules) == (0, 0)
    assert "within 1 s" in failed.failed[0]
    lines = robustness_table([reference, failed])
    assert lines[2] == "| reference | 1.000 (1.000) | 2 of 4 | 2 of 4 | 0.00 | 1.00 | 1.00 |"
    assert {line.count("|") for line in lines} == {8}
