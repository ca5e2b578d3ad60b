"""The live view: Textual reads keys and draws; what is drawn and where a key leads is decided in the pure modules."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import App, ComposeResult
from textual.widget import Widget
from textual.widgets import Input

from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.keyboard import Where, keys_of
from gradwatch_daemon.cli.failure import CommandError
from gradwatch_daemon.cli.top import acts
from gradwatch_daemon.cli.top.feed import Feed, Wanted
from gradwatch_daemon.cli.top.frame import Frame
from gradwatch_daemon.cli.top.pages import draw
from gradwatch_daemon.cli.top.picture import with_event
from gradwatch_daemon.cli.top.run_page import spark_cells
from gradwatch_daemon.cli.top.view import SPANS, Page, View, anomaly_at, run_at, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual import events

    from gradwatch_daemon.cli.client import Client
    from gradwatch_daemon.cli.top.feed import Change
    from gradwatch_daemon.cli.top.lines import Glyphs, Line
    from gradwatch_daemon.cli.top.picture import Picture

REDRAW_S = 0.25
"""Four pictures a second at most: over ssh every one of them travels."""

CLOCK_S = 1.0

_STYLES = {
    "critical": "bold red",
    "warning": "yellow",
    "info": "cyan",
    "ok": "green",
    "live": "green",
    "armed": "green",
    "resolved": "green",
    "ended": "dim",
    "firing": "bold red",
    "crashed": "bold red",
    "lost": "red",
    "stalled": "yellow",
    "slow": "yellow",
    "blind": "magenta",
    "learning": "cyan",
    "pending": "yellow",
    "dim": "dim",
    "bold": "bold",
    "cursor": "reverse",
}

_NAMES = {"enter": "Enter", "escape": "Escape", "down": "ArrowDown", "up": "ArrowUp"}
"""Textual's names of keys, as browsers and the keyboard map have them."""


class Canvas(Widget):
    """The page: lines as they are drawn for the size it has."""

    DEFAULT_CSS = "Canvas { width: 100%; height: 1fr; background: transparent; }"

    def __init__(self, paint: Callable[[int, int], list[Line]]) -> None:
        super().__init__()
        self._paint = paint

    def render(self) -> Text:
        """Textual asks whenever something of it changed."""
        rows = (Text.assemble(*((span.text, _style(span.style)) for span in row)) for row in self._paint(*self.size))
        text = Text("\n", no_wrap=True, end="").join(rows)
        text.no_wrap = True
        return text


def _style(words: str) -> Style:
    return Style.combine([Style(), *(Style.parse(_STYLES[word]) for word in words.split() if word in _STYLES)])


