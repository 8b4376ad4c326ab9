"""What crosses between the node and its models."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ai.contract import LabelMap, ModelError, ModelInvalidOutput, Prediction, Volume


def test_spacing_is_that_of_the_affine_whatever_the_orientation() -> None:
    affine = np.array([[0, 0, 0.7, 1], [0, 0.8, 0, 2], [-2.5, 0, 0, 3], [0, 0, 0, 1.0]])

    volume = Volume(np.zeros((2, 3, 4), np.float32), affine)

    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


def test_mask_finds_an_output_in_whichever_map_it_lies() -> None:
    first = LabelMap(np.array([[[0, 1, 2]]], np.uint8), {1: "lung", 2: "liver"})
    second = LabelMap(np.array([[[0, 1, 1]]], np.uint8), {1: "tumour"})
    prediction = Prediction((first, second), {}, "cpu")

    assert prediction.mask("liver").tolist() == [[[False, False, True]]]
    assert prediction.mask("tumour").tolist() == [[[False, True, True]]]


def test_an_output_that_the_model_does_not_have_is_an_error_that_names_those_it_has() -> None:
    prediction = Prediction((LabelMap(np.zeros((1, 1, 1), np.uint8), {1: "lung"}),), {}, "cpu")

    with pytest.raises(ModelInvalidOutput, match="lung"):
        prediction.mask("heart")
    assert issubclass(ModelInvalidOutput, ModelError)


def test_asking_a_model_loads_no_framework_into_the_process_that_asks() -> None:
    code = "import sys, ai.process; sys.exit(any(name in sys.modules for name in ('torch', 'monai', 'scipy')))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
