"""A series of the API as a line of characters. No scale hides a value that is not finite, and no gap looks like a value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.output import number
from gradwatch_daemon.cli.top.lines import Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_daemon.cli.top.lines import Glyphs


def sparkline(series: dict[str, Any], cells: int, glyphs: Glyphs, *, log: bool) -> tuple[Span, ...]:
    """The newest `cells` points or buckets. A bucket shows its extreme that is further from the middle of all, so that a spike
    of one update is seen; one with any value that is not finite shows that and nothing else."""
    places = range(max(len(series["update"]) - cells, 0), len(series["update"]))
    drawn = [_drawn(series, place, log=log) for place in places]
    heights = _heights(drawn, len(glyphs.spark))
    spans: list[Span] = []
    for place, height in zip(places, heights, strict=True):
        if series["nonfinite"][place]:
            spans.append(Span(glyphs.nonfinite, "critical"))
        elif not series["measured"][place]:
            spans.append(Span(glyphs.missing, "dim"))
        else:
            spans.append(Span(glyphs.spark[height]))
    return tuple(_merged(spans))


def extent(series: dict[str, Any], cells: int) -> str:
    """`0.01..0.2`: the finite values that the line is drawn between, '' where there is none."""
    finite = [value for name in ("low", "high") for value in series[name][-cells:] if isinstance(value, (int, float))]
    return f"{number(float(min(finite)))}..{number(float(max(finite)))}" if finite else ""


def _drawn(series: dict[str, Any], place: int, *, log: bool) -> tuple[float, float] | None:
    low, high = series["low"][place], series["high"][place]
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return None
    return (_scaled(low, log=log), _scaled(high, log=log))


def _scaled(value: float, *, log: bool) -> float:
    """On a log scale what is not above 0 lies at the bottom."""
    if not log:
        return float(value)
    return math.log10(value) if value > 0 else -math.inf


def _heights(drawn: Sequence[tuple[float, float] | None], steps: int) -> list[int]:
    ends = [end for pair in drawn if pair is not None for end in pair if math.isfinite(end)]
    if not ends:
        return [0] * len(drawn)
    bottom, top = min(ends), max(ends)
    middle = sorted(ends)[len(ends) // 2]
    heights = []
    for pair in drawn:
        value = bottom if pair is None else max(pair, key=lambda end: abs(end - middle) if math.isfinite(end) else -1.0)
        share = (value - bottom) / (top - bottom) if top > bottom and math.isfinite(value) else 0.0
        heights.append(min(int(share * steps), steps - 1))
    return heights


def _merged(spans: Sequence[Span]) -> list[Span]:
    """Neighbours of one style as one span."""
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].style == span.style:
            merged[-1] = Span(merged[-1].text + span.text, span.style)
        else:
            merged.append(span)
    return merged
