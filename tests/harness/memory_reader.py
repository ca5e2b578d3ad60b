"""Reading the store in memory. See `harness.memory_store`."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import Stream
from gradwatch_daemon.store.chunks.buckets import bucket_rows, bucket_series, items_of_rows, join_items, last_row, raw_series
from gradwatch_daemon.store.chunks.rollup import decode_value
from gradwatch_daemon.store.protocol import SignalSummary, Stretch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gradwatch_daemon.attention import Attention, Silence
    from gradwatch_daemon.commands import CommandRecord
    from gradwatch_daemon.records import Anomaly, Escalation, EventRecord, LossRecord, SignalBlock, SignalKey, TableRecord
    from gradwatch_daemon.store.chunks.buckets import Items
    from gradwatch_daemon.store.protocol import AnomalyFilter, Series
    from harness.memory_store import Memory


class MemoryReader:
    """`store.protocol.StoreReader` over a `Memory`."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._closed = False

    @contextmanager
    def _reading(self) -> Iterator[Memory]:
        if self._closed:
            raise GradwatchError("not-ready", where="store", expected="an open reader", got="a closed one")
        with self._memory.guard:
            yield self._memory

    def signals(self, run: str, attempt: int, rank: int) -> list[SignalSummary]:
        """Every signal of a stream, in order of first appearance in the store."""
        with self._reading() as memory:
            kept = memory.streams.get(Stream(run, attempt, rank))
            found = {} if kept is None else kept.totals
            return [
                SignalSummary(key, t.update_last, t.status_last, decode_value(t.value_last), t.measured, t.nonfinite)
                for key, t in sorted(found.items(), key=lambda item: memory.signals[item[0]])
            ]

    def series(self, stream: Stream, key: SignalKey, first: int | None, last: int | None, points: int) -> Series:
        """A signal over updates as points or buckets, from its rows alone."""
        if points < 1:
            raise GradwatchError("invalid-argument", where="points", expected="1 or more", got=str(points))
        with self._reading() as memory:
            items = join_items(list(_items(memory, stream, key, first, last)))
        held = len(items.ordinal)
        codes, rows = np.unique(items.status[items.measured == 0], return_counts=True)
        unmeasured = dict(zip(codes.tolist(), rows.tolist(), strict=True))
        if held <= points:
            return raw_series(key, items, unmeasured)
        least = 1 << (-(-held // points) - 1).bit_length()
        return bucket_series(key, items, bucket_rows(items.ordinal, points, least), unmeasured, last_row(items))

    def anomalies(self, wanted: AnomalyFilter) -> list[Anomaly]:
        """Anomalies that match, newest first, after the cursor."""
        with self._reading() as memory:
            found = sorted(memory.anomalies.values(), key=lambda a: (a.t_ns, a.id), reverse=True)
        chosen = [
            a
            for a in found
            if wanted.run in (None, a.run)
            and (wanted.kind is None or wanted.kind in (a.kind, *(each.kind for each in a.attached)))
            and wanted.severity in (None, a.severity.value)
            and wanted.state in (None, a.state)
            and (wanted.since_ns is None or a.t_ns >= wanted.since_ns)
            and (wanted.cursor is None or (a.t_ns, a.id) < wanted.cursor)
        ]
        return chosen[: max(wanted.limit, 0)]

    def anomaly(self, id_: str) -> Anomaly | None:
        """One anomaly."""
        with self._reading() as memory:
            return memory.anomalies.get(id_)

    def escalations(self, run: str) -> list[Escalation]:
        """All escalations of a run, newest first."""
        with self._reading() as memory:
            found = [record for record in memory.escalations.values() if record.run == run]
        return sorted(found, key=lambda record: (record.requested_ns, record.id), reverse=True)

    def attention(self, anomalies: Sequence[str]) -> dict[str, Attention]:
        """What people did about these anomalies."""
        with self._reading() as memory:
            return {id_: memory.attention[id_] for id_ in anomalies if id_ in memory.attention}

    def silences(self) -> list[Silence]:
        """All silences, newest first."""
        with self._reading() as memory:
            return sorted(memory.silences.values(), key=lambda silence: (silence.created_ns, silence.id), reverse=True)

    def commands(self, run: str) -> list[CommandRecord]:
        """All commands of a run, newest first."""
        with self._reading() as memory:
            found = [command for command in memory.commands.values() if command.run == run]
        return sorted(found, key=lambda command: (command.requested_ns, command.id), reverse=True)

    def events(self, run: str, limit: int) -> list[EventRecord]:
        """The newest events of a run, newest first."""
        with self._reading() as memory:
            return [event for event in reversed(memory.events) if event.stream.run == run][:limit]

    def losses(self, run: str) -> list[LossRecord]:
        """All losses of a run, oldest first."""
        with self._reading() as memory:
            return [loss for loss in memory.losses if loss.stream.run == run]

    def tables(self, run: str, limit: int) -> list[TableRecord]:
        """The newest tables of a run, newest first."""
        with self._reading() as memory:
            return [table for table in reversed(memory.tables) if table.stream.run == run][:limit]

    def table_updates(self, stream: Stream, kind: str) -> list[int]:
        """The updates that have a table of a kind, ascending, each once."""
        with self._reading() as memory:
            return sorted({table.update for table in memory.tables if (table.stream, table.kind) == (stream, kind)})

    def tables_at(self, stream: Stream, kind: str, updates: Sequence[int]) -> list[TableRecord]:
        """The tables of these updates, by update, of several the last."""
        with self._reading() as memory:
            found = {table.update: table for table in memory.tables if (table.stream, table.kind) == (stream, kind)}
        return [found[update] for update in sorted(found) if update in updates]

    def blocks_between(self, stream: Stream, first: int, last: int, limit: int) -> list[SignalBlock]:
        """Rows of these updates in order of arrival, the last `limit`."""
        chosen: list[SignalBlock] = []
        for block in reversed(self._blocks(stream)):
            for row in reversed(np.flatnonzero((block.update >= first) & (block.update <= last)).tolist()):
                chosen.append(block.select(slice(row, row + 1)))
        return chosen[: max(limit, 0)][::-1]

    def stretches(self, stream: Stream) -> list[Stretch]:
        """All rows as stretches, one row after the other."""
        found: list[Stretch] = []
        for block in self._blocks(stream):
            for update, at_ns, level in zip(block.update.tolist(), block.t_ns.tolist(), block.level.tolist(), strict=True):
                if found and found[-1].update_last + 1 == update and found[-1].level == level:
                    found[-1] = replace(found[-1], update_last=update, last_ns=at_ns)
                else:
                    found.append(Stretch(update, update, at_ns, at_ns, level))
        return found

    def _blocks(self, stream: Stream) -> list[SignalBlock]:
        with self._reading() as memory:
            kept = memory.streams.get(stream)
            return [] if kept is None else list(kept.blocks)

    def close(self) -> None:
        """Refuse from now on. Again is harmless."""
        self._closed = True


def _items(memory: Memory, stream: Stream, key: SignalKey, first: int | None, last: int | None) -> Iterator[Items]:
    at = 0
    kept = memory.streams.get(stream)
    for block in [] if kept is None else kept.blocks:
        count = len(block)
        if key in block.signals:
            place = block.signals.index(key)
            chosen = (block.update >= _bound(first, _LEAST)) & (block.update <= _bound(last, _MOST))
            shared = np.arange(at, at + count), block.update, block.t_ns, block.env_steps
            yield items_of_rows(shared, block.values[place], block.status[place], chosen)
        at += count


_LEAST, _MOST = -(2**63), 2**63 - 1


def _bound(update: int | None, open_end: int) -> int:
    """The nearest int64."""
    return open_end if update is None else min(max(update, _LEAST), _MOST)
