"""Anomalies as lines, and one of them whole: what, where it began, the numbers, what it explains, what to try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.anomaly_id import short
from gradwatch_daemon.cli.output import glyph, number
from gradwatch_daemon.cli.top.lines import BLANK, Span, joined, line, marked, pad, wrapped
from gradwatch_daemon.cli.top.view import listed

if TYPE_CHECKING:
    from gradwatch_daemon.cli.top.frame import Frame
    from gradwatch_daemon.cli.top.lines import Line
    from gradwatch_daemon.cli.top.picture import Picture
    from gradwatch_daemon.cli.top.view import View


def anomaly_row(item: dict[str, Any], frame: Frame, *, on: bool, of_run: bool) -> Line:
    """One anomaly in one line."""
    subject = f" [{item['subject']}]" if item["subject"] else ""
    owner = "" if of_run else f"{pad(item['run'], 20)} "
    seen = "" if item["acknowledged"] is None else "ack "
    muted = "" if item["silenced"] is None else "silenced "
    given = line(
        f"{frame.glyphs.cursor if on else ' '} ",
        Span(f"{glyph(item['severity']):>2} {pad(item['severity'], 9)}", item["severity"]),
        Span(pad(item["state"], 9), item["state"]),
        f"{owner}update {pad(str(item['update_onset']), 8)}{item['kind']}{subject} ",
        Span(f" {short(item['id'])} {seen}{muted}", "dim"),
    )
    return marked(given, frame.cells) if on else given


def anomaly_rows(picture: Picture, view: View, frame: Frame, room: int) -> list[Line]:
    """All anomalies, newest first, and the sentence of the one under the cursor."""
    items = listed(view, picture)
    if not items:
        nothing = f"No anomaly holds {view.filter!r}." if view.filter else "No anomaly known."
        return [BLANK, line(nothing), *_who_could_see(picture, frame)]
    space = max(room - 4, 1)
    cursor = min(view.cursor, len(items) - 1)
    first = max(min(cursor - space // 2, len(items) - space), 0)
    rows = [
        anomaly_row(items[place], frame, on=place == cursor, of_run=False)
        for place in range(first, min(first + space, len(items)))
    ]
    return [*rows, BLANK, *wrapped(items[cursor]["sentence"], frame.cells, most=3)]


def _who_could_see(picture: Picture, frame: Frame) -> list[Line]:
    """Nothing found is never said without by whom."""
    live = [item for item in picture.runs if item["live"]]
    counts = {state: sum(item["detectors"][state] for item in live) for state in ("armed", "firing", "learning", "blind")}
    able = counts["armed"] + counts["firing"]
    said = f"In the {len(live)} live runs, {able} of {sum(counts.values())} detectors can judge; {counts['blind']} are blind."
    return wrapped(said, frame.cells) if live else wrapped("No run is live.", frame.cells)


def anomaly_lines(picture: Picture, view: View, frame: Frame) -> list[Line]:
    """One anomaly with everything known of it."""
    item = picture.anomaly(view.anomaly)
    if item is None:
        return [BLANK, line(f"Anomaly {view.anomaly} is not known (any more).")]
    subject = f" [{item['subject']}]" if item["subject"] else ""
    left: list[Span | str] = [
        Span(f"{glyph(item['severity'])} {item['kind']}{subject}", item["severity"]),
        f"  {item['run']}  ",
        Span(item["state"], item["state"]),
    ]
    return [
        joined(left, [f"fired {item['fired_at'].replace('T', ' ')[:19]}"], frame.cells),
        *wrapped(item["sentence"], frame.cells, style="bold", most=3),
        BLANK,
        *(row for said in _facts(item) for row in wrapped(said, frame.cells, indent=" " * 10)),
        *_overlay(item, frame),
        BLANK,
        *(
            row
            for place, tried in enumerate(item["try"], 1)
            for row in wrapped(f"try {place}     {tried}", frame.cells, indent=" " * 10, most=3)
        ),
        BLANK,
        line(Span(f"gradwatch explain {item['id']}", "dim")),
    ]


def _facts(item: dict[str, Any]) -> list[str]:
    status, root = item["status"], item["root"]
    numbers = [
        f"{name} {number(item[name], status.get(name, ''))}"
        for name in ("value", "limit", "baseline")
        if item[name] is not None or status.get(name) != "the rule has none"
    ]
    minibatch = "" if root["minibatch"] is None else f", minibatch {root['minibatch']}"
    over = "" if item["update_resolved"] is None else f", resolved at {item['update_resolved']}"
    facts = [
        f"numbers   {', '.join(numbers)}",
        f"updates   onset {item['update_onset']}, fired {item['update_fired']}, last {item['update_last']}{over};"
        f" seen {item['count']}x",
        f"began     update {root['update']}{minibatch}, in stage {root['stage']}",
    ]
    for found in item["attached"]:
        facts.append(f"explains  {found['kind']} at update {found['update_fired']}: value {number(found['value'])}")
    return facts


def _overlay(item: dict[str, Any], frame: Frame) -> list[Line]:
    """What people said of it; it changes nothing of what was detected."""
    seen = item["acknowledged"]
    said = []
    if seen is not None:
        note = f": {seen['note']}" if seen["note"] else ""
        said += wrapped(f"seen      by {seen['by']} at {seen['at']}{note}", frame.cells, indent=" " * 10, most=2)
    if item["silenced"] is not None:
        said += wrapped(f"silenced  by {item['silenced']}; nobody is told of it", frame.cells, most=1)
    return said
