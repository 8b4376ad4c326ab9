"""Detections are judged as LUNA16 judges them."""

from __future__ import annotations

import numpy as np
import pytest
from monai.metrics.froc import compute_fp_tp_probs_nd, compute_froc_curve_data, compute_froc_score
from numpy.typing import NDArray

from ai.data.nodule import Nodule
from ai.evaluate.froc import RATES, Candidate, Scan, at_least, by_attenuation, by_size, froc, match, performance, table


def test_a_hit_lies_within_the_radius_counts_once_and_excluded_findings_count_as_nothing() -> None:
    nodules = (Nodule((0, 0, 0), 10), Nodule((50, 0, 0), 10, excluded=True))
    candidates = (
        Candidate((4.9, 0, 0), 0.3),
        Candidate((0, 0, 0), 0.8),
        Candidate((5.1, 0, 0), 0.9),
        Candidate((50, 0, 1), 0.95),
    )
    scan = Scan("a", candidates, nodules)

    matched = match(scan)
    curve = froc([scan])

    assert list(matched.hit_by) == [1, 3]
    assert list(matched.false) == [2]
    assert curve.nodules == 1
    assert list(curve.fp_per_scan) == [0, 1, 1]  # nothing, the false one at 0.9, the hit at 0.8
    assert list(curve.sensitivity) == [0, 0, 1]
    assert list(curve.threshold) == [np.inf, 0.9, 0.8]


def test_the_operating_points_of_a_curve_drawn_by_hand() -> None:
    """Two scans, two nodules: hit at 0.9, false at 0.8, false at 0.7, hit at 0.6."""
    near, far = (0.0, 0.0, 0.0), (99.0, 0.0, 0.0)
    first = Scan("a", (Candidate(near, 0.9), Candidate(far, 0.8)), (Nodule(near, 6),))
    second = Scan("b", (Candidate(far, 0.7), Candidate(near, 0.6)), (Nodule(near, 6),))

    found = performance([first, second], resamples=200)

    assert [found.curve.at(rate) for rate in RATES] == [0.5, 0.5, 0.5, 1, 1, 1, 1]
    assert found.cpm.value == pytest.approx(5.5 / 7)
    # Drawn twice, the first scan alone scores 1; the second alone has its nodule behind one false positive per scan.
    assert found.cpm.high == 1
    assert found.cpm.low == pytest.approx(4 / 7)
    assert performance([first, second], resamples=200).cpm == found.cpm


def test_the_curve_is_that_of_monai() -> None:
    rng = np.random.default_rng(5)
    scans, false, hits, targets = [], [], [], 0
    for index in range(12):
        mask = np.zeros((40, 40, 40), dtype=np.int64)
        nodules = []
        for label in range(1, 4):
            centre = (10 * label, 20, 20)
            distance = np.linalg.norm(np.indices(mask.shape).T - centre, axis=-1).T
            mask[distance < 4] = label
            nodules.append(Nodule((float(centre[0]), 20.0, 20.0), 8.0, excluded=label == 2))
        points = rng.integers(12, 34, size=(20, 3))
        points[:, 1:] = rng.integers(14, 26, size=(20, 2))
        scores = rng.integers(1, 33, size=20).astype(np.float32) / 32  # with ties
        scans.append(Scan(str(index), tuple(map(_candidate, points, scores)), tuple(nodules)))
        fp, tp, count = compute_fp_tp_probs_nd(scores, points, mask, labels_to_exclude=[2])
        false.append(fp)
        hits.append(tp[[0, 2]])
        targets += count
    fps, sensitivity = compute_froc_curve_data(np.concatenate(false), np.concatenate(hits), targets, len(scans))

    curve = froc(scans)

    assert curve.nodules == targets == 24
    assert curve.sensitivity[-1] < 1  # with nothing missed, MONAI leaves its lowest threshold out
    assert curve.fp_per_scan == pytest.approx(fps[::-1])
    assert curve.sensitivity == pytest.approx(sensitivity[::-1])
    assert np.mean([curve.at(r) for r in RATES]) == pytest.approx(compute_froc_score(fps, sensitivity, RATES))


def test_classes_are_judged_apart_and_share_the_false_positives() -> None:
    nodules = (Nodule((0, 0, 0), 4, "ground-glass"), Nodule((50, 0, 0), 6, "solid"), Nodule((90, 0, 0), 12, "solid"))
    candidates = (Candidate((50, 0, 0), 0.9), Candidate((70, 0, 0), 0.8), Candidate((90, 0, 0), 0.7))
    scans = [Scan("a", candidates, nodules), Scan("b", (), ())]

    sizes, kinds = by_size(scans, resamples=50), by_attenuation(scans, resamples=50)

    assert {name: found.curve.at(8) for name, found in sizes.items()} == {
        "3 to 6 mm": 0,
        "6 to 10 mm": 1,
        "10 to 20 mm": 1,
    }
    assert sizes["10 to 20 mm"].curve.at(0.25) == 0
    assert {name: found.curve.at(8) for name, found in kinds.items()} == {"solid": 1, "ground-glass": 0}
    assert froc(scans, at_least(6)).nodules == 2
    assert table(kinds)[2].startswith("| solid | 2 | 2 | 0.500 | 0.500 | 1.000 |")


def test_scans_without_nodules_have_no_sensitivity_and_no_scans_no_curve() -> None:
    assert np.isnan(performance([Scan("a", (Candidate((0, 0, 0), 0.5),), ())]).cpm.value)
    with pytest.raises(ValueError, match="no scan"):
        froc([])
    with pytest.raises(ValueError, match="not a number"):
        froc([Scan("a", (Candidate((0, 0, 0), float("nan")),), ())])


def _candidate(point: NDArray[np.int64], score: float) -> Candidate:
    return Candidate((float(point[0]), float(point[1]), float(point[2])), float(score))
