"""A picture of a segmentation over its CT, drawn from the bytes that the PACS gave back."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from highdicom.seg import segread
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmread

WINDOW_CENTER_HU, WINDOW_WIDTH_HU = -500.0, 1600.0
PANEL_PX = 460
OPACITY = 0.45


def draw(seg: bytes, slices: list[Path], out: Path) -> dict[str, float]:
    """Draw three planes through the smallest thing that is segmented, and measure the segments again.

    Parameters
    ----------
    seg : bytes
        A DICOM SEG on the grid of the CT.
    slices : list of pathlib.Path
        The CT, one file for each slice, in any order.
    out : pathlib.Path
        The PNG to write.

    Returns
    -------
    dict of str to float
        Volume in millilitres for each segment, counted from the SEG alone.
    """
    datasets = sorted((dcmread(path) for path in slices), key=lambda ds: float(ds.ImagePositionPatient[2]))
    ct = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in datasets])
    masks, colors = _masks(seg, datasets)
    dy, dx = (float(v) for v in datasets[0].PixelSpacing)
    dz = abs(float(datasets[1].ImagePositionPatient[2]) - float(datasets[0].ImagePositionPatient[2]))
    painted = _overlay(ct, masks, colors)
    k, j, i = _middle(masks, ct.shape)
    planes = [
        ("axial", painted[k], dy, dx),
        ("coronal", painted[::-1, j], dz, dx),
        ("sagittal", painted[::-1, :, i], dz, dy),
    ]
    panels = [_panel(name, plane, down, across) for name, plane, down, across in planes]
    volumes = {label: float(mask.sum()) * dx * dy * dz / 1000.0 for label, mask in masks.items()}
    _compose(panels, volumes, colors).save(out)
    return volumes


def _masks(seg: bytes, datasets: Sequence[Dataset]) -> tuple[dict[str, NDArray[np.bool_]], dict[str, tuple[int, ...]]]:
    """Find each frame's slice by the instance that it names, never by its place in the file."""
    ds = segread(BytesIO(seg))
    place = {str(d.SOPInstanceUID): k for k, d in enumerate(datasets)}
    shape = (len(datasets), ds.Rows, ds.Columns)
    items = {item.SegmentNumber: item for item in ds.SegmentSequence}
    masks = {str(item.SegmentLabel): np.zeros(shape, bool) for item in items.values()}
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    for frame, groups in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        masks[str(items[number].SegmentLabel)][place[str(source)]] = frame
    palette = [(239, 138, 98), (103, 169, 207), (144, 200, 110), (220, 190, 90)]
    return masks, {label: palette[n % len(palette)] for n, label in enumerate(masks)}


def _overlay(
    ct: NDArray[np.float64], masks: dict[str, NDArray[np.bool_]], colors: dict[str, tuple[int, ...]]
) -> NDArray[np.uint8]:
    grey = np.clip((ct - WINDOW_CENTER_HU) / WINDOW_WIDTH_HU + 0.5, 0.0, 1.0) * 255.0
    painted = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    for label, mask in masks.items():
        painted[mask] = (painted[mask] * (1 - OPACITY) + np.array(colors[label]) * OPACITY).astype(np.uint8)
    return painted


def _middle(masks: dict[str, NDArray[np.bool_]], shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Planes on which most of the smallest segment lies, a nodule before a lung; the middle when there is none."""
    marked = [mask for mask in masks.values() if mask.any()]
    if not marked:
        return shape[0] // 2, shape[1] // 2, shape[2] // 2
    smallest = min(marked, key=np.count_nonzero)
    k, j, i = (int(smallest.sum(axis=axes).argmax()) for axes in ((1, 2), (0, 2), (0, 1)))
    return k, j, i


def _panel(name: str, plane: NDArray[np.uint8], down_mm: float, across_mm: float) -> Image.Image:
    """Scale one plane to square millimetres and fit it into a square."""
    height, width = plane.shape[0] * down_mm, plane.shape[1] * across_mm
    scale = PANEL_PX / max(height, width)
    image = Image.fromarray(plane).resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    panel = Image.new("RGB", (PANEL_PX, PANEL_PX + 30), "black")
    panel.paste(image, ((PANEL_PX - image.width) // 2, 30 + (PANEL_PX - image.height) // 2))
    ImageDraw.Draw(panel).text((10, 7), name, "white", _font(16))
    return panel


def _compose(panels: list[Image.Image], volumes: dict[str, float], colors: dict[str, tuple[int, ...]]) -> Image.Image:
    sheet = Image.new("RGB", (PANEL_PX * len(panels) + 10 * (len(panels) - 1), PANEL_PX + 66), "black")
    for n, panel in enumerate(panels):
        sheet.paste(panel, (n * (PANEL_PX + 10), 0))
    pen, x, y = ImageDraw.Draw(sheet), 10, PANEL_PX + 38
    for label, volume in volumes.items():
        pen.rectangle((x, y + 2, x + 14, y + 16), fill=colors[label])
        pen.text((x + 22, y), f"{label}  {volume:,.0f} ml", "white", _font(16))
        x += 240
    pen.text((sheet.width - 300, y), "research only, not for diagnosis", (160, 160, 160), _font(16))
    return sheet


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
