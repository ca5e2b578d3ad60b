"""Reading the store in memory. See `harness.memory_store`."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import Stream
from gradwatch_daemon.store.chunks.buckets import (
    bucket_rows,
    bucket_series,
    in_order,
    items_of_groups,
    items_of_rows,
    join_items,
    last_row,
    raw_series,
)
from gradwatch_daemon.store.chunks.rollup import GROUP_ROWS, cut_groups, decode_groups, decode_reasons, decode_value
from gradwatch_daemon.store.protocol import SignalSummary, Stretch
from gradwatch_daemon.store.schema import CHUNK_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gradwatch_daemon.records import Anomaly, Escalation, EventRecord, LossRecord, SignalBlock, SignalKey, TableRecord
    from gradwatch_daemon.records.attention import Attention, Silence
    from gradwatch_daemon.records.commands import CommandRecord
    from gradwatch_daemon.records.notices import Delivery
    from gradwatch_daemon.store.chunks.buckets import Items
    from gradwatch_daemon.store.protocol import AnomalyFilter, Series
    from harness.memory_rows import StreamRows
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
        bounds = _bound(first, _LEAST), _bound(last, _MOST)
        with self._reading() as memory:
            kept = memory.streams.get(stream)
            raw = join_items([] if kept is None else list(_items(kept, key, *bounds)))
            rolled, unmeasured = (join_items([]), Counter[int]()) if kept is None else _rolled(kept, key, *bounds)
        items = in_order([rolled, raw])
        codes, rows = np.unique(raw.status[raw.measured == 0], return_counts=True)
        unmeasured.update(dict(zip(codes.tolist(), rows.tolist(), strict=True)))
        held, thinned = int(items.rows.sum()), int(rolled.rows.sum())
        if held <= points and not thinned:
            return raw_series(key, items, dict(unmeasured))
        least = max(1 << (-(-held // points) - 1).bit_length(), GROUP_ROWS if thinned else 1)
        # Of rows that were thinned the last one is not known as it was.
        end = None if kept is not None and items.ordinal[-1] // CHUNK_ROWS in kept.rolled else last_row(raw)
        series = bucket_series(key, items, bucket_rows(items.ordinal, points, least), dict(unmeasured), end)
        return replace(series, thinned=thinned)

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
            and (wanted.among is None or a.run in wanted.among)
            and (wanted.apart is None or a.run not in wanted.apart)
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

    def escalation(self, run: str, id_: str) -> Escalation | None:
        """One escalation of a run."""
        with self._reading() as memory:
            return memory.escalations.get((run, id_))

    def command(self, run: str, id_: str) -> CommandRecord | None:
        """One command of a run."""
        with self._reading() as memory:
            return memory.commands.get((run, id_))

    def shadows(self, run: str) -> dict[str, int]:
        """How often each verb would have been asked for in a run."""
        with self._reading() as memory:
            found = [e for e in memory.events if e.stream.run == run and e.kind == "shadow" and e.seq == -1]
        return dict(Counter(str(event.detail["verb"]) for event in found))

    def delivery_counts(self) -> dict[tuple[str, str], int]:
        """How many deliveries there are, by channel and state."""
        return dict(Counter((delivery.channel, delivery.state) for delivery in self.deliveries()))

    def deliveries(self) -> list[Delivery]:
        """What people were told, newest first."""
        with self._reading() as memory:
            return sorted(memory.deliveries.values(), key=lambda delivery: delivery.id, reverse=True)

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

    def tables_between(self, stream: Stream, kind: str, first: int, last: int, limit: int) -> list[TableRecord]:
        """Tables of these updates in order of arrival, the last `limit`."""
        with self._reading() as memory:
            of_kind = [table for table in memory.tables if (table.stream, table.kind) == (stream, kind)]
        chosen = [table for table in of_kind if first <= table.update <= last]
        return chosen[max(0, len(chosen) - limit) :]

    def blocks_between(self, stream: Stream, first: int, last: int, limit: int) -> list[SignalBlock]:
        """Rows of these updates in order of arrival, the last `limit`."""
        with self._reading() as memory:
            kept = memory.streams.get(stream)
            blocks = [] if kept is None else [block for _, block in kept.blocks]
        chosen: list[SignalBlock] = []
        for block in reversed(blocks):
            for row in reversed(np.flatnonzero((block.update >= first) & (block.update <= last)).tolist()):
                chosen.append(block.select(slice(row, row + 1)))
        return chosen[: max(limit, 0)][::-1]

    def stretches(self, stream: Stream) -> list[Stretch]:
        """All rows as stretches, one row after the other."""
        with self._reading() as memory:
            kept = memory.streams.get(stream)
            parts = [] if kept is None else [(at, block.update, block.t_ns, block.level) for at, block in kept.blocks]
            for number, rolled in ({} if kept is None else kept.rolled).items():
                update, t_ns, _, level, _ = rolled.columns
                parts.append((number * CHUNK_ROWS, update, t_ns, level))
        found: list[Stretch] = []
        for _, updates, times, levels in sorted(parts, key=lambda part: part[0]):
            for update, at_ns, level in zip(updates.tolist(), times.tolist(), levels.tolist(), strict=True):
                if found and found[-1].update_last + 1 == update and found[-1].level == level:
                    found[-1] = replace(found[-1], update_last=update, last_ns=at_ns)
                else:
                    found.append(Stretch(update, update, at_ns, at_ns, level))
        return found

    def close(self) -> None:
        """Refuse from now on. Again is harmless."""
        self._closed = True


def _items(kept: StreamRows, key: SignalKey, first: int, last: int) -> Iterator[Items]:
    for at, block in kept.blocks:
        if key in block.signals:
            place = block.signals.index(key)
            chosen = (block.update >= first) & (block.update <= last)
            shared = np.arange(at, at + len(block)), block.update, block.t_ns, block.env_steps
            yield items_of_rows(shared, block.values[place], block.status[place], chosen)


def _rolled(kept: StreamRows, key: SignalKey, first: int, last: int) -> tuple[Items, Counter[int]]:
    """The roll-ups of a signal over a range, and what of it was not measured."""
    items, unmeasured = [], Counter[int]()
    for number, rolled in sorted(kept.rolled.items()):
        if key not in rolled.pieces or rolled.update_max < first or rolled.update_min > last:
            continue
        groups, reasons = decode_groups([rolled.pieces[key].groups])[0].copy(), rolled.pieces[key].reasons or b""
        if rolled.update_min < first or rolled.update_max > last:
            reasons = cut_groups(groups, rolled.marks[:, 0], rolled.update_max, first, last)
        begins = number * CHUNK_ROWS + np.arange(0, CHUNK_ROWS, GROUP_ROWS)
        items.append(items_of_groups(begins, rolled.marks, groups))
        unmeasured.update(decode_reasons([reasons]))
    return join_items(items), unmeasured


_LEAST, _MOST = -(2**63), 2**63 - 1


def _bound(update: int | None, open_end: int) -> int:
    """The nearest int64."""
    return open_end if update is None else min(max(update, _LEAST), _MOST)
