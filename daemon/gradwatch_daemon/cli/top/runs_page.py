"""All runs, one line each, and the sentence of the one under the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.output import known, percent
from gradwatch_daemon.cli.runs import progress
from gradwatch_daemon.cli.top.lines import BLANK, Span, line, marked, pad, wrapped
from gradwatch_daemon.cli.top.view import chosen, listed

if TYPE_CHECKING:
    from gradwatch_daemon.cli.top.frame import Frame
    from gradwatch_daemon.cli.top.lines import Line
    from gradwatch_daemon.cli.top.picture import Picture
    from gradwatch_daemon.cli.top.view import View

SENTENCE_ROWS = 3


def runs_lines(picture: Picture, view: View, frame: Frame, room: int) -> list[Line]:
    """A table that follows the cursor, and what is to be said of the run it is on."""
    items = listed(view, picture)
    if not picture.runs:
        return _nothing_yet(picture, frame)
    if not items:
        return [line(f"No run holds {view.filter!r}.")]
    name = max(frame.cells - 62, 16)
    head = f"  {pad('RUN', name)} {pad('STATE', 9)} {pad('UPDATE', 11)} {pad('LEVEL', 8)} {pad('COVERED', 8)} DETECTORS"
    space = max(room - SENTENCE_ROWS - 3, 1)
    cursor = min(view.cursor, len(items) - 1)
    first = max(min(cursor - space // 2, len(items) - space), 0)
    rows = [_row(items[place], name, frame, on=place == cursor) for place in range(first, min(first + space, len(items)))]
    found = chosen(view, picture)
    sentence = wrapped(found["sentence"], frame.cells, most=SENTENCE_ROWS) if found is not None else []
    return [line(Span(head, "bold")), *rows, BLANK, *sentence]


def _row(item: dict[str, Any], name: int, frame: Frame, *, on: bool) -> Line:
    opened = item["anomalies_open"]
    level = item["level"]
    raised = "*" if level["effective"] not in (None, level["base"]) else ""
    given = line(
        f"{frame.glyphs.cursor if on else ' '} {pad(item['run'], name)} ",
        Span(pad(item["state"], 10), item["state"]),
        f"{pad(progress(item), 11)} {pad(known(level['effective']) + raised, 8)} ",
        f"{pad(percent(item['coverage']['share']), 8)} ",
        *standing(item["detectors"], frame),
        Span(f" {opened} open", "firing" if opened else "") if opened else "",
    )
    return marked(given, frame.cells) if on else given


def standing(counts: dict[str, int], frame: Frame) -> list[Span]:
    """`■5 !1 ~1 ?2`: who can see, who sees something, who learns, who is blind."""
    marks = frame.glyphs.states
    shown = [
        Span(f"{marks[state]}{counts[state]} ", state) for state in ("armed", "firing", "learning", "blind") if counts[state]
    ]
    return shown or [Span("none yet ", "dim")]


def _nothing_yet(picture: Picture, frame: Frame) -> list[Line]:
    """The page teaches when it is empty."""
    return [
        BLANK,
        line(Span("No run has connected yet.", "bold")),
        BLANK,
        *wrapped("In the trainer, beside what it already does:", frame.cells),
        line("    from gradwatch_agent import watch"),
        line('    mon = watch(model, optimizer, run="my-run")'),
        line("    mon.step()        # at the end of every update"),
        BLANK,
        *wrapped("Or without a change:  gradwatch run -- python train.py", frame.cells),
        *wrapped("Or to see one break:  gradwatch demo", frame.cells),
        BLANK,
        *wrapped("A trainer that should be here and is not: gradwatch doctor", frame.cells, style="dim"),
    ]
