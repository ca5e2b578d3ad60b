"""Which rows may go when not all can stay: the oldest first, those around anomalies last. Pure.

What goes is the rows of a whole chunk, and the tables of its updates but for those near an anomaly; its roll-ups of 64 rows
stay for good, and so do anomalies, events and losses.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from gradwatch_daemon.records import Anomaly, Stream
    from gradwatch_daemon.store.protocol import Keep

AROUND_UPDATES = 256
"""Kept on either side of where an anomaly began, fired and was last seen: what came before it and what became of it."""

CHUNKS_PER_CALL = 4
"""Chunks of one `thin()`: a few ms each, and commits wait for it."""


class RawChunk(NamedTuple):
    """A chunk that still has its rows; `t_ns` is when its rows were made, or its run first heard of if that is later: a log
    that was imported today is not old."""

    number: int
    update_min: int
    update_max: int
    t_ns: int


@dataclass(frozen=True, slots=True)
class Around:
    """The updates of a stream that are kept because of an anomaly, as ranges with both ends included."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, anomalies: Iterable[Anomaly]) -> Around:
        """Around the onset, the firing and the last update of each."""
        ranges = []
        for anomaly in anomalies:
            ranges.append((anomaly.update_onset - AROUND_UPDATES, anomaly.update_fired + AROUND_UPDATES))
            ranges.append((anomaly.update_last - AROUND_UPDATES, anomaly.update_last + AROUND_UPDATES))
        return cls(tuple(ranges))

    def touches(self, chunk: RawChunk) -> bool:
        """Whether some update of the chunk is kept."""
        return any(first <= chunk.update_max and last >= chunk.update_min for first, last in self.ranges)


def outside(first: int, last: int, kept: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of the updates `first` to `last` lies in no range of `kept`, as ranges; both ends of each are included."""
    found, start = [], first
    for low, high in sorted(kept):
        if start < low and start <= last:
            found.append((start, min(low - 1, last)))
        start = max(start, high + 1)
    return [*found, (start, last)] if start <= last else found


class Choice(NamedTuple):
    """A chunk to thin; `old` by its age, else only while the store is too large."""

    stream: Stream
    number: int
    old: bool


def choose(
    streams: Sequence[Stream],
    chunks: Callable[[Stream], Iterable[RawChunk]],
    around: Callable[[Stream], Around],
    keep: Keep,
    now_ns: int,
) -> list[Choice]:
    """The `CHUNKS_PER_CALL` chunks that can best be missed, in that order.

    `chunks` gives those of a stream that still have their rows and may lose them, in order of arrival.
    """
    found: dict[tuple[Stream, int], Choice] = {}
    for choice in _in_order(streams, chunks, around, keep, now_ns):
        found.setdefault((choice.stream, choice.number), choice)
        if len(found) == CHUNKS_PER_CALL:
            break
    return list(found.values())


def _in_order(
    streams: Sequence[Stream],
    chunks: Callable[[Stream], Iterable[RawChunk]],
    around: Callable[[Stream], Around],
    keep: Keep,
    now_ns: int,
) -> Iterator[Choice]:
    """Lazy, since few are taken; a chunk that is old and dispensable comes twice."""
    if keep.age_ns is not None:
        for stream in streams:
            for chunk in chunks(stream):
                if chunk.t_ns >= now_ns - keep.age_ns:
                    break
                if not around(stream).touches(chunk):
                    yield Choice(stream, chunk.number, old=True)
    if keep.bytes_max is not None:
        for near in (False, True):
            oldest = heapq.merge(*(_of_stream(s, chunks(s), around(s), near) for s in streams), key=lambda found: found[0])
            yield from (choice for _, choice in oldest)


def _of_stream(stream: Stream, chunks: Iterable[RawChunk], around: Around, near: bool) -> Iterator[tuple[int, Choice]]:
    return ((c.t_ns, Choice(stream, c.number, old=False)) for c in chunks if around.touches(c) is near)
