"""Since when each run waits for its next update, and which of its trainers are in a phase that updates wait for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_daemon.anomalies.liveness import pause_patience_s

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gradwatch_daemon.pipeline.work import Now
    from gradwatch_daemon.records import EventRecord, Stream


PHASES_MAX = 16
"""Kinds of pauses of one run that are told apart; an agent of ours has two, but what a trainer sends is its own."""

PHASE_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class Paused:
    """A trainer evaluates or saves: the `n`-th pause of its process, since `begun` on our clocks."""

    name: str
    n: int
    begun: Now


class Pace:
    """On the daemon's own clocks: the trainer's may stand anywhere. Streams are those that are judged. `past` are the events
    of kind `phase` of before."""

    def __init__(self, past: Iterable[EventRecord] = ()) -> None:
        self._moved: dict[Stream, Now] = {}
        self._gap_s: dict[Stream, float] = {}
        self._pauses: dict[Stream, dict[int, Paused]] = {}
        self._ended: dict[Stream, dict[int, int]] = {}
        self._longest_s: dict[str, dict[str, float]] = {}
        for event in past:
            self._learn(event)

    def move(self, stream: Stream, now: Now) -> None:
        """An update came."""
        before = self._moved.get(stream)
        self._gap_s[stream] = 0.0 if before is None else now.mono_s - before.mono_s
        self._moved[stream] = now

    def greet(self, stream: Stream, rank: int, now: Now) -> None:
        """A trainer is there, perhaps again: it is not late from before, and tells anew of a pause it is in."""
        self.leave(stream, rank)
        self._restart(stream, now)

    def leave(self, stream: Stream, rank: int) -> None:
        """A trainer is gone, and with it what it was in."""
        self._pauses.get(stream, {}).pop(rank, None)
        self._ended.get(stream, {}).pop(rank, None)

    def forget(self, stream: Stream) -> None:
        """Nobody feeds it any more."""
        for known in (self._moved, self._gap_s, self._pauses, self._ended):
            known.pop(stream, None)

    def hear(self, stream: Stream, rank: int, event: EventRecord, now: Now) -> None:
        """Take an event of kind `phase`. Its begin may come behind its end; then it is over all the same."""
        name, n, over = event.detail.get("phase"), event.detail.get("n"), event.detail.get("over")
        if not isinstance(name, str) or not isinstance(n, int):
            return
        pauses, ended = self._pauses.setdefault(stream, {}), self._ended.setdefault(stream, {})
        if over:
            self._learn(event)
            ended[rank] = max(n, ended.get(rank, 0))
            pauses.pop(rank, None)
            self._restart(stream, now)
        elif n > ended.get(rank, 0):
            pauses.setdefault(rank, Paused(name[:PHASE_CHARS_MAX], n, now))

    def waited(self, stream: Stream, now: Now) -> tuple[float, Now]:
        """Seconds since the last update, the end of a pause or the first greeting, and when that was."""
        moved = self._moved.setdefault(stream, now)
        return now.mono_s - moved.mono_s, moved

    def gap_s(self, stream: Stream) -> float:
        """Between the last two updates; 0.0 where that is not known."""
        return self._gap_s.get(stream, 0.0)

    def pause(self, stream: Stream) -> Paused | None:
        """What some rank is in, the one that has been for longest; None for nothing."""
        pauses: Iterable[Paused] = self._pauses.get(stream, {}).values()
        return min(pauses, key=lambda paused: paused.begun.mono_s, default=None)

    def longest_s(self, stream: Stream, name: str) -> float:
        """The longest such pause of the run that ended, as far as we have seen; 0.0 for none."""
        return self._longest_s.get(stream.run, {}).get(name, 0.0)

    def excused(self, stream: Stream, now: Now) -> bool:
        """Whether an update is not to be expected now."""
        pause = self.pause(stream)
        return pause is not None and now.mono_s - pause.begun.mono_s <= pause_patience_s(self.longest_s(stream, pause.name))

    def _learn(self, event: EventRecord) -> None:
        """How long a pause took that is over. The longest of each kind is the run's, over its attempts and our restarts."""
        name, seconds = event.detail.get("phase"), event.detail.get("seconds")
        if not event.detail.get("over") or not isinstance(name, str) or not isinstance(seconds, (int, float)):
            return
        longest = self._longest_s.setdefault(event.stream.run, {})
        name = name[:PHASE_CHARS_MAX]
        if math.isfinite(seconds) and (name in longest or len(longest) < PHASES_MAX):
            longest[name] = max(longest.get(name, 0.0), float(seconds))

    def _restart(self, stream: Stream, now: Now) -> None:
        self._moved[stream] = now
        self._gap_s[stream] = 0.0
