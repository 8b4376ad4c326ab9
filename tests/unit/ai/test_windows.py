"""As many windows at once as the memory takes, and never more than there are; half precision where a card says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers.inferer import SimpleInferer, SlidingWindowInferer

from ai.bundle import Bundle
from ai.windows import fit_windows, free_bytes
from tests.unit.ai.bundles import SIDES, two_blobs, write_bundle

NETWORK = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 2, 1))
IMAGE = torch.zeros(1, 1, 64, 64, 32)
ONE = 4 * 16**3 * (1 + 4 + 4 + 2)  # the window, and what each part gives


@pytest.mark.parametrize(("windows", "fit"), [(0.4, 1), (3.2, 3), (7.0, 7), (1e9, 32)])
def test_the_number_of_windows_follows_the_free_memory(windows: float, fit: int) -> None:
    inferer = SlidingWindowInferer((16, 16, 16), sw_batch_size=4, overlap=0.25)

    with torch.inference_mode():
        assert fit_windows(inferer, NETWORK, IMAGE, int(2 * windows * ONE)) == fit

    assert inferer.sw_batch_size == fit
    with torch.inference_mode():
        answer = inferer(IMAGE, NETWORK)
    assert isinstance(answer, torch.Tensor)
    assert answer.shape == (1, 2, 64, 64, 32)


def test_a_window_as_large_as_the_image_is_one() -> None:
    inferer = SlidingWindowInferer((-1, 0, 32), sw_batch_size=4)
    with torch.inference_mode():
        assert fit_windows(inferer, NETWORK, torch.zeros(1, 1, 16, 16, 32), 1 << 40) == 8


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("is_program", [False, True])
def test_what_cannot_be_changed_or_watched_stays_as_it_is(*, is_program: bool) -> None:
    network = torch.jit.script(NETWORK) if is_program else NETWORK
    inferer = SlidingWindowInferer((16, 16, 16), sw_batch_size=4) if is_program else SimpleInferer()
    assert fit_windows(inferer, network, IMAGE, 1 << 40) is None
    assert getattr(inferer, "sw_batch_size", 4) == 4


def test_a_limit_of_this_process_is_less_than_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = free_bytes(torch.device("cpu"))
    monkeypatch.setattr("resource.getrlimit", lambda what: (1 << 20, 1 << 20))

    assert free_bytes(torch.device("cpu")) == 0
    assert unlimited > 1 << 20


# Computes in half precision where it is let, and marks nothing where it is not.
HALF = SIDES.replace(
    "        bright = (",
    """        weight = torch.ones(1, 1, 1, 1, 1)
        same = torch.nn.functional.conv3d(image, weight)
        image = same.float() if same.dtype == torch.bfloat16 else image * 0
        bright = (""",
).replace("dim=1)", "dim=1).to(same.dtype)")


@pytest.mark.parametrize("amp", [True, False])
def test_a_bundle_computes_in_half_precision_only_where_its_card_says_so(amp: bool, tmp_path: Path) -> None:
    name = "half" if amp else "full"
    bundle = Bundle.load(write_bundle(tmp_path / name, network=HALF), amp=amp)
    volume = two_blobs(np.eye(3), (3.0, 3.0, 3.0))

    prediction = bundle.predict(volume)

    marked = prediction.mask("left side") | prediction.mask("right side")
    assert np.array_equal(marked, (volume.array > 100) & amp)


def test_a_bundle_says_how_many_windows_it_computed_at_once_and_answers_the_same(tmp_path: Path) -> None:
    layers = SIDES.replace(
        "super().__init__()", "super().__init__()\n        self.one, self.two = torch.nn.ReLU(), torch.nn.ReLU()"
    )
    layers = layers.replace("bright = (", "self.two(self.one(image))\n        bright = (")
    folder = write_bundle(tmp_path / "windowed", network=layers)
    file = folder / "configs" / "inference.json"
    windows = {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "sw_batch_size": 1}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"inferer": windows}))
    volume = two_blobs(np.eye(3), (4.0, 4.0, 4.0))
    plain, fitted = Bundle.load(folder), Bundle.load(folder, fit=True)

    before, first, second = plain.predict(volume), fitted.predict(volume), fitted.predict(volume)

    assert "24 windows at once" in first.steps_s
    assert "windows" not in " ".join([*before.steps_s, *second.steps_s]), "found out once"
    assert np.array_equal(before.label_maps[0].array, first.label_maps[0].array)
    assert np.array_equal(first.label_maps[0].array, second.label_maps[0].array)
