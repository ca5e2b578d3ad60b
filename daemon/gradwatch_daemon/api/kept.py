"""What of runs is kept between two answers because it hardly ever changes: a page that follows a run asks several times a
second, beside the thread that records it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

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
    _sent: dict[Stream, tuple[int, frozenset[str]]] = field(default_factory=dict)

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
        return _until_grown(self._shares, stream, update_last, updates, make)

    def sent(self, stream: Stream, rows: int, make: Callable[[], frozenset[str]]) -> frozenset[str]:
        """The signals that a stream sent, until its run has a sixteenth more `rows`: what it sends hardly ever changes."""
        return _until_grown(self._sent, stream, rows, rows, make)


def _until_grown(kept: dict[Stream, tuple[int, V]], stream: Stream, at: int, updates: int, make: Callable[[], V]) -> V:
    known = kept.get(stream)
    if known is None or not 0 <= at - known[0] <= min(updates, at + 1) // 16:
        known = _put(kept, stream, (at, make()))
    return known[1]


def _put(kept: dict[K, V], key: K, value: V) -> V:
    if len(kept) >= STREAMS_MAX and key not in kept:
        kept.clear()
    kept[key] = value
    return value
