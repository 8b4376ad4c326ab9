"""A model is judged case by case, a stopped run goes on, and the report says what was seen."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ai.__main__ import main
from ai.contract import Detection, ModelCrashed, Prediction, Volume
from ai.data.case import Case, Entry, Provenance
from ai.data.nodule import Nodule, outlined_nodule
from ai.data.prepare import Options, prepare
from ai.evaluate.log import ResultLog
from ai.evaluate.nodule_summary import ALL, LARGER, case_table, nodule_table, summarise
from ai.evaluate.nodules import Result, judge
from ai.evaluate.run import run_set
from ai.evaluate.sets import Evaluation, inserted_set
from tests.unit.ai.bundles import TO_RAS, two_blobs, write_detecting_bundle

AFFINE = np.array([[0, 0, 1.0, -20], [0, 1.0, 0, -20], [2.0, 0, 0, -30], [0, 0, 0, 1.0]])
SURE = {"attenuation": {"solid": 0.9, "part-solid": 0.1, "ground-glass": 0.0}}


class Answering:
    """Marks what it was told to mark, and remembers how often it was asked."""

    def __init__(self, marked: Sequence[tuple[tuple[slice, slice, slice], float]]) -> None:
        self.marked = marked
        self.asked = 0

    def predict(self, volume: Volume, *, timeout_s: float) -> Prediction:
        self.asked += 1
        if not self.marked:
            raise ModelCrashed("The process of model x ended with exit status 1.")
        instances = np.zeros(volume.array.shape, np.uint8)
        for number, (box, _) in enumerate(self.marked, start=1):
            instances[box] = number
        found = tuple(Detection("nodule", score, SURE) for _, score in self.marked)
        return Prediction((), {"load": 1.0, "infer": 2.5}, "cpu", found, instances)


def _box(low: tuple[int, int, int], size: int) -> tuple[slice, slice, slice]:
    return slice(low[0], low[0] + size // 2), slice(low[1], low[1] + size), slice(low[2], low[2] + size)


TRUE, MISSED, FALSE = _box((5, 5, 5), 8), _box((20, 25, 25), 6), _box((5, 28, 28), 6)
SHIFTED = _box((5, 5, 7), 8)


def _case(name: str = "a") -> Case:
    instances = np.zeros((30, 40, 40), np.uint8)
    instances[TRUE], instances[MISSED] = 1, 2
    volume = Volume(np.full(instances.shape, -850, np.float32), AFFINE)
    nodules = (
        replace(outlined_nodule(instances == 1, volume, 1), attenuation="solid", margin="smooth"),
        replace(outlined_nodule(instances == 2, volume, 2), attenuation="ground-glass", margin="smooth"),
        Nodule((0, 0, 0), 3, excluded=True),
    )
    source = Provenance("made <here>", "none needed", "drawn")
    return Case(name, name, {"ct": volume}, source, nodules=nodules, instances=instances, knows_nodules=True)


def test_one_case_found_missed_and_false(tmp_path: Path) -> None:
    result = judge(_case(), Answering([(FALSE, 0.9), (SHIFTED, 0.6)]), 10, tmp_path)

    (outline,) = result.outlines
    assert (outline.nodule, outline.spot) == (0, 1)
    assert outline.dice == pytest.approx(0.75)
    assert (outline.volume_error, outline.diameter_error_mm) == (0, 0)
    assert result.spots[1].centre_mm == pytest.approx((-20 + 10.5, -20 + 8.5, -30 + 13))
    assert result.seconds == 3.5
    kinds = {picture.kind for picture in result.pictures}
    assert kinds == {"missed", "false", "outline"}
    assert all((tmp_path / picture.file).stat().st_size for picture in result.pictures)
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result

    summary = summarise([result], resamples=10, seed=0)
    assert [summary.found[name].curve.nodules for name in (ALL, LARGER)] == [2, 2]
    assert summary.found[ALL].at[1.0].value == 0.5
    assert summary.outlined["share with a volume within 25 %"].value == 1
    assert summary.classes["attenuation"].accuracy.value == 1
    assert "margin" not in summary.classes  # the model was never asked
    assert case_table(summary)[2] == "| a | 2 | 1 | 1 | 0.90 | 0.750 | 3.5 |"
    assert nodule_table(summary)[2].startswith("| a | 9.9 | solid | 0.60 | 1 | 0.750 | 0.512 | 0.512 | +0% |")
    assert "missed" in nodule_table(summary)[3]


def test_a_stopped_run_asks_only_about_what_is_left(tmp_path: Path) -> None:
    def broken() -> Case:
        raise ValueError("The slices are not evenly spaced.")

    cases = {name: Entry(name, name, lambda name=name: _case(name)) for name in "abc"}  # type: ignore[misc]
    first = Evaluation("set", "three cases", (cases["a"], Entry("bad", "bad", broken)), {"seed": 3})
    model, failing = Answering([(TRUE, 0.9)]), Answering([])
    run_set(first, model, tmp_path, {"digest": "d"}, timeout_s=60, step=lambda _: None)
    with (tmp_path / "set.jsonl").open("a") as file:
        file.write('{"id": "b", "spo')  # killed while it wrote
    both = replace(first, entries=(*first.entries, cases["b"]))
    steps: list[str] = []

    results = run_set(both, model, tmp_path, {"digest": "d"}, timeout_s=60, step=steps.append)
    failed = run_set(
        replace(both, entries=(*both.entries, cases["c"])), failing, tmp_path, {"digest": "d"}, timeout_s=60, step=print
    )

    assert model.asked == 2
    assert sorted(steps) == ["a", "b", "bad"]
    assert [result.error for result in results] == ["", "not read: ValueError: The slices are not evenly spaced.", ""]
    assert "exit status 1" in failed[-1].error
    assert failing.asked == 1
    with pytest.raises(ValueError, match="another digest"):
        run_set(both, model, tmp_path, {"digest": "e"}, timeout_s=60, step=print)
    with pytest.raises(ValueError, match="No case was judged"):
        summarise(failed[-1:], resamples=10, seed=0)


def test_a_file_that_holds_no_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text("{}")

    with pytest.raises(ValueError, match="no file of results"):
        ResultLog(tmp_path / "set.jsonl", {"digest": "d"})


def test_the_command_judges_a_bundle_and_writes_a_page_that_needs_no_other_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_detecting_bundle(tmp_path / "judged", preprocessing=[TO_RAS])
    volume = two_blobs(np.array([[0, 0, 1.0], [0, 1, 0], [1, 0, 0]]), (3.0, 1.5, 1.5))
    nodules = (Nodule((33, -35, 705), 36, "solid", volume_ml=24.4), Nodule((-60, -40, 700), 12, "ground-glass"))
    case = Case(
        "blobs", "p", {"ct": volume}, Provenance("made <here>", "none", "known"), nodules=nodules, knows_nodules=True
    )
    prepare([Entry("blobs", "p", lambda: case)], tmp_path / "in", Options(folds=1), {}, lambda _: None)

    arguments = ["evaluate", "nodules", "--bundle", str(bundle), "--source", str(tmp_path / "in"), "--resamples", "20"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0

    printed = capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "| all | 2 | 1 | 0.500 |" in printed  # the sure blob at 0.9, the false one at 0.4
    assert "| 6 mm and more | 2 | 1 | 0.500 |" in printed
    assert _is_well_formed(page)
    assert page.count("<svg") >= 2
    assert "data:image/png;base64," in page
    assert "made &lt;here&gt;" in page
    assert "judged 1.2.3" in page
    assert "1 scan, 2 nodules to find" in page
    assert "one scan: no interval" in page
    assert "nan" not in re.sub('data:image[^"]*', "", page)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert not re.search(r"<(script|link|iframe)\b", page)
    assert main([*arguments]) == 1
    assert "-o" in capsys.readouterr().err


def test_nodules_are_inserted_with_their_truth_and_what_was_there_is_excluded() -> None:
    z, y, x = np.indices((40, 44, 60))
    lungs = np.zeros(z.shape, np.uint8)
    for value, middle in ((1, 45), (2, 14)):
        lungs[((z - 20) / 17) ** 2 + ((y - 22) / 18) ** 2 + ((x - middle) / 13) ** 2 < 1] = value
    affine = np.diag([4.0, 4.0, 4.0, 1.0])[:, [2, 1, 0, 3]]
    volume = Volume(np.where(lungs > 0, -850, 40).astype(np.float32), affine)
    marked = (Nodule((50, 60, 70), 5), Nodule((60, 60, 70), 3, excluded=True))
    source = Provenance("made here", "none needed", "drawn")
    case = Case("p", "p", {"ct": volume}, source, lungs, nodules=marked, knows_nodules=True)

    (entry,) = inserted_set(Entry("p", "p", lambda: case), 1, 7, nodules=3).entries
    inserted = entry.read()

    own = [nodule for nodule in inserted.nodules if nodule.instance is None]
    new = [nodule for nodule in inserted.nodules if nodule.instance is not None]
    assert [(nodule.diameter_mm, nodule.excluded) for nodule in own] == [(5, True), (3, True)]
    assert new
    for nodule in new:
        index = np.rint(np.linalg.inv(affine) @ [*nodule.centre_mm, 1])[:3].astype(int)
        assert lungs[tuple(index)] > 0
        assert nodule.volume_ml == pytest.approx(np.pi / 6 * nodule.diameter_mm**3 / 1000, rel=1e-6)
    assert np.array_equal(entry.read().volume.array, inserted.volume.array)


class _Balanced(HTMLParser):
    """Counts open elements; `void` ones have no end."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def _is_well_formed(page: str) -> bool:
    parser = _Balanced()
    parser.feed(page)
    return not parser.open and not parser.wrong
