"""Slices and overlays as PNG, straight from the spool: what a person compares with the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels.processing import apply_rescale
from pydicom.pixels.utils import iter_pixels, pixel_array

from dicom_node.codestream import check_frame
from dicom_node.errors import GeometryError, SpoolError
from dicom_node.pixels import one_frame
from dicom_node.spool import Spool

# (centre, width) in Hounsfield units; the names are those that people use.
WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600, 1500),
    "soft tissue": (40, 400),
    "mediastinum": (50, 350),
    "bone": (400, 1800),
    "brain": (40, 80),
}
_PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0))  # Okabe, Ito
_FILL = 0.28  # how much of a segment's inside is its colour; its border is all colour
_FAST = 1  # of zlib: the slice is looked at for a second


@dataclass(frozen=True, slots=True)
class DrawnSegment:
    """One segment of a SEG, as it is drawn. `slices` are the UIDs of the images it marks."""

    number: int
    label: str
    color_rgb: tuple[int, int, int]
    slices: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """A segmentation, frame by frame.

    Attributes
    ----------
    frames : mapping of str to tuple of (int, int)
        Of each source image, by SOP Instance UID: segment number (0: the frame's values name it) and frame index.
    """

    path: Path
    segments: tuple[DrawnSegment, ...]
    frames: Mapping[str, tuple[tuple[int, int], ...]]
    size: tuple[int, int]


def slice_png(spool: Spool, relative: str, window: tuple[float, float] | None, *, frame: int = 0) -> bytes:
    """Draw one image.

    Parameters
    ----------
    relative : str
        Its file in the spool.
    window : (float, float), optional
        Centre and width, in rescaled values; None takes those of the image, or else its own range.
    frame : int
        Counted from 0.

    Raises
    ------
    SpoolError
        If the file is gone or cannot be decoded.
    GeometryError
        If it would fill the memory.
    """
    return _png(Image.fromarray(grey(spool, relative, window, frame=frame)))


def overlay_png(overlay: Overlay, sop_instance_uid: str, shown: frozenset[int] | None = None) -> bytes:
    """Draw the segments that lie on one image, transparent elsewhere.

    Parameters
    ----------
    shown : frozenset of int, optional
        Segment numbers; None draws all.
    """
    rgba = np.zeros((*overlay.size, 4), np.uint8)
    colors = {segment.number: segment.color_rgb for segment in overlay.segments}
    for number, index in overlay.frames.get(sop_instance_uid, ()):
        frame = _frame(overlay.path, index)
        for each in (number,) if number else (n for n in np.unique(frame) if n in colors):
            if shown is None or each in shown:
                _paint(rgba, frame != 0 if number else frame == each, colors[int(each)])
    return _png(Image.fromarray(rgba))


@lru_cache(maxsize=32)
def read_overlay(path: Path) -> Overlay:
    """Read what a SEG marks; its pixels stay in the file. A stored object never changes, so this is kept.

    Raises
    ------
    SpoolError
        If the file cannot be read as a segmentation.
    """
    try:
        seg = dcmread(path, defer_size=1024)
        segments = [_segment(item, n) for n, item in enumerate(seg.SegmentSequence)]
        frames = _frames(seg)
        size = (int(seg.Rows), int(seg.Columns))
    except Exception as error:  # whatever the parser says of broken bytes
        raise SpoolError(f"The segmentation cannot be read: {type(error).__name__}.") from error
    marked: dict[int, list[str]] = {}
    for uid, found in frames.items():
        for number, _ in found:
            marked.setdefault(number, []).append(uid)
    drawn = tuple(
        DrawnSegment(number, label, color, tuple(marked.get(number, ()) or marked.get(0, ())))
        for number, label, color in segments
    )
    return Overlay(path, drawn, frames, size)


def packed_masks(overlay: Overlay) -> dict[int, dict[str, NDArray[np.uint8]]]:
    """Read all that a SEG marks, eight voxels in a byte: hundreds of slices and segments fit into memory.

    Returns
    -------
    dict of int to dict of str to ndarray of uint8
        Segment number -> SOP Instance UID of the image -> its voxels, as `numpy.packbits` packs them; empty ones are
        left out.
    """
    at = {index: (uid, number) for uid, frames in overlay.frames.items() for number, index in frames}
    masks: dict[int, dict[str, NDArray[np.uint8]]] = {segment.number: {} for segment in overlay.segments}
    for index, frame in enumerate(iter_pixels(overlay.path, raw=True)):
        if index not in at:
            continue
        uid, number = at[index]
        for each in (number,) if number else (int(n) for n in np.unique(frame)):
            mask = frame != 0 if number else frame == each
            if each in masks and mask.any():
                masks[each][uid] = np.packbits(mask)
    return masks


def grey(spool: Spool, relative: str, window: tuple[float, float] | None, *, frame: int = 0) -> NDArray[np.uint8]:
    """Window one image.

    Parameters
    ----------
    relative, window, frame
        As `slice_png` takes them.

    Returns
    -------
    ndarray of uint8, shape (rows, columns) or (rows, columns, 3)

    Raises
    ------
    SpoolError
        If the file is gone or cannot be decoded.
    GeometryError
        If it would fill the memory.
    """
    ds = _read(spool, relative)
    try:
        check_frame(ds, frame)
        values = np.asarray(apply_rescale(pixel_array(ds, index=frame), ds), np.float32)
    except GeometryError:
        raise
    except Exception as error:  # codecs throw everything at broken bytes
        raise SpoolError(f"The pixels cannot be decoded: {type(error).__name__}.") from error
    if values.ndim != 2:
        return np.clip(values, 0, 255).astype(np.uint8)
    low, high = _range(window or _own_window(ds), values)
    shown: NDArray[np.uint8] = np.clip((values - low) * (255.0 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)
    return np.subtract(255, shown, dtype=np.uint8) if ds.get("PhotometricInterpretation") == "MONOCHROME1" else shown


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the voxels of a mask that have a neighbour outside of it."""
    inner = mask.copy()
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        inner &= np.roll(mask, step, axis)
    return mask & ~inner


def _read(spool: Spool, relative: str) -> Dataset:
    try:
        return dcmread(spool.path(relative))
    except SpoolError:
        raise
    except Exception as error:
        raise SpoolError(f"The file cannot be read: {type(error).__name__}.") from error


def _segment(item: Dataset, n: int) -> tuple[int, str, tuple[int, int, int]]:
    lab = item.get("RecommendedDisplayCIELabValue")
    color = _rgb(lab) if lab is not None and len(lab) == 3 else _PALETTE[n % len(_PALETTE)]
    return int(item.SegmentNumber), str(item.get("SegmentLabel", "")), color


def _frames(seg: Dataset) -> dict[str, tuple[tuple[int, int], ...]]:
    found: dict[str, list[tuple[int, int]]] = {}
    shared = seg.SharedFunctionalGroupsSequence[0]
    is_map = seg.get("SegmentationType") == "LABELMAP"
    for index, item in enumerate(seg.PerFrameFunctionalGroupsSequence):
        holder = item if "SegmentIdentificationSequence" in item else shared
        number = 0 if is_map else int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for derivation in item.get("DerivationImageSequence", ()):
            for source in derivation.get("SourceImageSequence", ()):
                found.setdefault(str(source.ReferencedSOPInstanceUID), []).append((number, index))
    return {uid: tuple(frames) for uid, frames in found.items()}


@lru_cache(maxsize=64)
def _frame(path: Path, index: int) -> NDArray[Any]:
    return one_frame(path, index)


def _paint(rgba: NDArray[np.uint8], mask: NDArray[np.bool_], color: tuple[int, int, int]) -> None:
    rgba[mask, :3] = color
    rgba[mask, 3] = np.maximum(rgba[mask, 3], round(255 * _FILL))
    rgba[outline(mask), 3] = 255


def _own_window(ds: Dataset) -> tuple[float, float] | None:
    if ds.get("Modality") == "CT" and "WindowCenter" not in ds:
        return WINDOWS["soft tissue"]
    try:
        centre, width = (np.atleast_1d(np.asarray(ds.get(k), float))[0] for k in ("WindowCenter", "WindowWidth"))
    except (TypeError, ValueError, IndexError):
        return None
    return (float(centre), float(width)) if np.isfinite(centre) and width > 0 else None


def _range(window: tuple[float, float] | None, values: NDArray[np.float32]) -> tuple[float, float]:
    if window is not None:
        return window[0] - window[1] / 2, window[0] + window[1] / 2
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(high)


def _rgb(encoded: Any) -> tuple[int, int, int]:
    """Turn a Recommended Display CIELab Value (PS3.3 C.10.7.1.1) into sRGB.

    With the white point D65, as those who write such values (highdicom, pixelmed) and those who show them (OHIF) do.
    """
    scaled = [int(v) / 65535 for v in encoded]
    fy = (scaled[0] * 100 + 16) / 116
    fx, fz = fy + (scaled[1] * 255 - 128) / 500, fy - (scaled[2] * 255 - 128) / 200
    xyz = np.array([_unlab(f) * white for f, white in zip((fx, fy, fz), (0.95047, 1.0, 1.08883), strict=True)])
    to_srgb = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = np.clip(to_srgb @ xyz, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(255 * float(v)) for v in srgb)
    return red, green, blue


def _unlab(f: float) -> float:
    return f**3 if f > 6 / 29 else 3 * (6 / 29) ** 2 * (f - 4 / 29)


def _png(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG", compress_level=_FAST)
    return out.getvalue()
