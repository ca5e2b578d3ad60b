"""The pure parts of `gradwatch top`: sparklines, pages that fit, navigation, and which event wins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradwatch_contracts.keyboard import KEYBOARD, Where, keys_of
from gradwatch_daemon.cli.top.frame import Frame
from gradwatch_daemon.cli.top.lines import ASCII, UNICODE, cut, text_of, width, wrapped
from gradwatch_daemon.cli.top.pages import draw
from gradwatch_daemon.cli.top.picture import Closeup, Picture, with_event
from gradwatch_daemon.cli.top.spark import extent, sparkline
from gradwatch_daemon.cli.top.view import SPANS, Page, View, listed, step
from harness import api_documents as documents

FRAME = Frame(80, 24, UNICODE, readonly=False, time="12:00:00", now=0.0)


def _series(*values: Any) -> dict[str, Any]:
    return documents.series(
        update=list(range(len(values))),
        low=list(values),
        high=list(values),
        last=list(values),
        measured=[int(value is not None) for value in values],
        nonfinite=[int(isinstance(value, str)) for value in values],
        status=["measured" if value is not None else "level" for value in values],
    )


def _picture(**changes: Any) -> Picture:
    runs = tuple(documents.run_summary(run=f"run-{i}") for i in range(40))
    found = tuple(documents.anomaly(id=f"a{i}", run="run-1", fired_at=f"2026-01-31T12:{59 - i:02}:00.000Z") for i in range(9))
    closeup = Closeup(documents.run_detail(run="run-1"), (documents.signal_item(),), {}, (documents.escalation(run="run-1"),))
    return replace(Picture("http://127.0.0.1:9470", documents.daemon(), runs, found, closeup), **changes)


def _spark(series: dict[str, Any], cells: int = 40, **given: Any) -> str:
    return "".join(span.text for span in sparkline(series, cells, UNICODE, **{"log": False, **given}))


def test_sparkline_of_what_is_not_finite_or_not_measured_shows_marks_of_their_own() -> None:
    """Never the lowest step, which would be a value."""
    assert _spark(_series(1.0, "NaN", "Infinity", "-Infinity", None, 2.0)) == "▁×××·█"


def test_sparkline_of_nothing_but_nan_has_no_extent() -> None:
    """There is no scale to speak of."""
    series = _series("NaN", "NaN")

    assert (_spark(series), extent(series, 40)) == ("××", "")


def test_sparkline_of_a_bucket_with_one_nan_shows_the_nan() -> None:
    """A bucket of finite values and one NaN is drawn as the NaN."""
    series = {**_series(1.0, 2.0), "nonfinite": [0, 1]}

    assert _spark(series) == "▁×"


def test_sparkline_of_a_bucket_shows_its_spike_in_either_direction() -> None:
    """The extreme that is further from the rest, not the last value."""
    series = {**_series(*[5.0] * 9), "low": [5.0] * 4 + [0.0] + [5.0] * 4, "high": [5.0] * 6 + [10.0] + [5.0] * 2}

    assert _spark(series) == "▅▅▅▅▁▅█▅▅"


def test_sparkline_of_a_constant_is_flat() -> None:
    """No division by nothing."""
    assert _spark(_series(3.0, 3.0, 3.0)) == "▁▁▁"


def test_sparkline_on_a_log_scale_puts_what_is_not_above_zero_at_the_bottom() -> None:
    """And spreads the rest by factors."""
    assert _spark(_series(0.0, 1.0, 10.0, 100.0, -5.0), log=True) == "▁▁▅█▁"


def test_sparkline_longer_than_its_place_shows_the_newest() -> None:
    """The newest point is never cut off."""
    assert _spark(_series(9.0, 1.0, 2.0), cells=2) == "▁█"


@pytest.mark.parametrize("page", list(Page))
@pytest.mark.parametrize("size", [(80, 24), (40, 10), (200, 60), (20, 3)])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_page_of_any_size_has_exactly_its_lines_and_none_too_wide(page: Page, size: tuple[int, int], glyphs: Any) -> None:
    """Whatever there is to say."""
    cells, rows = size
    view = View(page, run="run-1", anomaly="a0", cursor=5)

    lines = draw(
        _picture(lost="it is gone " * 9, said="words " * 40), view, replace(FRAME, cells=cells, rows=rows, glyphs=glyphs)
    )

    assert len(lines) == rows
    assert max(width(text_of(line)) for line in lines) <= cells
    assert glyphs is UNICODE or all(text_of(line).isascii() for line in lines)


def test_text_of_a_trainer_cannot_drive_the_terminal() -> None:
    """Escape sequences are spelled out, a new line is none."""
    item = documents.run_summary(run="run-1", sentence="evil \x1b[2J\nnext")

    lines = draw(_picture(runs=(item,)), View(), FRAME)

    assert not any("\x1b" in text_of(line) or "\n" in text_of(line) for line in lines)
    assert any("\\x1b[2J" in text_of(line) for line in lines)


def test_wide_characters_are_cut_by_cells() -> None:
    """A note may be in any script."""
    assert (width("学習"), cut("学習率", 5)) == (4, "学習…")
    assert [text_of(row) for row in wrapped("one two three", 8, most=1)] == ["one two…"]


def test_cursor_stays_inside_a_list_that_became_shorter() -> None:
    """Runs may vanish from a filter while somebody looks."""
    view = step(View(cursor=39, filter="run-1"), "next", _picture())

    assert view.cursor == len(listed(view, _picture())) - 1


def test_back_leaves_the_filter_first_and_then_the_page() -> None:
    """And what was set for all pages stays."""
    picture = _picture()
    inside = step(step(View(cursor=1), "open", picture), "log", picture)
    filtered = replace(inside, filter="x")

    assert step(filtered, "back", picture) == inside
    assert step(inside, "back", picture) == View(cursor=1, log=True)


def test_next_anomaly_goes_along_those_of_the_run_and_stops_at_the_oldest() -> None:
    """From a run to its newest anomaly, and on."""
    picture = _picture()
    view = View(Page.RUN, run="run-1")
    seen = []
    for _ in range(11):
        view = step(view, "next-anomaly", picture)
        seen.append(view.anomaly)

    assert seen == [f"a{i}" for i in range(9)] + ["a8", "a8"]
    assert step(view, "back", picture).page is Page.RUN


def test_zoom_stays_within_its_spans() -> None:
    """From the whole run to twenty updates."""
    picture, view = _picture(), View()
    for _ in range(20):
        view = step(view, "zoom-in", picture)

    assert SPANS[view.span] == 20
    assert SPANS[step(view, "zoom-reset", picture).span] is None
    assert SPANS[step(View(), "zoom-out", picture).span] is None


def test_answer_that_comes_after_a_newer_event_does_not_take_an_escalation_back() -> None:
    """The trainer may have applied it before the answer to the request is read."""
    applied = documents.escalation(run="run-1", state="applied", sentence="Collecting at debug since update 121.")
    picture = with_event(_picture(about="e1"), "escalation", applied)

    late = with_event(picture, "escalation", documents.escalation(run="run-1"))

    assert late.closeup is not None
    assert [item["state"] for item in late.closeup.escalations] == ["applied"]
    assert late.said == "run-1: Collecting at debug since update 121."


def test_event_of_a_new_run_and_of_a_known_one_leave_one_of_each() -> None:
    """Documents replace what they are a newer state of."""
    picture = with_event(_picture(), "run", documents.run_summary(run="run-1", state="crashed"))
    picture = with_event(picture, "run", documents.run_summary(run="new"))

    assert len(picture.runs) == 41
    assert picture.runs[0]["run"] == "new"
    assert [item["state"] for item in picture.runs if item["run"] == "run-1"] == ["crashed"]


def test_keyboard_has_each_key_once_and_no_key_begins_another() -> None:
    """`g` alone must stay free while `g r` means something."""
    for where in (Where.TOP, Where.WEB):
        keys = [entry.key for entry in KEYBOARD if entry.where in (Where.BOTH, where)]
        assert len(keys) == len(set(keys)) == len(keys_of(where))
        assert not {key.split(" ")[0] for key in keys if " " in key.strip()} & set(keys)
