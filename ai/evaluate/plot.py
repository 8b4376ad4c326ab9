"""Curves as SVG, small and without a library; their colours are the page's, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 44


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it shows, its ends, where it has ticks, and whether it is logarithmic."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high one; beyond them it is held at the end."""
        inside = min(max(value, self.low), self.high)
        if self.log:
            return math.log(inside / self.low) / math.log(self.high / self.low)
        return (inside - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Line:
    """One curve, or one cloud of points.

    Parameters
    ----------
    name : str
        For the legend; without a name it is not in it.
    points : sequence of (float, float)
        In the order in which they are joined.
    band : sequence of (float, float, float)
        x, low and high of an interval drawn behind the curve.
    kind : str
        ``line``, ``dots`` or ``guide`` (thin and dashed).
    sizes : sequence of float
        Radius of each dot in pixels.
    """

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    kind: str = "line"
    sizes: Sequence[float] = ()


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Draw a chart.

    Parameters
    ----------
    title : str
        For those who cannot see it.
    x, y : Axis
        Its axes.
    lines : sequence of Line
        Drawn in this order; the style numbers their colours ``s0`` to ``s5``.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="chart"><title>{escape(title)}</title>',
        *_frame(x, y),
    ]
    coloured = [line for line in lines if line.kind != "guide"]
    for line in lines:
        colour = coloured.index(line) % 6 if line in coloured else 0
        parts += _drawn(line, x, y, colour)
    parts += _legend([line.name for line in coloured])
    return "".join([*parts, "</svg>"])


def _frame(x: Axis, y: Axis) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for tick in y.ticks:
        height = _y(y, tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x.ticks:
        across = _x(x, tick)
        parts.append(f'<line class="grid" x1="{across:.1f}" x2="{across:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        place, shown = f'x="{across:.1f}" y="{bottom + 16}"', _fraction(tick) if x.log else f"{tick:g}"
        parts.append(f'<text class="tick" {place} text-anchor="middle">{shown}</text>')
    middle, halfway = (_LEFT + right) / 2, (_TOP + bottom) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>')
    turned = f'transform="translate(13 {halfway}) rotate(-90)"'
    parts.append(f'<text class="axis" {turned} text-anchor="middle">{escape(y.label)}</text>')
    return parts


def _drawn(line: Line, x: Axis, y: Axis, colour: int) -> list[str]:
    known = [(a, b) for a, b in line.points if math.isfinite(a) and math.isfinite(b)]
    parts = []
    band = [row for row in line.band if all(map(math.isfinite, row))]
    if band:
        there = [f"{_x(x, a):.1f},{_y(y, high):.1f}" for a, _, high in band]
        back = [f"{_x(x, a):.1f},{_y(y, low):.1f}" for a, low, _ in reversed(band)]
        parts.append(f'<polygon class="band s{colour}" points="{" ".join(there + back)}"/>')
    if line.kind == "dots":
        sizes = line.sizes or [3.0] * len(known)
        for (a, b), size in zip(known, sizes, strict=True):
            parts.append(f'<circle class="dot s{colour}" cx="{_x(x, a):.1f}" cy="{_y(y, b):.1f}" r="{size:.1f}"/>')
    elif known:
        style = "guide" if line.kind == "guide" else f"curve s{colour}"
        points = " ".join(f"{_x(x, a):.1f},{_y(y, b):.1f}" for a, b in known)
        parts.append(f'<polyline class="{style}" points="{points}"/>')
    return parts


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    shown = [(number, name) for number, name in enumerate(names) if name]
    for row, (number, name) in enumerate(reversed(shown)):
        height = _HEIGHT - _BOTTOM - 12 - 16 * row
        parts.append(f'<circle class="dot s{number % 6}" cx="{_WIDTH - _RIGHT - 12}" cy="{height - 4}" r="4"/>')
        place = f'x="{_WIDTH - _RIGHT - 22}" y="{height}" text-anchor="end"'
        parts.append(f'<text class="legend" {place}>{escape(name)}</text>')
    return parts


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.at(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.at(value) * (_HEIGHT - _TOP - _BOTTOM)


def _fraction(tick: float) -> str:
    """As LUNA16 writes false positives per scan."""
    return {0.125: "1/8", 0.25: "1/4", 0.5: "1/2"}.get(tick, f"{tick:g}")
