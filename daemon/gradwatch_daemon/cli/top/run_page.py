"""One run: its sentence, who watches it, the escalation under way, its signals, its anomalies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradwatch_contracts.headlines import HEADLINES
from gradwatch_daemon.cli.output import known, number, percent
from gradwatch_daemon.cli.runs import progress
from gradwatch_daemon.cli.top.anomaly_page import anomaly_row
from gradwatch_daemon.cli.top.lines import BLANK, Span, joined, line, marked, pad, width, wrapped
from gradwatch_daemon.cli.top.runs_page import standing
from gradwatch_daemon.cli.top.spark import extent, sparkline
from gradwatch_daemon.cli.top.view import SPANS, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_daemon.cli.top.frame import Frame
    from gradwatch_daemon.cli.top.lines import Line
    from gradwatch_daemon.cli.top.picture import Closeup, Picture
    from gradwatch_daemon.cli.top.view import View

SIGNALS_SHOWN = 12
ANOMALY_ROWS = 4
NAME_CELLS, VALUE_CELLS, EXTENT_CELLS = 24, 14, 16
_PLAIN = ("live", "finished", "stopped", "imported")
"""States that need no evidence."""

_UNDER_WAY = ("requested", "delivered", "applied")


def spark_cells(cells: int) -> int:
    """How long a sparkline is in a terminal so wide."""
    return max(cells - NAME_CELLS - VALUE_CELLS - EXTENT_CELLS - 3, 8)


def shown_signals(signals: Sequence[dict[str, Any]], most: int = SIGNALS_SHOWN) -> list[dict[str, Any]]:
    """The headlines that the run has, in their order, then others that were measured."""
    place = {name: i for i, name in enumerate(HEADLINES)}
    first = sorted((item for item in signals if item["signal"] in place), key=lambda item: place[item["signal"]])
    rest = [item for item in signals if item["signal"] not in place and item["measured"] and item["unit"] != "count"]
    return [*first, *rest][:most]


def run_lines(picture: Picture, view: View, frame: Frame, room: int) -> list[Line]:
    """Most important first; signals take what room is left over the anomalies."""
    summary = picture.run(view.run)
    closeup = picture.close(view.run)
    item = summary or (closeup.run if closeup else None)
    if item is None:
        return [BLANK, line(f"No run {view.run} is known.")]
    top = [_title(item, frame), *wrapped(item["sentence"], frame.cells, most=3)]
    if item["state"] not in _PLAIN:
        top += wrapped(item["evidence"], frame.cells, style=item["state"], most=2)
    top += _watchers(item, closeup, frame)
    top += _escalations(closeup, frame)
    anomalies = listed(view, picture)
    below = min(max(len(anomalies), 1), ANOMALY_ROWS)
    space = max(room - len(top) - below - 2, 1)
    return [*top, BLANK, *_signals(closeup, view, frame, space), BLANK, *_anomalies(anomalies, view, frame, below)]


def _title(item: dict[str, Any], frame: Frame) -> Line:
    level = item["level"]
    pin = f", pinned to {level['pin']}" if level["pin"] else ""
    left: list[Span | str] = [
        Span(item["run"], "bold"),
        "  ",
        Span(item["state"], item["state"]),
        f"  update {progress(item)}  try {item['attempt']}  level {known(level['effective'])} (base {level['base']}{pin})",
    ]
    return joined(left, [f"{percent(item['coverage']['share'])} covered"], frame.cells)


def _watchers(item: dict[str, Any], closeup: Closeup | None, frame: Frame) -> list[Line]:
    """The strip: one mark for each detector, then their number by state; who fires and who is blind, by name."""
    counts = standing(item["detectors"], frame)
    if closeup is None:
        return [line("detectors ", *counts)]
    standings = closeup.run["standings"]
    strip = [
        Span(frame.glyphs.states[state] * sum(one["state"] == state for one in standings), state)
        for state in ("firing", "blind", "learning", "armed")
    ]
    words = [f"{item['detectors'][state]} {word}" for state, word in _WORDS if item["detectors"][state]]
    said = [joined(["detectors ", *strip], [", ".join(words) or "none yet"], frame.cells)]
    for state, style in (("firing", "firing"), ("blind", "blind")):
        names = [_name(one) for one in standings if one["state"] == state]
        if names:
            said += wrapped(f"{state:<9} {', '.join(names)}", frame.cells, style=style, indent=" " * 10, most=2)
    return said


_WORDS = (("firing", "firing"), ("blind", "blind"), ("learning", "learning"), ("armed", "ok"))


def _name(one: dict[str, Any]) -> str:
    return f"{one['kind']} [{one['subject']}]" if one["subject"] else str(one["kind"])


def _escalations(closeup: Closeup | None, frame: Frame) -> list[Line]:
    """What was asked for and what became of it, in the daemon's words; never more than is confirmed."""
    if closeup is None:
        return []
    under_way = [item for item in closeup.escalations if item["state"] in _UNDER_WAY][:2]
    return [
        row
        for item in under_way
        for row in wrapped(
            f"{item['state']:<9} {item['sentence']}", frame.cells, style="" if item["state"] == "applied" else "pending", most=2
        )
    ]