class TopApp(App[None]):
    """One canvas and, while something is typed, one line of input below it."""

    CSS = "Screen { background: transparent; } Input { dock: bottom; display: none; border: none; height: 1; padding: 0; }"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None  # the hidden input would take every key
    BINDINGS: ClassVar = []

    def __init__(
        self,
        connect: Callable[[], Client],
        picture: Picture,
        view: View,
        *,
        glyphs: Glyphs,
        readonly: bool,
        time: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(ansi_color=True)
        self.picture = picture
        self.view = view
        self._shown = picture
        self._connect = connect
        self._glyphs = glyphs
        self._readonly = readonly
        self._time = time
        self._clock = clock
        self._keys = keys_of(Where.TOP)
        self._chord = ""
        self._asked: Callable[[str], None] | None = None
        self._stale = False
        self._feed = Feed(connect, self._hand_over, clock)

    def compose(self) -> ComposeResult:
        """The canvas, and the input that is hidden."""
        yield Canvas(self._paint)
        yield Input(select_on_focus=False)

    def on_mount(self) -> None:
        """Begin to follow."""
        self.set_interval(REDRAW_S, self._redraw_if_stale)
        self.set_interval(CLOCK_S, self._redraw)
        self._feed.start()

    def on_resize(self) -> None:
        """A wider terminal has room for longer lines."""
        self._feed.want(self._wanted())

    def on_unmount(self) -> None:
        """The threads may outlive the view by one silence of the stream; they hand over nothing any more."""
        self._feed.stop()

    def _paint(self, cells: int, rows: int) -> list[Line]:
        frame = Frame(cells, rows, self._glyphs, self._readonly, self._time(), self._clock())
        return draw(self._shown if self.view.paused else self.picture, self.view, frame)

    def _hand_over(self, change: Change) -> None:
        try:
            self.call_from_thread(self._apply, change)
        except RuntimeError:
            self._feed.stop()  # the view is closed

    def _apply(self, change: Change) -> None:
        self.picture = change(self.picture)
        self._stale = True

    def _redraw_if_stale(self) -> None:
        if self._stale:
            self._redraw()

    def _redraw(self) -> None:
        self._stale = False
        self.query_one(Canvas).refresh()

    # -- keys -----------------------------------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        """One key of the map, or the second of two. While somebody types, keys are theirs but Escape."""
        typing = self._asked is not None
        key = _NAMES.get(event.key) or event.character or event.key
        if typing:
            if key == "Escape":
                self._done_typing()
            return
        pressed = f"{self._chord} {key}" if self._chord else key
        self._chord = pressed if any(known.startswith(f"{pressed} ") for known in self._keys) else ""
        action = self._keys.get(pressed)
        if action is not None:
            event.stop()
            self._act(action)

    def _act(self, action: str) -> None:
        if action == "quit":
            self.exit()
        elif action == "filter":
            self._ask("filter: ", self.view.filter, self._filter)
        elif action in ("escalate", "command", "acknowledge", "note"):
            self._request(action)
        else:
            if action == "pause":
                self._shown = self.picture
            self.view = step(self.view, action, self._shown if self.view.paused else self.picture)
            self._feed.want(self._wanted())
        self._redraw()

    def _wanted(self) -> Wanted:
        inside = self.view.page in (Page.RUN, Page.DETECTORS, Page.ANOMALY)
        return Wanted(self.view.run if inside else "", SPANS[self.view.span], spark_cells(self.size.width))

    # -- typing ---------------------------------------------------------------------------------------------------------

    def _ask(self, what: str, suggested: str, then: Callable[[str], None]) -> None:
        line = self.query_one(Input)
        line.placeholder, line.value = what, suggested
        line.display, self._asked = True, then
        self._say(what.strip())
        line.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """What was typed goes where it was asked for."""
        then, self._asked = self._asked, None
        self._done_typing()
        if then is not None:
            then(event.value)
        self._redraw()

    def _done_typing(self) -> None:
        line = self.query_one(Input)
        line.display, self._asked = False, None
        self._say("")
        self.set_focus(None)
        self._redraw()

    def _filter(self, words: str) -> None:
        self.view = replace(self.view, filter=words.strip(), cursor=0)

    def _say(self, what: str, *, asking: bool = False) -> None:
        self.picture = replace(self.picture, said=what, asking=asking, about="")
        self._shown = replace(self._shown, said=what, asking=asking, about="")

    # -- acts -----------------------------------------------------------------------------------------------------------

    def _request(self, action: str) -> None:
        """Ask for the words of an act on what is looked at."""
        run, anomaly = run_at(self.view, self.picture), anomaly_at(self.view, self.picture)
        if self._readonly:
            self._say("Read-only: started with --readonly.")
        elif action == "escalate" and run:
            self._ask(f"escalate {run}: LEVEL UPDATES [REASON]", acts.ESCALATE, self._escalation_of(run))
        elif action == "command" and run:
            self._ask(f"command {run}: VERB [NAME=VALUE ...]", acts.COMMAND, self._command_of(run))
        elif action in ("acknowledge", "note") and anomaly is not None:
            id_ = str(anomaly["id"])
            note = (anomaly["acknowledged"] or {"note": ""})["note"] if action == "note" else ""
            do = acts.acknowledge if action == "acknowledge" else acts.write_note
            what = "acknowledge" if action == "acknowledge" else "note on"
            self._ask(f"{what} {anomaly['kind']}: a note, or nothing", note, self._anomaly_act(id_, do))
        else:
            self._say("There is no anomaly here." if action in ("acknowledge", "note") else "There is no run here.")

    def _escalation_of(self, run: str) -> Callable[[str], None]:
        return lambda words: self._send(lambda client: acts.escalate(client, run, words), "escalation")

    def _command_of(self, run: str) -> Callable[[str], None]:
        return lambda words: self._send(lambda client: acts.command(client, run, words), "command")

    def _anomaly_act(self, id_: str, do: Callable[[Client, str, str], dict[str, Any]]) -> Callable[[str], None]:
        return lambda words: self._send(lambda client: do(client, id_, words), "anomaly")

    def _send(self, ask: Callable[[Client], dict[str, Any]], topic: str) -> None:
        """Ask in a thread. Until the daemon answers it says so; what it then says is the daemon's word, not our hope."""
        self._say("Asking the daemon ...", asking=True)

        def work() -> None:
            try:
                item = ask(self._connect())
            except (CommandError, GradwatchError) as error:
                failure = CommandError.of(error) if isinstance(error, GradwatchError) else error
                said = " ".join(" ".join(failure.lines()).split())
                self._hand_over(lambda picture: replace(picture, said=said, asking=False))
                return
            self._hand_over(lambda picture: with_event(replace(picture, about=item["id"], asking=False), topic, item))
            self._feed.refresh(item["run"])

        threading.Thread(target=work, name="top-ask", daemon=True).start()
