"""The store in memory: the second implementation of `store.protocol`, for simulations and as the suite's proof of itself.

`Memory` is what a disk is to the other one: it outlives the `MemoryStore` that writes it, so a daemon can be killed in a test
and another one opened on what it left. Rows are kept as they came; the roll-ups of what is thinned are those of the real
chunks, so both answer alike.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import ALL_RANKS, Checkpoint, SignalBlock, Stream
from gradwatch_daemon.store.chunks.rollup import add_totals, totals
from gradwatch_daemon.store.chunks.tail import encode_tail
from gradwatch_daemon.store.retention import Around, RawChunk, choose, outside
from gradwatch_daemon.store.schema import CHUNK_ROWS
from harness.memory_reader import MemoryReader
from harness.memory_rows import StreamRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from gradwatch_daemon.records import (
        Anomaly,
        Commit,
        Escalation,
        EventRecord,
        LossRecord,
        Run,
        Session,
        SignalKey,
        TableRecord,
    )
    from gradwatch_daemon.records.attention import Attention, Silence
    from gradwatch_daemon.records.commands import CommandRecord
    from gradwatch_daemon.records.notices import Delivery
    from gradwatch_daemon.store.protocol import Keep


class Memory:
    """Everything committed. Whoever reads or writes holds `guard`."""

    def __init__(self) -> None:
        self.guard = threading.RLock()
        self.written_by: MemoryStore | None = None
        self.streams: dict[Stream, StreamRows] = {}
        self.signals: dict[SignalKey, int] = {}
        self.sets: dict[tuple[SignalKey, ...], tuple[SignalKey, ...]] = {}
        self.runs: dict[str, Run] = {}
        self.sessions: dict[str, Session] = {}
        self.anomalies: dict[str, Anomaly] = {}
        self.escalations: dict[tuple[str, str], Escalation] = {}
        self.attention: dict[str, Attention] = {}
        self.silences: dict[str, Silence] = {}
        self.deliveries: dict[str, Delivery] = {}
        self.commands: dict[tuple[str, str], CommandRecord] = {}
        self.events: list[EventRecord] = []
        self.losses: list[LossRecord] = []
        self.tables: list[TableRecord] = []
        self.once: set[tuple[object, ...]] = set()
        self.checkpoints: dict[Stream, tuple[Checkpoint, int]] = {}
        self.waiting: dict[Stream, bytes] = {}

    def rows(self, stream: Stream) -> StreamRows:
        """The rows of a stream, which exists from now on."""
        return self.streams.setdefault(stream, StreamRows())

    def first(self, *key: object) -> bool:
        """Whether this was not kept before."""
        new = key not in self.once
        self.once.add(key)
        return new


class MemoryStore:
    """`store.protocol.Store` over a `Memory`; one at a time."""

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory = Memory() if memory is None else memory
        if self._memory.written_by is not None:
            raise GradwatchError("data-dir-unusable", where="memory", expected="no other store on it", got="one")
        self._memory.written_by = self

    def commit(self, batch: Commit) -> None:
        """Take the whole batch, or nothing: what could be wrong with it is looked at before anything is kept."""
        if self._memory.written_by is not self:
            raise GradwatchError("not-ready", where="store", expected="an open store", got="a closed one")
        for block in batch.blocks:
            encode_tail(block)
        for data in (
            *(table.values for table in batch.tables),
            *(point.state for point in batch.checkpoints),
            *(data for _, data in batch.waiting),
        ):
            memoryview(data)
        with self._memory.guard:
            self._take(batch)

    def _take(self, batch: Commit) -> None:
        memory = self._memory
        for block in batch.blocks:
            self._append(block)
        memory.runs.update((run.run, run) for run in batch.runs)
        for session in batch.sessions:
            memory.rows(session.stream)
            memory.sessions[session.session] = session
        memory.anomalies.update((anomaly.id, anomaly) for anomaly in batch.anomalies)
        memory.escalations.update(((record.run, record.id), record) for record in batch.escalations)
        memory.attention.update((attention.anomaly, attention) for attention in batch.attention)
        memory.deliveries.update((delivery.id, delivery) for delivery in batch.deliveries)
        memory.silences.update((silence.id, silence) for silence in batch.silences)
        memory.commands.update(((command.run, command.id), command) for command in batch.commands)
        for event in batch.events:
            memory.rows(event.stream)
            if event.seq < 0 or memory.first("event", event.session, event.seq):
                memory.events.append(event)
        for loss in batch.losses:
            memory.rows(loss.stream)
            if memory.first("loss", loss.session, loss.first_seq, loss.last_seq):
                memory.losses.append(loss)
        for table in batch.tables:
            memory.rows(table.stream)
            if table.seq < 0 or memory.first("table", table.session, table.seq):
                memory.tables.append(table)
        for stream, data in batch.waiting:
            memory.rows(stream)
            if data:
                memory.waiting[stream] = data
            else:
                memory.waiting.pop(stream, None)
        for point in batch.checkpoints:
            memory.checkpoints[point.stream] = (point, memory.rows(point.stream).count)

    def _append(self, block: SignalBlock) -> None:
        kept = self._memory.rows(block.stream)
        if not len(block):
            return
        columns = (block.update, block.t_ns, block.env_steps, block.level, block.flags)
        signals = self._memory.sets.setdefault(block.signals, block.signals)
        copies = [column.copy() for column in columns]
        copy = SignalBlock(block.stream, *copies, signals, block.values.copy(), block.status.copy())  # type: ignore[call-arg]
        done = 0
        while done < len(copy):
            count = min(len(copy) - done, CHUNK_ROWS - kept.count % CHUNK_ROWS)
            kept.blocks.append((kept.count, copy.select(slice(done, done + count))))
            kept.count, done = kept.count + count, done + count
        kept.update_last = max(kept.update_last, int(copy.update.max()))
        for key, newer in zip(signals, totals(block.update, block.values, block.status), strict=True):
            self._memory.signals.setdefault(key, len(self._memory.signals))
            kept.totals[key] = add_totals(kept.totals[key], newer) if key in kept.totals else newer

    def compact(self) -> int:
        """Nothing: memory has neither tails nor a log."""
        return 0

    def thin(self, keep: Keep, now_ns: int) -> dict[Stream, int]:
        """Leave of chunks that `keep` does not cover their roll-ups."""
        memory = self._memory

        def chunks(stream: Stream) -> list[RawChunk]:
            point = memory.checkpoints.get(stream)
            seen = memory.runs[stream.run].first_seen_ns
            return memory.streams[stream].raw_chunks(seen, None if point is None else point[1])

        def around(stream: Stream) -> Around:
            of_run = [a for a in memory.anomalies.values() if (a.run, a.attempt) == stream[:2]]
            return Around.of(a for a in of_run if a.rank in (stream.rank, ALL_RANKS))

        counts: dict[Stream, int] = {}
        with memory.guard:
            streams = [stream for stream in memory.streams if stream.run in memory.runs]
            for choice in choose(streams, chunks, around, keep, now_ns):
                if choice.old or self.size_bytes() > (keep.bytes_max or 0):
                    memory.streams[choice.stream].thin(choice.number)
                    self._take_tables(choice.stream, choice.number, around(choice.stream))
                    counts[choice.stream] = counts.get(choice.stream, 0) + CHUNK_ROWS
        return counts

    def _take_tables(self, stream: Stream, number: int, around: Around) -> None:
        rows = self._memory.streams[stream]
        held = [(int(block.update.min()), int(block.update.max())) for _, block in rows.blocks]
        gone = outside(rows.rolled[number].update_min, rows.rolled[number].update_max, [*around.ranges, *held])
        self._memory.tables = [
            table
            for table in self._memory.tables
            if table.stream != stream or not any(first <= table.update <= last for first, last in gone)
        ]

    def thinned(self) -> dict[Stream, int]:
        """Rows of each stream of which only roll-ups are left."""
        return {stream: len(kept.rolled) * CHUNK_ROWS for stream, kept in self._memory.streams.items() if kept.rolled}

    def raw_begin(self, stream: Stream) -> int:
        """Rows of a stream before those from which on none was thinned."""
        return self._memory.streams[stream].raw_begin if stream in self._memory.streams else 0

    def size_bytes(self) -> int:
        """Bytes of the values of all rows."""
        return sum(block.values.nbytes for kept in self._memory.streams.values() for _, block in kept.blocks)

    def runs(self) -> list[Run]:
        """All runs, in order of their names."""
        return [self._memory.runs[name] for name in sorted(self._memory.runs)]

    def session(self, id_: str) -> Session | None:
        """What is recorded of one process."""
        return self._memory.sessions.get(id_)

    def open_anomalies(self) -> list[Anomaly]:
        """Pending and firing ones, oldest first."""
        found = [anomaly for anomaly in self._memory.anomalies.values() if anomaly.state != "resolved"]
        return sorted(found, key=lambda anomaly: (anomaly.t_ns, anomaly.id))

    def anomaly(self, id_: str) -> Anomaly | None:
        """One anomaly."""
        return self._memory.anomalies.get(id_)

    def attention(self, anomalies: Sequence[str]) -> dict[str, Attention]:
        """What people did about these anomalies."""
        return self.reader().attention(anomalies)

    def silences(self) -> list[Silence]:
        """All silences, newest first."""
        return self.reader().silences()

    def silence(self, id_: str) -> Silence | None:
        """One silence."""
        return self._memory.silences.get(id_)

    def pauses(self) -> list[EventRecord]:
        """The events of kind `phase`, oldest first."""
        return [event for event in self._memory.events if event.kind == "phase"]

    def deliveries(self) -> list[Delivery]:
        """What people were told, newest first."""
        return self.reader().deliveries()

    def open_escalations(self) -> list[Escalation]:
        """Those that anything may still become of, oldest first."""
        found = [record for record in self._memory.escalations.values() if record.state.open]
        return sorted(found, key=lambda record: (record.requested_ns, record.run, record.id))

    def escalation(self, run: str, id_: str) -> Escalation | None:
        """One escalation of a run."""
        return self._memory.escalations.get((run, id_))

    def open_commands(self) -> list[CommandRecord]:
        """Those that anything may still become of, oldest first."""
        found = [command for command in self._memory.commands.values() if command.state.open]
        return sorted(found, key=lambda command: (command.requested_ns, command.run, command.id))

    def command(self, run: str, id_: str) -> CommandRecord | None:
        """One command of a run."""
        return self._memory.commands.get((run, id_))

    def checkpoint(self, stream: Stream) -> Checkpoint | None:
        """The newest checkpoint of a stream."""
        found = self._memory.checkpoints.get(stream)
        return None if found is None else found[0]

    def blocks_after(self, stream: Stream, update: int) -> Iterator[SignalBlock]:
        """Stored rows of updates above `update`, in order of arrival."""
        for block in self._from(stream, self.raw_begin(stream)):
            kept = block.update > update
            if kept.any():
                yield block if kept.all() else _pick(block, kept)

    def blocks_since_checkpoint(self, stream: Stream) -> Iterator[SignalBlock]:
        """Rows that arrived after those the newest checkpoint covers; all where there is none."""
        found = self._memory.checkpoints.get(stream)
        return self._from(stream, 0 if found is None else found[1])

    def _from(self, stream: Stream, row: int) -> Iterator[SignalBlock]:
        """The blocks from a row on, those too that come while they are read."""
        while stream in self._memory.streams:
            later = (found for found in self._memory.streams[stream].blocks if found[0] + len(found[1]) > row)
            at, block = next(later, (0, None))
            if block is None:
                return
            yield block.select(slice(max(row - at, 0), len(block)))
            row = at + len(block)

    def marks(self, stream: Stream) -> list[EventRecord]:
        """The events that detection made of a stream, oldest first."""
        return [
            event
            for event in self._memory.events
            if event.stream == stream and event.seq == -1 and event.kind in ("gap", "tick")
        ]

    def waiting(self) -> list[tuple[Stream, bytes]]:
        """The rows of ranks that are not combined yet."""
        return [(stream, self._memory.waiting[stream]) for stream in self._memory.streams if stream in self._memory.waiting]

    def row_counts(self) -> dict[Stream, tuple[int, int]]:
        """Rows and the largest update (or -1) of each stream."""
        return {stream: (kept.count, kept.update_last) for stream, kept in self._memory.streams.items()}

    def lost_count(self, run: str) -> int:
        """Records of a run covered by a LOSS, each counted once."""
        return count_lost(loss for loss in self._memory.losses if loss.stream.run == run)

    def reader(self) -> MemoryReader:
        """A reader for any threads."""
        return MemoryReader(self._memory)

    def close(self) -> None:
        """Let another one write. Again is harmless."""
        if self._memory.written_by is self:
            self._memory.written_by = None


def count_lost(losses: Iterable[LossRecord]) -> int:
    """Seqs that any of the losses covers."""
    edges: dict[str, list[tuple[int, int]]] = {}
    for loss in losses:
        edges.setdefault(loss.session, []).append((loss.first_seq, loss.last_seq + 1))
    lost = 0
    for ranges in edges.values():
        end = 0
        for first, last in sorted(ranges):
            lost += max(last - max(first, end), 0)
            end = max(end, last)
    return lost


def _pick(block: SignalBlock, rows: NDArray[np.bool_]) -> SignalBlock:
    return replace(
        block,
        **{name: getattr(block, name)[rows] for name in ("update", "t_ns", "env_steps", "level", "flags")},
        values=block.values[:, rows],
        status=block.status[:, rows],
    )
