"""Where the trainer leaves records for the link thread: no lock, bounded on the side that puts, and each drop counted.

Rows and evidence (tables, events, results, files) wait apart, so that rows push out no evidence however long the link thread
stays away, as it does while it writes to a disk that hangs. Taking them joins both in the order they were put.

`deque.append` and `popleft` are atomic. The bytes are an estimate: added to by whoever puts, lowered by the link thread, and
set to 0 when that finds the queue empty; a race makes them wrong by a record until then. Drops are counted exactly, by
thread: each adds only to its own.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Union

from gradwatch_agent.row import Row
from gradwatch_contracts.messages import Artifact, Event, Result, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

RECORD_BYTES = 400
"""Charged for each record besides its payload: objects, numbers and slots in queues (measured with tracemalloc)."""

TOO_LARGE = "larger than the outbox"
OUTBOX_FULL = "outbox full"
UPDATE_GONE = "queue full: update with its evidence"
"""Of a row that was never made, nor what it would have brought with it."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Stands for records that never became bytes."""

    count: int
    reason: str

    @property
    def size(self) -> int:
        """Bytes it is charged."""
        return RECORD_BYTES + len(self.reason)


Note = Union[Event, Result, Artifact]
Evidence = Union[Table, Note, Lost]
Record = Union[Row, Evidence]


class Draft(NamedTuple):
    """Stands for records that are yet to be made: `make` is called once, by the link thread, in the order of what was put.
    `size` bytes are charged for what it holds on to.

    One that is dropped, or cannot be made, is one loss, since nobody knows how many records it would have been: for the reason
    `gone` where it was dropped. `otherwise` is called then, on whichever thread, for what is to be said in its place."""

    size: int
    make: Callable[[], Iterable[Record]]
    gone: str = UPDATE_GONE
    otherwise: Callable[[], Iterable[Note]] = tuple


class Inbox:
    """Records that are not numbered yet. Rows may take `rows_bytes` together with those that are numbered, evidence
    `evidence_bytes`; beyond it the oldest of the same sort is dropped, of evidence a table first.

    `put_row` belongs to the trainer's thread, `put` to any, and the rest to the link thread.
    """

    def __init__(self, rows_bytes: int, evidence_bytes: int) -> None:
        self._rows_max, self._evidence_max = rows_bytes, evidence_bytes
        self._rows: deque[Lost | Draft] = deque()
        # Each entry with its place among all evidence, and how many rows were put before it.
        self._tables: deque[tuple[int, int, Evidence | Draft]] = deque()
        self._notes: deque[tuple[int, int, Evidence | Draft]] = deque()
        self._order = count()
        self._bytes = self._evidence_bytes = 0
        self._rows_put = 0
        self._crowded: dict[tuple[int, str], int] = {}  # (thread, reason) → records it dropped

    def __len__(self) -> int:
        return len(self._rows) + len(self._tables) + len(self._notes)

    @property
    def bytes_held(self) -> int:
        """Bytes charged for what waits, about."""
        return self._bytes + self._evidence_bytes

    @property
    def crowded(self) -> dict[str, int]:
        """Reason → records dropped so far by those who put."""
        found: dict[str, int] = {}
        for (_, reason), dropped in list(self._crowded.items()):
            found[reason] = found.get(reason, 0) + dropped
        return found

    def put_row(self, row: Draft | Lost, held: int) -> None:
        """Add a row that is yet to be made, or that so many never became bytes; `held` bytes of rows are numbered and wait
        elsewhere."""
        self._rows.append(row)
        self._rows_put += 1
        self._bytes += row.size
        if self._bytes + held > self._rows_max:
            self._crowd_rows(held)

    def put(self, record: Evidence | Draft) -> None:
        """Add evidence. What is larger than all that may be held is lost alone."""
        size = size_of(record)
        if size > self._evidence_max:
            record = Lost(1, TOO_LARGE)
            size = size_of(record)
        (self._tables if isinstance(record, Table) else self._notes).append((next(self._order), self._rows_put, record))
        self._evidence_bytes += size
        while self._evidence_bytes > self._evidence_max:
            try:
                _, _, oldest = (self._tables or self._notes).popleft()
            except IndexError:  # the link thread took it meanwhile
                return
            self._evidence_bytes -= size_of(oldest)
            self._count(oldest)
            if isinstance(oldest, Draft):
                for note in oldest.otherwise():
                    self.put(note)

    def _crowd_rows(self, held: int) -> None:
        """The link thread does not keep up: drop the oldest until it fits."""
        while self._bytes + held > self._rows_max:
            try:
                oldest = self._rows.popleft()
            except IndexError:
                return
            self._bytes -= oldest.size
            self._count(oldest)

    def _count(self, dropped: Record | Draft) -> None:
        reason = dropped.gone if isinstance(dropped, Draft) else OUTBOX_FULL
        key = threading.get_ident(), reason
        self._crowded[key] = self._crowded.get(key, 0) + (dropped.count if isinstance(dropped, Lost) else 1)

    def take(self) -> Iterator[Record | Draft]:
        """What is there now, in the order it was put; rows that were dropped may let evidence come a little early."""
        if not self:
            return
        tables, notes, rows = len(self._tables), len(self._notes), len(self._rows)  # not until empty: more may come for ever
        evidence = sorted((*_pop(self._tables, tables), *_pop(self._notes, notes)), key=lambda entry: entry[0])
        for _, before, record in evidence:
            while rows > 0 and self._rows_put - len(self._rows) < before and (row := self._row()) is not None:
                rows -= 1
                yield row
            self._evidence_bytes -= size_of(record)
            yield record
        while rows > 0 and (row := self._row()) is not None:
            rows -= 1
            yield row
        if not self._rows:
            self._bytes = 0
        if not (self._tables or self._notes):
            self._evidence_bytes = 0

    def _row(self) -> Lost | Draft | None:
        try:
            row = self._rows.popleft()
        except IndexError:
            return None
        self._bytes -= row.size
        return row

    def clear(self) -> None:
        """Forget all."""
        for queue in (self._rows, self._tables, self._notes):
            queue.clear()


def _pop(queue: deque[tuple[int, int, Evidence | Draft]], most: int) -> Iterator[tuple[int, int, Evidence | Draft]]:
    with suppress(IndexError):  # crowded out meanwhile
        for _ in range(most):
            yield queue.popleft()


def size_of(record: Record | Draft) -> int:
    """Bytes a record is charged."""
    if isinstance(record, (Draft, Lost)):
        return record.size
    if isinstance(record, Row):
        return RECORD_BYTES + len(record.values) + len(record.status)
    if isinstance(record, Table):
        texts = (*record.index, *record.names)
        return RECORD_BYTES + len(record.values) + sum(map(len, texts)) + 60 * len(texts)
    if isinstance(record, Event):
        return RECORD_BYTES + len(record.text) + sum(100 + len(str(value)) for value in record.detail.values())
    if isinstance(record, Artifact):
        return RECORD_BYTES + len(record.data)
    return RECORD_BYTES + len(record.reason)
