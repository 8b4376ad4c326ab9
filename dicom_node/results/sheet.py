"""Blocks of text and pictures for a page: each an image of its own size, and blocks are stacked, so nothing overlaps.

The font is the one that comes with Pillow, so that a page looks alike on every machine; it knows ASCII alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

BACKGROUND, TEXT, MUTED, LINE = (12, 14, 17), (226, 229, 233), (148, 155, 164), (52, 58, 66)
AMBER = (242, 184, 75)
Color = tuple[int, int, int]
_SPELLED = {
    0x2013: "-",
    0x2014: "-",
    0xD7: "x",
    0x2265: ">=",
    0x2264: "<=",
    0x2192: "->",
    0xB5: "u",
    0x2026: "...",
    0x2019: "'",
    0xDF: "ss",
}


def plain(text: str) -> str:
    """Write a text in the letters that the font has."""
    spelled = unicodedata.normalize("NFKD", text.translate(_SPELLED))
    return "".join(c if " " <= c <= "~" else "" if unicodedata.combining(c) else "?" for c in spelled)


def font(size: int) -> ImageFont.FreeTypeFont:
    """The page's font."""
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


def paragraph(text: str, width: int, size: int = 15, fill: Color = TEXT) -> Image.Image:
    """Text, broken at words into lines of at most `width` pixels."""
    lines = _broken(plain(text), width, font(size))
    step = round(size * 1.35)
    block = Image.new("RGB", (width, step * len(lines)), BACKGROUND)
    pen = ImageDraw.Draw(block)
    for n, line in enumerate(lines):
        pen.text((0, n * step), line, fill, font(size))
    return block


def pair(name: str, value: str, width: int, size: int = 15) -> Image.Image:
    """A name on the left and its value on the right; the name takes more lines where both do not fit on one."""
    face, value = font(size), plain(value)
    wide = face.getlength(value)
    lines = _broken(plain(name), round(width - wide - 12), face)
    block = Image.new("RGB", (width, round(size * (1.2 * len(lines) + 0.25))), BACKGROUND)
    pen = ImageDraw.Draw(block)
    for n, line in enumerate(lines):
        pen.text((0, round(n * size * 1.2)), line, MUTED, face)
    pen.text((width - wide, 0), value, TEXT, face)
    return block


def shortened(text: str, room: float, face: ImageFont.FreeTypeFont) -> str:
    """Text that is at most `room` pixels long."""
    if face.getlength(text) <= room:
        return text
    while text and face.getlength(f"{text}...") > room:
        text = text[:-1]
    return f"{text.rstrip()}..." if text else ""


def rule(width: int) -> Image.Image:
    """A thin line."""
    block = Image.new("RGB", (width, 1), LINE)
    return padded(block, 6, 6)


def padded(block: Image.Image, above: int, below: int) -> Image.Image:
    """A block with room above and below."""
    out = Image.new("RGB", (block.width, above + block.height + below), BACKGROUND)
    out.paste(block, (0, above))
    return out


def stacked(blocks: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """Blocks below each other."""
    width = max(block.width for block in blocks)
    out = Image.new("RGB", (width, sum(block.height for block in blocks) + gap * (len(blocks) - 1)), BACKGROUND)
    y = 0
    for block in blocks:
        out.paste(block, (0, y))
        y += block.height + gap
    return out


def beside(blocks: Sequence[Image.Image], gap: int) -> Image.Image:
    """Blocks next to each other."""
    height = max(block.height for block in blocks)
    out = Image.new("RGB", (sum(block.width for block in blocks) + gap * (len(blocks) - 1), height), BACKGROUND)
    x = 0
    for block in blocks:
        out.paste(block, (x, 0))
        x += block.width + gap
    return out


def _broken(text: str, width: int, face: ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, width, face))
    return [line for line in lines if line] or [""]
