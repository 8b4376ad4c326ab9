"""Images that two models made are compared value by value, on the slices that both lie on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ai.contract import Prediction
from dicom_node.compare.images import differing
from dicom_node.spool import Spool
from tests.unit.results.case import make_case
from tests.unit.results.test_maps import made, plus


def test_images_are_compared_value_by_value(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 0)
    spool.prepare()
    case = make_case(tmp_path / "ct")
    other = plus(case, 110.25).images["denoised"].copy()
    other[3, 4, 5] += 90
    files = []
    for number, prediction in enumerate((plus(case), Prediction((), {}, "cpu", images={"denoised": other}))):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(made(case, spool, prediction).files["pm"])

    (found,) = differing(files[:1], files[1:])

    assert (found.label, found.unit, found.largest) == ("Denoised CT", "Hounsfield unit", 100.0)
    assert found.mean_absolute == pytest.approx(10 + 90 / other.size, abs=1e-6)
    assert found.correlation is not None
    expected = np.corrcoef(plus(case).images["denoised"].ravel(), other.ravel())[0, 1]
    assert found.correlation == pytest.approx(expected, abs=1e-9)
    assert differing(files[:1], []) == ()
    assert np.isclose(differing(files[1:], files[:1])[0].mean_absolute, found.mean_absolute)
