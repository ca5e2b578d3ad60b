"""Keeps a picture up to date over HTTP: one thread follows the stream, one reads the run that is looked at.

Neither touches the picture: they hand over changes, functions from a picture to the next one, which are applied in order
where the picture lives.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.client import segment
from gradwatch_daemon.cli.failure import CommandError
from gradwatch_daemon.cli.follow import PASSING, RECONNECT_S
from gradwatch_daemon.cli.top.picture import ANOMALIES_MAX, Closeup, Picture, newest_first, with_event
from gradwatch_daemon.cli.top.run_page import shown_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_daemon.cli.client import Client

    Change = Callable[[Picture], Picture]

TOPICS = "run,anomaly,escalation,command"
REREAD_S = 1.0
"""Between two readings of the run that is looked at: a dozen series cost the daemon about 10 ms."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The run to read, '' for none; how many updates its lines reach back (None: all), and into how many points."""

    run: str = ""
    span: int | None = None
    points: int = 60


def first_picture(client: Client) -> Picture:
    """Everything but a close-up.

    Raises:
        CommandError: the daemon cannot be reached, or refuses.
    """
    return _everything(client)(Picture(client.address.url))


def _everything(client: Client) -> Change:
    """What the stream does not repeat: the daemon, all runs, the newest anomalies."""
    daemon = client.get("/api/v1/daemon")
    runs = client.listed("/api/v1/runs")["items"]
    anomalies = client.get("/api/v1/anomalies", limit=ANOMALIES_MAX)["items"]
    return lambda picture: replace(
        picture, url=client.address.url, daemon=daemon, runs=tuple(runs), anomalies=newest_first(anomalies), lost=""
    )


def read_closeup(client: Client, wanted: Wanted) -> Closeup:
    """A run with its signals, their series, and its escalations.

    Raises:
        CommandError: the daemon cannot be reached, or does not know the run.
    """
    path = f"/api/v1/runs/{segment(wanted.run)}"
    run = client.get(path)
    signals = client.listed(f"{path}/signals", limit=None)["items"]
    escalations = client.listed(f"{path}/escalations", limit=None)["items"]
    first = None
    if wanted.span is not None and run["update_last"] is not None:
        first = max(run["update_last"] - wanted.span + 1, 0)
    series = {}
    for item in shown_signals(signals):
        asked: dict[str, Any] = {"signal": item["signal"], "subject": item["subject"], "from_": first, "points": wanted.points}
        series[item["signal"], item["subject"]] = client.get(f"{path}/series", **asked)
    return Closeup(run, tuple(signals), series, tuple(escalations))


class Feed:
    """Two threads over `connect`, which is called anew for each try: a restarted daemon may have moved.

    `hand_over` is given changes, from both threads; `clock` gives seconds.
    """

    def __init__(self, connect: Callable[[], Client], hand_over: Callable[[Change], None], clock: Callable[[], float]) -> None:
        self._connect = connect
        self._hand_over = hand_over
        self._clock = clock
        self._wanted = Wanted()
        self._due = threading.Event()
        self._over = threading.Event()

    def start(self) -> None:
        """Begin. The threads do not keep the process alive."""
        for work in (self._follow, self._look):
            threading.Thread(target=work, name=f"top{work.__name__}", daemon=True).start()

    def stop(self) -> None:
        """Nothing is handed over from now on."""
        self._over.set()
        self._due.set()

    def want(self, wanted: Wanted) -> None:
        """Read this run from now on; at once if it is another one."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._due.set()

    def refresh(self, run: str) -> None:
        """Something of this run changed."""
        if run == self._wanted.run:
            self._due.set()

    def _give(self, change: Change) -> None:
        if not self._over.is_set():
            self._hand_over(change)

    def _follow(self) -> None:
        """The stream, taken up again after its last event for ever; after a gap or a new daemon everything is read anew."""
        last_id = ""
        while not self._over.is_set():
            try:
                client = self._connect()
                for event in client.stream(last_id, topics=TOPICS):
                    if self._over.is_set():
                        return
                    if event.name in ("hello", "gap"):
                        self._give(_everything(client))
                        self._due.set()
                    elif event.name != "bye":
                        self._give(_changed(event.name, event.data))
                        self.refresh(event.data["run"])
                    last_id = event.id or last_id
                self._lost("the daemon ended the stream.")
            except (CommandError, GradwatchError) as error:
                failure = CommandError.of(error) if isinstance(error, GradwatchError) else error
                self._lost(f"{failure.what} {failure.why}".strip() if failure.code in PASSING else " ".join(failure.lines()))
            self._over.wait(RECONNECT_S)

    def _lost(self, why: str) -> None:
        now = self._clock()

        def change(picture: Picture) -> Picture:
            return replace(picture, lost=why, lost_at=picture.lost_at if picture.lost else now)

        self._give(change)

    def _look(self) -> None:
        """The close-up, when something changed, and not more often than `REREAD_S`."""
        while not self._over.is_set():
            self._due.wait()
            self._due.clear()
            wanted = self._wanted
            if wanted.run and not self._over.is_set():
                try:
                    closeup = read_closeup(self._connect(), wanted)
                except (CommandError, GradwatchError):
                    continue  # the stream notices too, and says so
                self._give(_closer(closeup))
                self._over.wait(REREAD_S)


def _changed(name: str, document: dict[str, Any]) -> Change:
    return lambda picture: with_event(picture, name, document)


def _closer(closeup: Closeup) -> Change:
    return lambda picture: replace(picture, closeup=closeup)
