"""Which device computes."""

from __future__ import annotations


def device_of(wanted: str) -> str:
    """Name the device: ``auto`` is the GPU where there is one, anything else stays as it is."""
    if wanted != "auto":
        return wanted
    import torch  # here: commands that only parse their options need none

    return "cuda" if torch.cuda.is_available() else "cpu"
