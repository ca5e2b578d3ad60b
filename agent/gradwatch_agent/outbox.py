"""Records on their way to the daemon: bounded in bytes, in order, and every loss told.

Two threads meet in the inbox. The link thread alone owns everything else: it takes records from there, numbers them, drops
what is too much, batches, and forgets what is acked. Numbers are given here and not at `put`, so a record that the trainer
never finished appending (Ctrl-C between two bytecodes) cannot leave a hole.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_agent.inbox import OUTBOX_FULL, TOO_LARGE, Draft, Inbox, Lost, size_of
from gradwatch_agent.lane import Lane
from gradwatch_agent.losses import Losses
from gradwatch_agent.row import Row, pack_rows, row_fault
from gradwatch_contracts import limits
from gradwatch_contracts.messages import Artifact, Event, Loss, Message, Result, Samples, SchemaMessage, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gradwatch_agent.inbox import Note, Record
    from gradwatch_agent.uploads import Upload
    from gradwatch_contracts.messages import Scalar

MESSAGES_PER_TAKE = 8
"""Messages built at a time, so that the bytes of a full window are never held twice."""

OUR_ERROR = "our error"
OTHER_STORE = "acked by an earlier store"


class Outbox:
    """The records of one session, numbered from 0: accepted = acked + pending + lost, always; with a
    spool, which takes over what it writes: + spooled.

    Rows may take `bytes_max`. Tables, events and results have `reserve_bytes` of their own, so that a full queue of rows
    cannot push out the last words of a dying run; of these, tables go first. Of each sort the oldest is dropped first,
    and a LOSS takes its place.
    """

    def __init__(self, bytes_max: int = limits.OUTBOX_BYTES, reserve_bytes: int = limits.OUTBOX_RESERVE_BYTES) -> None:
        self._bytes_max, self._reserve_bytes = bytes_max, reserve_bytes
        # So much above what may be numbered that what is numbered gives way first, being older.
        self._inbox = Inbox(bytes_max + reserve_bytes, reserve_bytes)
        self._open = True
        self._uploads: deque[Upload] = deque()
        # From here on: the link thread only.
        self._crowded_seen: dict[str, int] = {}
        self._rows: Lane[Row] = Lane(bytes_max // 2)
        self._tables: Lane[Table] = Lane(reserve_bytes // 2)
        self._notes: Lane[Note] = Lane(reserve_bytes // 2)
        self._lanes = (self._rows, self._tables, self._notes)
        self._losses, self._losses_sent = Losses(), Losses()
        self._schemas_sent: set[str] = set()
        self._next_seq = 0
        self._sent_seq = self._acked_seq = -1
        self.acked = 0
        self.lost = 0
        self.spooled = 0
        self.box: Callable[[], tuple[Table, ...]] = tuple
        """The black box as it is now, for a spool. Called on the link thread."""
        self.made_ns = 0
        """CPU time that the link thread took so far to make what was put as drafts, and to number it."""
        self.fail: Callable[[Exception], None] = lambda error: None
        """Told, on the link thread, why a draft could not be made."""

    durable = False
    """What is not acked at the end is lost, and has to be told."""

    def save(self) -> None:
        """There is no place that outlives the process."""

    # Any thread; `put_draft` and `lose` only the trainer's.

    def put_draft(self, draft: Draft) -> None:
        """Queue a row that the link thread is to make; with it may come evidence of its update. Takes less than a microsecond
        and no lock, and never fails; after `stop` it does nothing."""
        if self._open:
            self._inbox.put_row(draft, self._rows.bytes)

    def put_later(self, draft: Draft) -> None:
        """Queue evidence that the link thread is to make, after the rows put so far."""
        self._put(draft)

    def lose(self, count: int, reason: str) -> None:
        """Say that `count` rows never became bytes, and why, e.g. `device busy`."""
        if count > 0 and self._open:
            self._inbox.put_row(Lost(count, reason), self._rows.bytes)

    def put_event(self, kind: str, update: int, t_ns: int, text: str = "", detail: Mapping[str, Scalar] | None = None) -> None:
        """Queue an event; `t_ns` is unix time. The text is cut to what may travel."""
        self._put(Event(0, kind, update, t_ns, _fit(text), dict(detail or {})))

    def put_table(self, kind: str, update: int, index: tuple[str, ...], names: tuple[str, ...], values: bytes) -> None:
        """Queue a table; `values` is f64 little-endian [len(index) x len(names)], row-major."""
        self._put(Table(0, kind, update, index, names, values))

    def put_result(self, id: str, state: str, update: int, reason: str = "") -> None:
        """Queue what became of an escalation or command."""
        self._put(Result(0, id, state, update, _fit(reason)))

    def put_upload(self, upload: Upload) -> None:
        """Queue a file. Any thread; its next chunk is read when the one before has gone."""
        if self._open:
            self._uploads.append(upload)
        else:
            upload.close()

    def stop(self) -> None:
        """Close the intake: from now on nothing that is put is kept."""
        self._open = False

    def _put(self, record: Table | Note | Draft) -> None:
        if self._open:
            self._inbox.put(record)

    # The link thread.

    @property
    def accepted(self) -> int:
        """Records numbered so far."""
        return self._next_seq

    @property
    def pending(self) -> int:
        """Numbered records that are neither acked nor lost."""
        return sum(len(lane) for lane in self._lanes)

    @property
    def acked_seq(self) -> int:
        """Up to where the daemon acked, -1 for nothing."""
        return self._acked_seq

    @property
    def crowded(self) -> bool:
        """Whether more than half of what may be held is held."""
        return 2 * self.bytes_held > self._bytes_max

    @property
    def unacked(self) -> int:
        """Records in flight: sent, and neither acked nor to be sent again; a range of losses counts as one."""
        return sum(len(lane.sent) for lane in self._lanes) + len(self._losses_sent)

    @property
    def bytes_held(self) -> int:
        """Bytes charged for all records that are numbered and still held."""
        return sum(lane.bytes for lane in self._lanes)

    @property
    def last_seq(self) -> int:
        """The last number given, -1 for none."""
        return self._next_seq - 1

    @property
    def settled(self) -> bool:
        """Whether everything put so far is acked, losses included."""
        crowded = self._inbox.crowded != self._crowded_seen
        return not (self._inbox or crowded or self.pending or self._losses or self._losses_sent)

    def absorb(self) -> int:
        """Number what was put, drop what is too much; return how many records came. To be called without a daemon too."""
        before = self._next_seq
        crowded = self._inbox.crowded
        for reason, count in crowded.items():
            self._lose_new(count - self._crowded_seen.get(reason, 0), reason)
        self._crowded_seen = crowded
        if self._inbox:
            begin = time.thread_time_ns()
            for record in self._inbox.take():
                self._number(record)
            self.made_ns += time.thread_time_ns() - begin
        if self._uploads and not self._notes.holds(Artifact):
            for record in self._uploads[0].next():
                self._number(record)
            if self._uploads[0].done:
                self._uploads.popleft()
        return self._next_seq - before

    def tend(self, live: bool, now: float) -> None:
        """Called each turn of the link; there is no spool to write to."""

    def take(
        self, window: int, window_bytes: int = limits.WINDOW_BYTES, messages_max: int = MESSAGES_PER_TAKE
    ) -> list[Message]:
        """Return the next messages in order of seq, with at most `window` records in flight after them, and none while
        `window_bytes` are.

        Rows of one schema with consecutive seq share a message; a schema goes ahead of its first rows on a connection.
        """
        self.absorb()
        messages: list[Message] = []
        while len(messages) < messages_max and self.unacked < window and self._sent_bytes < window_bytes:
            firsts = (*(lane.first_seq for lane in self._lanes), self._losses.first_seq)
            first = min((seq for seq in firsts if seq is not None), default=None)
            if first is None:
                break
            if first == self._losses.first_seq:
                messages.append(self._take_loss())
                continue
            lane = next(lane for lane in self._lanes if lane.first_seq == first)
            if lane.blocked:
                break
            if lane is self._rows:
                messages += self._take_rows(window - self.unacked)
            else:
                messages.append(self._take_evidence(self._tables if lane is self._tables else self._notes))
        return messages

    def ack(self, seq: int) -> None:
        """Forget everything up to `seq`, but nothing that was never sent, whatever a daemon says."""
        seq = min(seq, self._sent_seq)
        self._acked_seq = max(self._acked_seq, seq)
        self.acked += sum(lane.ack(seq) for lane in self._lanes)
        self._losses_sent.forget(seq)
        self._losses.forget(seq)

    def rewind(self, seq: int) -> None:
        """A new connection: `seq` is the last record the daemon has; everything after it is sent again, schemas too.

        A daemon with another store may have less than was acked. Those records are gone here, so a LOSS closes the gap:
        without it that daemon would wait for them, and ack nothing, for ever.
        """
        self.ack(seq)
        if seq < self._acked_seq:
            self._losses.add(seq + 1, self._acked_seq, OTHER_STORE)
            self._acked_seq = seq
        self.keep()

    def hand_over(self, messages_max: int) -> list[Message]:
        """Return the oldest messages for a spool, those in flight too; then either `release` them or `keep` them."""
        self.keep()
        messages = self.take(limits.LOSS_RECORDS_MAX, limits.LOSS_RECORDS_MAX, messages_max)
        self._schemas_sent.clear()  # the daemon was not told of them
        return messages

    def release(self, seq: int) -> None:
        """Forget everything up to `seq`: a spool has it."""
        self.spooled += sum(lane.ack(seq) for lane in self._lanes)
        self._losses_sent.forget(seq)
        self.keep()

    def keep(self) -> None:
        """Send again whatever is in flight."""
        for lane in self._lanes:
            lane.rewind()
        self._losses.absorb(self._losses_sent)
        self._schemas_sent.clear()

    def spoil(self, message: Message, reason: str) -> Loss | None:
        """Put a LOSS in the place of a message just taken that cannot travel; None when it carries no record."""
        if isinstance(message, Samples):
            first, last = message.first_seq, message.first_seq + message.n - 1
        elif isinstance(message, (Event, Table, Result, Artifact)):
            first = last = message.seq
        else:
            return None
        gone = sum(lane.spoil(first, last) for lane in self._lanes)
        if gone:
            self.lost += gone
            self._losses_sent.add(first, last, reason)
        return Loss(first, last, reason[: limits.NAME_CHARS_MAX])

    def forfeit(self, seq: int, reason: str) -> None:
        """Give record `seq` up if it is the next to send: the daemon refuses it, and would each time."""
        for lane in self._lanes:
            if lane.first_seq == seq:
                self._drop(lane, reason)

    def discard(self, reason: str = "") -> None:
        """Nobody will ever want it: stop the intake and free everything."""
        self.stop()
        while self._uploads:
            self._uploads.popleft().close()
        for part in (self._inbox, *self._lanes, self._losses, self._losses_sent, self._schemas_sent):
            part.clear()

    @property
    def _sent_bytes(self) -> int:
        return sum(lane.sent_bytes for lane in self._lanes)

    def _number(self, record: Record | Draft) -> None:
        size = size_of(record)
        if isinstance(record, Draft):
            for one in self._make(record):
                self._number(one)
        elif isinstance(record, Lost):
            self._lose_new(record.count, record.reason)
        elif isinstance(record, Row):
            fault = row_fault(record) or (TOO_LARGE if size > self._bytes_max else "")
            if fault:
                self._lose_new(1, fault)
                return
            self._rows.put(self._next_seq, record, size)
            self._next_seq += 1
            while self._rows.bytes > self._bytes_max:
                self._drop(self._rows)
        elif size > self._reserve_bytes:
            self._lose_new(1, TOO_LARGE)
        else:
            if isinstance(record, Table):
                self._tables.put(self._next_seq, replace(record, seq=self._next_seq), size)
            else:
                self._notes.put(self._next_seq, replace(record, seq=self._next_seq), size)
            self._next_seq += 1
            while self._tables.bytes + self._notes.bytes > self._reserve_bytes:
                self._drop(self._tables if self._tables else self._notes)

    def _make(self, draft: Draft) -> Sequence[Record]:
        """The records of a draft. One that cannot be made takes nothing with it that was put beside it."""
        try:
            return tuple(draft.make())
        except Exception as error:
            self.fail(error)
        try:
            return (Lost(1, OUR_ERROR), *draft.otherwise())
        except Exception as error:
            self.fail(error)
            return (Lost(1, OUR_ERROR),)

    def _lose_new(self, count: int, reason: str) -> None:
        if count > 0:
            self._losses.add(self._next_seq, self._next_seq + count - 1, reason)
            self._next_seq += count
            self.lost += count

    def _drop(self, lane: Lane[Row] | Lane[Table] | Lane[Note], reason: str = OUTBOX_FULL) -> None:
        seq, was_sent = lane.drop()
        (self._losses_sent if was_sent else self._losses).add(seq, seq, reason)
        self.lost += 1

    def _take_rows(self, room: int) -> list[Message]:
        unsent = self._rows.unsent
        first, schema = unsent[0][0], unsent[0][1].schema
        rows: list[Row] = []
        while len(rows) < min(room, limits.ROWS_PER_MESSAGE) and unsent:
            seq, row, _ = unsent[0]
            if seq != first + len(rows) or row.schema.id != schema.id or self._rows.blocked:
                break
            rows.append(self._rows.send())
        self._sent_seq = max(self._sent_seq, first + len(rows) - 1)
        if schema.id in self._schemas_sent:
            return [pack_rows(first, rows)]
        self._schemas_sent.add(schema.id)
        return [SchemaMessage(schema.columns), pack_rows(first, rows)]

    def _take_evidence(self, lane: Lane[Table] | Lane[Note]) -> Message:
        record = lane.send()
        self._sent_seq = max(self._sent_seq, record.seq)
        return record

    def _take_loss(self) -> Loss:
        loss = self._losses.pop()
        self._losses_sent.add(loss.first_seq, loss.last_seq, loss.reason)
        self._sent_seq = max(self._sent_seq, loss.last_seq)
        return loss


def _fit(text: str) -> str:
    """The text as it may travel: UTF-8 of at most `limits.BODY_STR_BYTES_MAX` bytes."""
    data = text.encode("utf-8", "replace")[: limits.BODY_STR_BYTES_MAX]
    return data.decode("utf-8", "ignore")