def _signals(closeup: Closeup | None, view: View, frame: Frame, space: int) -> list[Line]:
    if closeup is None:
        return [line(Span("Reading its signals ...", "dim"))]
    if not closeup.signals:
        return [line("It has sent no update yet.")]
    span = SPANS[view.span]
    reach = "all updates" if span is None else f"last {span} updates"
    head = Span(f"signal, newest value, {reach}{', log scale' if view.log else ''}", "dim")
    return [line(head), *(_signal(item, closeup, view, frame) for item in shown_signals(closeup.signals, space - 1))]


def _signal(item: dict[str, Any], closeup: Closeup, view: View, frame: Frame) -> Line:
    """Name, newest value or why there is none, the line, and what it is drawn between."""
    name = f"{item['signal']}[{item['subject']}]" if item["subject"] else item["signal"]
    missing = item["status"] != "measured"
    value = f"– {item['status']}" if missing else number(item["value_last"])
    style = "dim" if missing else ("critical" if isinstance(item["value_last"], str) else "bold")
    series = closeup.series.get((item["signal"], item["subject"]))
    head: list[Span | str] = [pad(name, NAME_CELLS), " ", Span(pad(value, VALUE_CELLS), style), " "]
    if series is None:
        return line(*head)
    cells = spark_cells(frame.cells)
    drawn = sparkline(series, cells, frame.glyphs, log=view.log)
    used = sum(width(part.text) for part in drawn)
    ends = pad(extent(series, cells), EXTENT_CELLS, right=True)
    return line(*head, *drawn, " " * (cells - used), " ", Span(ends, "dim"))


def _anomalies(items: Sequence[dict[str, Any]], view: View, frame: Frame, space: int) -> list[Line]:
    if not items:
        return [line(Span("No anomaly known; the detectors above say who could see.", "dim"))]
    cursor = min(view.cursor, len(items) - 1)
    first = max(min(cursor - space // 2, len(items) - space), 0)
    return [anomaly_row(items[place], frame, on=place == cursor, of_run=True) for place in range(first, first + space)]


def standing_rows(picture: Picture, view: View, frame: Frame, room: int) -> list[Line]:
    """Every detector of a run: how it stands and why, those that need attention first."""
    if picture.close(view.run) is None:
        return [BLANK, line(Span(f"Reading {view.run} ...", "dim"))]
    items = listed(view, picture)
    if not items:
        return [BLANK, line("No detector has judged this run yet.")]
    space = max(room - 4, 1)
    cursor = min(view.cursor, len(items) - 1)
    first = max(min(cursor - space // 2, len(items) - space), 0)
    rows = []
    for place in range(first, min(first + space, len(items))):
        one = items[place]
        mark = frame.glyphs.states[one["state"]]
        given = line(Span(f"{mark} {pad(one['state'], 9)}", one["state"]), pad(_name(one), 30), " ", one["reason"])
        rows.append(marked(given, frame.cells) if place == cursor else given)
    one = items[cursor]
    told = one["add"] and f"In the trainer: {one['add']}"
    return [
        *rows,
        BLANK,
        *wrapped(f"{_name(one)}: {one['reason'] or one['state']}", frame.cells, most=2),
        *wrapped(told, frame.cells, most=1),
    ]
