"""A whole screen of lines: head, page, foot. Pure, for `--once` as for the live view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.keyboard import KEYBOARD, Where
from gradwatch_daemon.cli.top.anomaly_page import anomaly_lines, anomaly_rows
from gradwatch_daemon.cli.top.lines import BLANK, Span, finished, joined, line, pad, wrapped
from gradwatch_daemon.cli.top.run_page import run_lines, standing_rows
from gradwatch_daemon.cli.top.runs_page import runs_lines
from gradwatch_daemon.cli.top.view import Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_daemon.cli.top.frame import Frame
    from gradwatch_daemon.cli.top.lines import Line
    from gradwatch_daemon.cli.top.picture import Picture
    from gradwatch_daemon.cli.top.view import View

_SHOWN = {
    Page.RUNS: "Enter open  / filter  e escalate  g a anomalies  ? keys  q quit",
    Page.RUN: "Enter anomaly  e escalate  a acknowledge  g d detectors  +- zoom  l log  ? keys",
    Page.DETECTORS: "/ filter  h back  ? keys  q quit",
    Page.ANOMALIES: "Enter open  a acknowledge  / filter  h back  ? keys",
    Page.ANOMALY: "a acknowledge  n note  e escalate  [ ] other anomalies  h back  ? keys",
    Page.HELP: "h back",
}


def draw(picture: Picture, view: View, frame: Frame) -> list[Line]:
    """Exactly `frame.rows` lines, none wider than `frame.cells`."""
    head = [_head(picture, view, frame), *_trouble(picture, frame)]
    foot = _foot(picture, view, frame)
    room = max(frame.rows - len(head) - len(foot), 1)
    body = list(_body(picture, view, frame, room))[:room]
    return finished([*head, *body, *([BLANK] * (room - len(body))), *foot], frame.cells, frame.glyphs)[: frame.rows]


def draw_once(picture: Picture, view: View, frame: Frame) -> list[Line]:
    """As many lines as there is something to say, without keys that nobody can press."""
    body = list(_body(picture, view, frame, frame.rows))
    while body and not body[-1]:
        body.pop()
    return finished([_head(picture, view, frame), *body], frame.cells, frame.glyphs)


def _head(picture: Picture, view: View, frame: Frame) -> Line:
    """Who is asked, whether that is current, and what stands open everywhere."""
    opened = [item for item in picture.anomalies if item["state"] in {"pending", "firing"}]
    worst = next((word for word in ("critical", "warning", "info") if any(item["severity"] == word for item in opened)), "")
    live = sum(bool(item["live"]) for item in picture.runs)
    mark = Span(f"{frame.glyphs.lost} not connected", "critical") if picture.lost else Span(f"{frame.glyphs.live} live", "ok")
    if view.paused:
        mark = Span("|| paused", "warning")
    said: list[Span | str] = [
        Span("gradwatch", "bold"),
        f"  {picture.url.partition('://')[2]}  ",
        mark,
        f"  {live} live of {len(picture.runs)}",
    ]
    said.append(Span(f"  {len(opened)} open", worst) if opened else "  none open")
    return joined(said, [f"{'read-only  ' if frame.readonly else ''}{frame.time}"], frame.cells)


def _trouble(picture: Picture, frame: Frame) -> list[Line]:
    """Why what is shown may be old, or why the daemon cannot do its work."""
    if picture.lost:
        age = max(frame.now - picture.lost_at, 0.0)
        said = f"Not connected for {age:.0f} s: {picture.lost} What is shown was so before; trying again."
        return wrapped(said, frame.cells, style="critical", most=2)
    if picture.daemon and picture.daemon["trouble"]:
        said = f"The daemon is not ready: {'; '.join(picture.daemon['trouble'])}"
        return wrapped(said, frame.cells, style="critical", most=2)
    return []


def _foot(picture: Picture, view: View, frame: Frame) -> list[Line]:
    said = []
    if picture.said:
        said = wrapped(picture.said, frame.cells, style="pending" if picture.asking else "bold", most=2)
    keys = _SHOWN[view.page]
    filtered = [Span(f" /{view.filter}", "warning")] if view.filter else []
    return [*said, joined([Span(keys, "dim")], filtered, frame.cells)]


def _body(picture: Picture, view: View, frame: Frame, room: int) -> Sequence[Line]:
    if view.page is Page.RUNS:
        return runs_lines(picture, view, frame, room)
    if view.page is Page.RUN:
        return run_lines(picture, view, frame, room)
    if view.page is Page.DETECTORS:
        return standing_rows(picture, view, frame, room)
    if view.page is Page.ANOMALIES:
        return anomaly_rows(picture, view, frame, room)
    if view.page is Page.ANOMALY:
        return anomaly_lines(picture, view, frame)
    return _help(frame)


_SPELLED = {" ": "Space", "ArrowDown": "Down", "ArrowUp": "Up", "Escape": "Esc"}


def _help(frame: Frame) -> list[Line]:
    """Every key, in two columns; keys of one action together."""
    keys: dict[str, list[str]] = {}
    what = {}
    for entry in KEYBOARD:
        if entry.where is not Where.WEB:
            keys.setdefault(entry.action, []).append(_SPELLED.get(entry.key, entry.key))
            what[entry.action] = entry.what
    entries = [f"{pad(' '.join(names), 8)} {what[action]}" for action, names in keys.items()]
    half = (len(entries) + 1) // 2
    wide = frame.cells // 2
    columns = [f"{pad(entries[i], wide)}{entries[i + half] if i + half < len(entries) else ''}" for i in range(half)]
    notes = (
        f"Sparklines: {frame.glyphs.nonfinite} holds a value that is NaN or infinite, {frame.glyphs.missing} was not measured.",
        "Detectors: " + ", ".join(f"{mark} {state}" for state, mark in frame.glyphs.states.items()) + ".",
        "An escalation is shown as the trainer confirms it: asked, sent, applied at an update, ended.",
    )
    rest = [row for note in notes for row in wrapped(note, frame.cells)]
    return [BLANK, *map(line, columns), BLANK, *rest]
