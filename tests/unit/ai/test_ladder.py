"""What is tried when memory runs out: each step down, what it changes, what stays, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer

from ai.ladder import climb

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # the latter is named only: nothing is computed on it
IMAGE = torch.arange(32.0 * 32 * 32).reshape(1, 1, 32, 32, 32)


class Needs(torch.nn.Module):
    """A network without weights that runs out of memory where it is asked for too much, and says where it was put."""

    def __init__(self, most_windows: int = 99) -> None:
        super().__init__()
        self.most_windows = most_windows
        self.put: list[str] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[0] > self.most_windows:
            raise torch.OutOfMemoryError
        return image + 1

    def to(self, *where: Any, **_: Any) -> Needs:
        self.put.append(str(where[0]))
        return self


def asked(
    network: Needs, inferer: Any, device: torch.device, *, stitched: bool = True, on_device: bool = True
) -> tuple[Any, list[str]]:
    """Ask with a memory that lacks room for stitching there, or for the image at all."""
    told: list[str] = []

    def ask(where: torch.device) -> torch.Tensor:
        if (not stitched and inferer.device != CPU) or (not on_device and where.type == "cuda"):
            raise torch.OutOfMemoryError
        return torch.as_tensor(inferer(IMAGE, network))

    return climb(ask, inferer, network, device, told.append), told


def windows(**changes: Any) -> SlidingWindowInferer:
    return SlidingWindowInferer(**{"roi_size": [16, 16, 16], "sw_batch_size": 4, **changes})


def test_what_fits_is_asked_once_and_nothing_is_changed() -> None:
    network, inferer = Needs(), windows()

    answer, told = asked(network, inferer, CPU)

    assert torch.equal(answer, IMAGE + 1)
    assert (told, network.put, inferer.sw_batch_size, inferer.device) == ([], [], 4, None)


def test_first_windows_are_computed_one_at_a_time() -> None:
    network, inferer = Needs(most_windows=1), windows()

    answer, told = asked(network, inferer, CPU)

    assert torch.equal(answer, IMAGE + 1)
    assert told == ["out of memory, all at once"]
    assert (inferer.sw_batch_size, inferer.device) == (1, None)
    assert asked(network, inferer, CPU)[1] == [], "what made it fit stays"


def test_then_they_are_stitched_on_the_cpu() -> None:
    network, inferer = Needs(), windows()

    answer, told = asked(network, inferer, CPU, stitched=False)

    assert torch.equal(answer, IMAGE + 1)
    assert told == ["out of memory, all at once", "out of memory, one window at a time"]
    assert (inferer.sw_batch_size, inferer.device, network.put) == (1, CPU, [])
    assert asked(network, inferer, CPU, stitched=False)[1] == []


def test_at_last_all_is_done_on_the_cpu_and_the_network_goes_back() -> None:
    network, inferer = Needs(), windows()

    answer, told = asked(network, inferer, GPU, on_device=False)

    assert torch.equal(answer, IMAGE + 1)
    assert told == [
        "out of memory, all at once",
        "out of memory, one window at a time",
        "out of memory, stitched on the CPU",
    ]
    assert network.put == ["cpu", "cuda"]
    assert asked(network, inferer, GPU, on_device=False)[1] == ["out of memory, all at once"], "one step is left to try"


@pytest.mark.parametrize(
    ("inferer", "device", "tried"),
    [
        (windows(), GPU, ["all at once", "one window at a time", "stitched on the CPU", "on the CPU"]),
        (windows(sw_batch_size=1), GPU, ["all at once", "stitched on the CPU", "on the CPU"]),
        (windows(device="cpu"), CPU, ["all at once", "one window at a time"]),
        (lambda image, network: network(image), GPU, ["all at once", "on the CPU"]),
        (lambda image, network: network(image), CPU, ["all at once"]),
    ],
)
def test_what_fits_nowhere_ends_with_the_last_step_that_there_is(
    inferer: Any, device: torch.device, tried: list[str]
) -> None:
    network, told = Needs(most_windows=0), list[str]()

    with pytest.raises(torch.OutOfMemoryError):
        climb(lambda where: inferer(IMAGE, network), inferer, network, device, told.append)

    assert told == [f"out of memory, {step}" for step in tried]
    assert network.put == (["cpu", "cuda"] if device is GPU else []), "the network goes back also then"
