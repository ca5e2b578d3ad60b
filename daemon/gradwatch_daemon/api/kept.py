"""What of runs is kept between two answers because it hardly ever changes: a page that follows a run asks several times a
second, beside the thread that records it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from fastapi import Request

from gradwatch_daemon.api import models
from gradwatch_daemon.records import DetectorState, Stream

STREAMS_MAX = 256
"""Runs whose answers are kept; beyond it all are forgotten, and made anew."""

K = TypeVar("K")
V = TypeVar("V")

Shares = Mapping[int, tuple[int, float]]


@dataclass(slots=True)
class Kept:
    """One application's. Any thread may use it: each value is put whole, and at worst two threads make the same."""

    _standings: dict[str, tuple[tuple[DetectorState, ...], list[models.DetectorStanding]]] = field(default_factory=dict)
    _shares: dict[Stream, tuple[int, Shares]] = field(default_factory=dict)

    def standings(
        self, run: str, detectors: tuple[DetectorState, ...], make: Callable[[], list[models.DetectorStanding]]
    ) -> list[models.DetectorStanding]:
        """What `make` gave while the detectors of a run stood as they do: the same tuple, not only an equal one."""
        known = self._standings.get(run)
        if known is None or known[0] is not detectors:
            known = _put(self._standings, run, (detectors, make()))
        return known[1]

    def shares(self, stream: Stream, update_last: int, updates: int, make: Callable[[], Shares]) -> Shares:
        """What `make` gave for the newest `updates` of a stream, until a sixteenth of them is new."""
        known = self._shares.get(stream)
        if known is None or not 0 <= update_last - known[0] <= min(updates, update_last + 1) // 16:
            known = _put(self._shares, stream, (update_last, make()))
        return known[1]


def kept_of(request: Request) -> Kept:
    """The application's, made at its first use."""
    state = request.app.state
    if not hasattr(state, "kept"):
        state.kept = Kept()
    kept: Kept = state.kept
    return kept


def _put(kept: dict[K, V], key: K, value: V) -> V:
    if len(kept) >= STREAMS_MAX and key not in kept:
        kept.clear()
    kept[key] = value
    return value
