"""The card of a model: what it accepts, what it marks and in which codes, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dicom_node.domain.finding import Code


class OutputKind(StrEnum):
    """Kinds of result objects; `results.BUILDERS` has one builder for each."""

    SEG = "seg"
    SR = "sr"


@dataclass(frozen=True, slots=True)
class SegmentCard:
    """How one output of the bundle becomes a coded segment."""

    output: str
    label: str
    category: Code
    type: Code
    laterality: Code | None = None
    region: Code | None = None
    color_rgb: tuple[int, int, int] = (128, 174, 128)
    measurements: tuple[str, ...] = ("volume",)


@dataclass(frozen=True, slots=True)
class Accepts:
    """Which volumes the model was made for; anything else is refused before inference."""

    modality: tuple[str, ...]
    min_slices: int = 1
    max_slice_spacing_mm: float | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model as the node knows it.

    `digest` is the SHA-256 over the whole bundle, `weights_digest` that over its weights.
    """

    name: str
    version: str
    title: str
    manufacturer: str
    summary: str
    training: str
    bundle: Path
    digest: str
    weights_digest: str
    timeout_s: float
    accepts: Accepts
    segments: tuple[SegmentCard, ...]
    outputs: tuple[OutputKind, ...] = (OutputKind.SEG, OutputKind.SR)
