"""A series as inline SVG: no script, no font, no address of anything else. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_daemon.store.protocol import Series

WIDTH, HEIGHT = 600, 150
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 8, 34
"""Margins of the drawing inside the picture, px: numbers on the left, marks and updates below."""


@dataclass(frozen=True, slots=True)
class Band:
    """Updates `first` to `last` of something, drawn over the whole height; `mark` is the glyph above it."""

    first: int
    last: int
    severity: str
    text: str
    mark: str


@dataclass(frozen=True, slots=True)
class Limit:
    """A horizontal line with its name."""

    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Updates and values to px."""

    first: float
    last: float
    low: float
    high: float

    def x(self, update: float) -> float:
        """Of an update."""
        share = (update - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Of a value."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)


def plot(series: Series, title: str, unit: str, bands: Sequence[Band] = (), limits: Sequence[Limit] = ()) -> str:
    """Line of the last values, range of each bucket, bands of anomalies, limits that are near, and in a strip of its own below
    every place with a value that is NaN or infinite, which no scale can hide. A gap is where nothing was measured."""
    scale = _scale(series, limits)
    counted = f"{int(series.measured.sum())} measured, {int(series.nonfinite.sum())} not finite"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}: {counted}">',
        f"<title>{escape(title)}: {counted}</title>",
        *(_band(band, scale) for band in bands if band.last >= scale.first and band.first <= scale.last),
        *_axes(scale, unit),
        *_range(series, scale),
        *_line(series, scale),
        *(_limit(limit, scale) for limit in limits if scale.low <= limit.value <= scale.high),
        *_marks(series, scale),
        "</svg>",
    ]
    return "".join(parts)


def _scale(series: Series, limits: Sequence[Limit]) -> Scale:
    ends = np.concatenate([series.low, series.high])[np.tile(series.measured > 0, 2)]
    ends = ends[np.isfinite(ends)]
    low, high = (float(ends.min()), float(ends.max())) if len(ends) else (0.0, 1.0)
    room = (high - low) or abs(high) or 1.0
    # A limit is drawn where the values come near it; a far one would flatten them.
    near = [limit.value for limit in limits if low - room <= limit.value <= high + room]
    low, high = min([low, *near]), max([high, *near])
    first = float(series.update.min()) if len(series.update) else 0.0
    last = float(series.update.max()) + series.bucket - 1 if len(series.update) else 1.0
    return Scale(first, last, low, high) if high > low else Scale(first, last, low - room / 2, high + room / 2)


def _axes(scale: Scale, unit: str) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = [f'<path class="axis" d="M{LEFT},{TOP}V{bottom}H{WIDTH - RIGHT}"/>']
    for value, y in ((scale.high, TOP + 9), (scale.low, bottom)):
        parts.append(f'<text x="{LEFT - 4}" y="{y}" text-anchor="end">{value:.4g}</text>')
    parts.append(f'<text x="{LEFT - 4}" y="{(TOP + bottom) / 2}" text-anchor="end">{escape(unit)}</text>')
    for update, anchor in ((scale.first, "start"), (scale.last, "end")):
        parts.append(f'<text x="{scale.x(update):.0f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{update:.0f}</text>')
    return parts


def _pieces(series: Series) -> list[list[int]]:
    """Places with a finite value, in runs without anything missing between them."""
    finite = (series.measured > 0) & np.isfinite(series.low) & np.isfinite(series.high)
    pieces: list[list[int]] = []
    for place, there in enumerate(finite.tolist()):
        if there and place and finite[place - 1] and series.update[place] > series.update[place - 1]:
            pieces[-1].append(place)
        elif there:
            pieces.append([place])
    return pieces


def _range(series: Series, scale: Scale) -> list[str]:
    """Between low and high of buckets; raw points have none."""
    if series.bucket == 1:
        return []
    paths = []
    for piece in _pieces(series):
        upper = [f"{scale.x(series.update[i]):.1f},{scale.y(series.high[i]):.1f}" for i in piece]
        lower = [f"{scale.x(series.update[i]):.1f},{scale.y(series.low[i]):.1f}" for i in reversed(piece)]
        paths.append(f'<path class="range" d="M{" ".join([*upper, *lower])}Z"/>')
    return paths


def _line(series: Series, scale: Scale) -> list[str]:
    """Through the last value of each place; where that is not finite, through the middle of those that are."""
    parts = []
    for piece in _pieces(series):
        points = []
        for i in piece:
            value = float(series.last[i])
            value = value if math.isfinite(value) else float(series.low[i] + series.high[i]) / 2
            points.append((scale.x(float(series.update[i])), scale.y(value)))
        if len(points) == 1:
            parts.append(f'<circle class="dot" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="1.5"/>')
        else:
            parts.append(f'<path class="line" d="M{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
    return parts


def _limit(limit: Limit, scale: Scale) -> str:
    y = scale.y(limit.value)
    return (
        f'<path class="limit" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>'
        f'<text class="limit-name" x="{WIDTH - RIGHT}" y="{max(y - 3, 8):.1f}" text-anchor="end">{escape(limit.text)}</text>'
    )


def _band(band: Band, scale: Scale) -> str:
    left, right = scale.x(max(band.first, scale.first)), scale.x(min(band.last, scale.last))
    wide = max(right - left, 2.0)
    return (
        f'<g class="band {escape(band.severity)}"><title>{escape(band.text)}</title>'
        f'<rect x="{left:.1f}" y="{TOP}" width="{wide:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
        f'<text x="{left + 2:.1f}" y="{TOP + 10}">{escape(band.mark)}</text></g>'
    )


def _marks(series: Series, scale: Scale) -> list[str]:
    """A cross for each place with a value that is not finite, a bar for each where nothing was measured."""
    y = HEIGHT - BOTTOM + 9
    crosses, gaps = [], []
    for place, update in enumerate(series.update.tolist()):
        x = scale.x(float(update))
        if series.nonfinite[place]:
            crosses.append(f"M{x - 3:.1f},{y - 3}l6,6m0,-6l-6,6")
        elif not series.measured[place]:
            gaps.append(f"M{x:.1f},{y - 1}v3")
    parts = [f'<path class="gap" d="{"".join(gaps)}"/>'] if gaps else []
    return [*parts, f'<path class="nonfinite" d="{"".join(crosses)}"/>'] if crosses else parts
