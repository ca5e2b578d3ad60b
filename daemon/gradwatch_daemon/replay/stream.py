"""Rows and marks of one stream through detection. Pure: the same as live, without a clock, a socket or a store."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.pipeline.stream import StreamDetection
from gradwatch_daemon.records.replayed import StreamReplay, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gradwatch_daemon.detect.catalogue import Profile
    from gradwatch_daemon.records import Anomaly, EventRecord, SignalBlock, Stream

EVERYTHING = Window()


def replay(
    stream: Stream,
    blocks: Iterable[SignalBlock],
    profile: Profile,
    *,
    marks: Sequence[EventRecord] = (),
    updates_total: int | None = None,
    first_row: int = 0,
    window: Window = EVERYTHING,
) -> StreamReplay:
    """Detect on the rows of one stream, in the order in which they came, however they are cut into blocks.

    `marks` are the losses and passed deadlines that live detected on, oldest first; `first_row` rows of the stream came
    before the first block. Where the blocks cannot be read on, what was found until there is returned, with the `trouble`.
    """
    rows = WindowedRows(blocks, window)
    opening = next(rows, None)
    before = first_row + rows.before
    # A mark says how many rows came before it; those before the first row replayed are of what the replay has not seen.
    seen = [mark for mark in marks if not before or int(mark.detail["rows"] or 0) > before]
    detection = StreamDetection(stream, Engine(profile), updates_total, before)
    found: dict[str, Anomaly] = {}
    for changed in detection.replay(rows if opening is None else chain([opening], rows), seen):
        found.update((anomaly.id, anomaly) for anomaly in changed)
    return StreamReplay(
        stream,
        rows.taken,
        rows.update_first,
        rows.update_last,
        before,
        rows.backward,
        rows.missing,
        rows.trouble,
        tuple(found.values()),
        detection.detector_states,
    )


class WindowedRows:
    """The rows of a window out of the blocks of one stream, counted as they pass. See `StreamReplay` for the counts;
    `before` are the rows that came before the window."""

    def __init__(self, blocks: Iterable[SignalBlock], window: Window) -> None:
        self.before = self.taken = self.backward = self.missing = 0
        self.update_first: int | None = None
        self.update_last: int | None = None
        self.trouble = ""
        self._blocks = iter(blocks)
        self._window = window
        self._over = False

    def __iter__(self) -> Iterator[SignalBlock]:
        return self

    def __next__(self) -> SignalBlock:
        while not self._over:
            try:
                block = next(self._blocks)
            except GradwatchError as error:
                self.trouble, self._over = error.detail, True
                break
            part = self._cut(block) if self._window else block
            if len(part):
                self._count(part)
                return part
        raise StopIteration

    def _cut(self, block: SignalBlock) -> SignalBlock:
        start, stop = 0, len(block)
        if self._window.first is not None and not self.taken:
            late = np.flatnonzero(block.update >= self._window.first)
            start = int(late[0]) if len(late) else len(block)
            self.before += start
        if self._window.last is not None:
            beyond = np.flatnonzero(block.update[start:] > self._window.last)
            if len(beyond):
                stop, self._over = start + int(beyond[0]), True
        return block.select(slice(start, stop))

    def _count(self, block: SignalBlock) -> None:
        last = [] if self.update_last is None else [self.update_last]
        steps = np.diff(np.concatenate([np.array(last, np.int64), block.update]))
        self.backward += int((steps <= 0).sum())
        self.missing += int(np.maximum(steps - 1, 0).sum())
        self.taken += len(block)
        if self.update_first is None:
            self.update_first = int(block.update[0])
        self.update_last = int(block.update[-1])
