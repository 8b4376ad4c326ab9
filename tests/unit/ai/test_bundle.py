"""A bundle's answer lies where the patient's anatomy lies, however the scan was turned."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ai.bundle import Bundle
from ai.contract import BundleError, ModelCrashed, ModelInvalidOutput, Volume
from ai.digest import bundle_digest
from ai.weights import network_of
from tests.unit.ai.bundles import ARGMAX, INVERT, SIDES, TO_5_MM, TO_RAS, two_blobs, write_bundle

_L, _P, _S = np.eye(3)
_TURNED = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]
)
# Directions in which slices, rows and columns grow.
ORIENTATIONS = {
    "axial, feet to head": (_S, _P, _L),
    "axial, head to feet": (-_S, _P, _L),
    "prone": (_S, -_P, -_L),
    "coronal": (_P, -_S, _L),
    "sagittal": (_L, -_S, _P),
    "sagittal from the right": (-_L, -_S, _P),
    "oblique": tuple(_TURNED[:, n] for n in (2, 1, 0)),
}


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(write_bundle(tmp_path_factory.mktemp("b") / "sides"))


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_left_is_left_in_every_orientation(name: str, sides: Bundle) -> None:
    volume = two_blobs(np.stack(ORIENTATIONS[name], axis=1), (3.0, 1.5, 2.0))

    prediction = sides.predict(volume)

    left, right = prediction.mask("left side"), prediction.mask("right side")
    assert np.array_equal(left | right, volume.array > 100)
    assert left.sum() > 3 * right.sum() > 0  # the left blob is the large one
    assert _centre_mm(left, volume) == pytest.approx((33, -35, 705), abs=1.0)
    assert _centre_mm(right, volume) == pytest.approx((-27, -50, 690), abs=1.0)


OF_A_COPY = {**INVERT, "transform": "$copy.deepcopy(@preprocessing)"}  # as VISTA3D does


@pytest.mark.parametrize(
    ("name", "after"),
    [("inverts", [INVERT, ARGMAX]), ("inverts_copy", [OF_A_COPY, ARGMAX]), ("leaves_it", [ARGMAX])],
)
def test_an_answer_on_another_grid_comes_back_to_the_source(
    name: str, after: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path / name, preprocessing=[TO_RAS, TO_5_MM], postprocessing=after)
    file = folder / "configs" / "inference.json"
    file.write_text(json.dumps({"imports": ["$import copy"], **json.loads(file.read_text())}))
    bundle = Bundle.load(folder)
    for directions in itertools.islice(ORIENTATIONS.values(), 5):
        volume = two_blobs(np.stack(directions, axis=1), (4.0, 2.0, 2.0))

        left = bundle.predict(volume).mask("left side")

        assert left.shape == volume.array.shape
        truth = (volume.array > 100) & (_lps(volume)[..., 0] > 3)
        assert 2 * (left & truth).sum() / (left.sum() + truth.sum()) > 0.85  # 5 mm voxels, chosen by the nearest
        assert _centre_mm(left, volume) == pytest.approx((33, -35, 705), abs=1.5)


@pytest.mark.parametrize("saver", ["SaveImaged", "SaveClassificationd"])
def test_what_writes_files_is_left_out(saver: str, tmp_path: Path) -> None:
    table = {"filename": "answers.csv"} if saver == "SaveClassificationd" else {}
    writes = {"_target_": saver, "keys": "pred", "output_dir": str(tmp_path / "written"), **table}
    folder = write_bundle(tmp_path / saver.lower(), postprocessing=[INVERT, ARGMAX, writes])

    Bundle.load(folder).predict(two_blobs(np.eye(3)[:, ::-1], (5.0, 5.0, 5.0)))

    assert not (tmp_path / "written").exists()


def test_the_same_volume_gives_the_same_bytes(sides: Bundle) -> None:
    volume = two_blobs(np.stack((_S, _P, _L), axis=1), (3.0, 2.0, 2.0))

    first, second = sides.predict(volume), sides.predict(volume)

    assert first.label_maps[0].array.tobytes() == second.label_maps[0].array.tobytes()
    assert list(first.steps_s) == ["preprocess", "infer", "postprocess"]


def test_a_bundle_whose_code_goes_back_to_training_still_gives_the_same_bytes(tmp_path: Path) -> None:
    network = SIDES.replace("image > self.threshold", "image > self.threshold + 1000 * self.training").replace(
        "        return torch.cat",
        "        self.train()  # as MONAI's gradients leave what is new to them\n        return torch.cat",
    )
    bundle = Bundle.load(write_bundle(tmp_path / "trains", network=network))
    volume = two_blobs(np.stack((_S, _P, _L), axis=1), (3.0, 2.0, 2.0))

    first, second = bundle.predict(volume), bundle.predict(volume)

    assert first.mask("left side").any()
    assert first.label_maps[0].array.tobytes() == second.label_maps[0].array.tobytes()


def test_nothing_found_is_an_answer(sides: Bundle) -> None:
    volume = Volume(np.full((6, 8, 10), -900, np.float32), np.eye(4))

    assert not sides.predict(volume).mask("left side").any()


def test_overlapping_outputs_lie_in_different_maps(tmp_path: Path) -> None:
    network = SIDES.replace("1 - bright, bright * (1 - right), bright * right", "bright, bright * right")
    names = ("both sides", "right side")
    bundle = Bundle.load(write_bundle(tmp_path / "overlap", network=network, channels=names, postprocessing=[INVERT]))
    volume = two_blobs(np.stack((_S, _P, _L), axis=1), (3.0, 2.0, 2.0))

    prediction = bundle.predict(volume)

    assert len(prediction.label_maps) == 2
    assert np.array_equal(prediction.mask("both sides"), volume.array > 100)
    assert 0 < prediction.mask("right side").sum() < prediction.mask("both sides").sum()


@pytest.mark.parametrize(
    ("fault", "answer", "reason"),
    [
        ("nan", "return image / 0 * torch.ones(1, 3, 1, 1, 1)", "NaN"),
        ("grid", "return torch.zeros(1, 3, 4, 4, 4)", "voxels"),
        ("label", "return torch.nn.functional.one_hot(torch.full(image.shape[2:], 4)).movedim(-1, 0)[None]", "names"),
        ("flat", "return image.flatten()", "not one image"),
    ],
)
def test_an_answer_that_cannot_be_used_is_refused(fault: str, answer: str, reason: str, tmp_path: Path) -> None:
    network = SIDES.replace("bright = (", f"{answer}\n        bright = (")
    bundle = Bundle.load(write_bundle(tmp_path / fault, network=network))

    with pytest.raises(ModelInvalidOutput, match=reason):
        bundle.predict(Volume(np.zeros((5, 6, 7), np.float32), np.eye(4)))


def test_an_error_in_the_bundle_s_code_is_named(tmp_path: Path) -> None:
    network = SIDES.replace("bright = (", "raise RuntimeError('no such layer')\n        bright = (")

    with pytest.raises(ModelCrashed, match="RuntimeError: no such layer"):
        Bundle.load(write_bundle(tmp_path / "raises", network=network)).predict(two_blobs(np.eye(3), (5.0, 5.0, 5.0)))


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("configs/metadata.json", "metadata"),
        ("configs/inference.json", "inference"),
        ("models/model.pt", "model.pt"),
    ],
)
def test_an_incomplete_bundle_says_what_is_missing(missing: str, reason: str, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "incomplete")
    (folder / missing).unlink()

    with pytest.raises(BundleError, match=reason):
        Bundle.load(folder)


def test_labels_that_were_decided_stay_whole_when_the_bundle_inverts_linearly(tmp_path: Path) -> None:
    after = [ARGMAX, {**INVERT, "nearest_interp": False}]
    bundle = Bundle.load(write_bundle(tmp_path / "linear", preprocessing=[TO_RAS, TO_5_MM], postprocessing=after))
    volume = two_blobs(np.stack((_S, _P, _L), axis=1), (4.0, 2.0, 2.0))

    prediction = bundle.predict(volume)

    assert prediction.mask("left side").sum() > 3 * prediction.mask("right side").sum() > 0
    assert _centre_mm(prediction.mask("left side"), volume) == pytest.approx((33, -35, 705), abs=2.5)


def test_a_bundle_that_names_a_gpu_and_loads_arrays_runs_on_the_node_s_device(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "gpu")
    torch.save({"threshold": np.float64(100.0), "of": np.arange(3)}, folder / "models" / "searched.pt")
    file = folder / "configs" / "inference.json"
    inference = json.loads(file.read_text())
    inference["imports"] = ["$import torch"]
    inference["searched"] = "$torch.load(@bundle_root + '/models/searched.pt', map_location=torch.device('cuda'))"
    inference["shift"] = "$torch.ones(1, device=torch.device(\"cuda:0\")) * float(@searched['of'][1])"
    inference["preprocessing"]["transforms"].append(
        {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x * @shift"}
    )
    file.write_text(json.dumps(inference))

    prediction = Bundle.load(folder).predict(two_blobs(np.eye(3), (5.0, 5.0, 5.0)))

    assert prediction.device == "cpu"
    assert prediction.mask("left side").any()


def test_a_torchscript_program_needs_no_network_definition(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "script")
    volume = two_blobs(np.eye(3), (5.0, 5.0, 5.0))
    wanted = Bundle.load(folder).predict(volume)
    network = network_of(folder)
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network.eval(), torch.zeros(1, 1, 25, 19, 13))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, folder / "models" / "model.ts")
    (folder / "models" / "model.pt").unlink()

    prediction = Bundle.load(folder).predict(volume)

    assert np.array_equal(prediction.label_maps[0].array > 0, wanted.label_maps[0].array > 0)


def test_weights_that_hold_code_are_not_run(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "pickled")
    trap = tmp_path / "trap"
    (folder / "models" / "model.pt").write_bytes(b"cos\nsystem\n(S'touch " + str(trap).encode() + b"'\ntR.")

    with pytest.raises(BundleError):
        Bundle.load(folder)
    assert not trap.exists()


def test_the_digest_changes_with_one_byte_and_with_a_name_but_not_with_the_place(tmp_path: Path) -> None:
    one, other = write_bundle(tmp_path / "a" / "same"), write_bundle(tmp_path / "b" / "same")
    assert bundle_digest(one) == bundle_digest(other)

    weights = other / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    changed = bundle_digest(other)
    (other / "configs" / "inference.json").rename(other / "configs" / "inference.yaml")

    assert len({bundle_digest(one), changed, bundle_digest(other)}) == 3


def _lps(volume: Volume) -> np.ndarray:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.array.shape), indexing="ij"), axis=-1)
    return np.asarray(index @ volume.affine[:3, :3].T + volume.affine[:3, 3])


def _centre_mm(mask: np.ndarray, volume: Volume) -> tuple[float, ...]:
    return tuple(_lps(volume)[mask].mean(axis=0).tolist())
