"""A queue of records on a disk: what memory could not hold, or what no daemon has acked yet. Bounded, in order, losses told.

Segments are written at the end and read at the front. When there are more bytes than allowed, the oldest segments are thinned,
and when all are thin the oldest is replaced by its LOSS. Pure but for the files, which are an argument; belongs to one thread.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_agent.spool.thinning import thin
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.segments import (
    BOX,
    NOT_SPOOLED,
    cut_rows,
    read_box,
    read_segment,
    schema_id,
    segment_name,
    seqs_of,
    without_gaps,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gradwatch_agent.spool.files import SpoolFiles
    from gradwatch_contracts.segments import Segment

SPOOL_FULL = "spool full"


@dataclass(slots=True)
class Held:
    """One segment: its file, the last record in it, its bytes, the schemas it holds, and whether it was thinned or dropped."""

    name: str
    last_seq: int
    size: int
    schemas: set[str]
    thinned: bool = False
    dropped: bool = False


class Spool:
    """The records of one session on a disk; what `session.Outgoing` is, for a session that is over.

    Args:
        files: where the segments lie; what is there already is a part of the queue.
        hello: what each segment begins with; None for a spool that is only read.
        bytes_max: of all segments together.
    """

    def __init__(
        self, files: SpoolFiles, hello: Callable[[], m.Hello] | None = None, bytes_max: int = limits.SPOOL_BYTES
    ) -> None:
        self._files, self._hello, self._bytes_max = files, hello, bytes_max
        self._segments: deque[Held] = deque()
        self._schemas: dict[str, m.SchemaMessage] = {}
        self._next: deque[m.Message] = deque()
        self._read = 0  # segments that are in `_next` or were sent since the last rewind
        self._sent: deque[tuple[int, int, int]] = deque()  # last seq, records, bytes of each message in flight
        self.unacked = self.unacked_bytes = 0
        self.bytes_held = 0
        self._told: set[str] = set()
        self._taken_seq = self._acked_seq = -1
        self._forfeited: dict[int, str] = {}
        self.last_seq = -1
        self.greeting: m.Hello | None = None
        self.bye: m.Bye | None = None
        self._load()

    def _load(self) -> None:
        """Take up what is there: a segment that cannot be read at all counts, so that it is deleted with what follows it."""
        for name in self._files.names():
            segment, size = self._segment(name)
            schemas: set[str] = set()
            for message in segment.messages if segment is not None else ():
                seqs = seqs_of(message)
                self.last_seq = max(self.last_seq, seqs[1] if seqs is not None else -1)
                if isinstance(message, m.SchemaMessage):
                    schemas.add(schema_id(message))
            if segment is not None:
                self.greeting, self.bye = segment.hello, segment.bye or self.bye
            self._segments.append(Held(name, self.last_seq, size, schemas))
            self.bytes_held += size

    def _segment(self, name: str) -> tuple[Segment | None, int]:
        """A segment and its bytes; None where it cannot be read."""
        try:
            data = self._files.read(name)
        except OSError:
            return None, 0
        return read_segment(data), len(data)

    # Writing.

    @property
    def settled(self) -> bool:
        """Whether nothing is left: all that was stored is acked."""
        return not self._segments

    def store(self, messages: Iterable[m.Message]) -> int:
        """Write messages behind what is there; return the last record. Then make room, if it is too much.

        Raises:
            OSError: the disk does not take it; then none of it is stored.
        """
        for message in messages:
            if isinstance(message, m.SchemaMessage):
                self._schemas[schema_id(message)] = message
        held = self._segments[-1] if self._segments else None
        listed = [message for message in messages if seqs_of(message) is not None]
        if not listed:
            return self.last_seq
        if held is None or held.thinned or held.dropped or held.size >= limits.SPOOL_SEGMENT_BYTES:
            first = seqs_of(listed[0])
            assert first is not None
            held = Held(segment_name(first[0]), -1, 0, set())
        data, last, schemas = self._frames(listed, held)
        self._make_room(len(data))  # before, so that what raises here has stored nothing either
        self._files.append(held.name, data)
        held.schemas = schemas  # not before: where the disk took nothing, the segment holds none of them
        held.size += len(data)
        self.bytes_held += len(data)
        if held.last_seq < 0:
            self._segments.append(held)
        elif self._read >= len(self._segments):  # it was read before this came: go on behind what is known of it
            self._next.extend(listed)
        held.last_seq = self.last_seq = last
        return last

    def _frames(self, messages: Iterable[m.Message], held: Held) -> tuple[bytes, int, set[str]]:
        """The bytes to add to a segment, the last record in them, and the schemas that it holds then."""
        frames = [self._greet()] if not held.size else []
        last, known = -1, set(held.schemas)
        for message in messages:
            if isinstance(message, m.Samples) and message.schema not in known:
                known.add(message.schema)
                frames.append(encode(self._schemas[message.schema]))
            frames.append(encode(message))
            seqs = seqs_of(message)
            last = max(last, seqs[1] if seqs else -1)
        return b"".join(frames), last, known

    def _greet(self) -> bytes:
        hello = self._hello() if self._hello is not None else self.greeting
        assert hello is not None, "a spool that is only read is not written to"
        return encode(hello)

    def say_bye(self, bye: m.Bye) -> None:
        """Note how the session ended, behind its last record.

        Raises:
            OSError: it is not noted.
        """
        if self._segments:
            data = encode(bye)
            self._files.append(self._segments[-1].name, data)
            self._segments[-1].size += len(data)
            self.bytes_held += len(data)
            self.bye = bye

    def keep_box(self, tables: Iterable[m.Table]) -> None:
        """Put the newest black box beside the segments, in the place of the last.

        Raises:
            OSError: the disk does not take it; then the last one is still there.
        """
        self._files.replace(BOX, b"".join(encode(table) for table in tables))

    def take_over_box(self) -> None:
        """Of a session that was killed: its last black box becomes its last records."""
        if self.bye is not None or self.last_seq < 0:
            return
        with suppress(OSError):  # there is none, or no room for it
            box = read_box(self._files.read(BOX), self.last_seq + 1)
            self.store(box)
            self._files.remove(BOX)

    def _make_room(self, coming: int) -> None:
        """Thin from the oldest segment on, until there is room for as many bytes more; where all are thin, drop."""
        allowed = self._bytes_max - coming
        if self.bytes_held <= allowed:
            return
        for held in list(self._segments)[:-1]:
            if not held.thinned and not held.dropped:
                self._rewrite(held, thin)
                held.thinned = True
                if self.bytes_held <= allowed:
                    return
        while len(self._segments) > 2 and self.bytes_held > allowed:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Put a LOSS in the place of the oldest segment; neighbours that are only a LOSS become one."""
        first, second = self._segments[0], self._segments[1]
        gone = first if not first.dropped else second
        begin = int(first.name.split(".")[0])
        self._rewrite(first, lambda _: [m.Loss(begin, gone.last_seq, SPOOL_FULL)])
        first.last_seq, first.dropped, first.schemas = gone.last_seq, True, set()
        if gone is second:
            del self._segments[1]
            self._read -= self._read > 1
            self._remove(second)

    def _rewrite(self, held: Held, change: Callable[[tuple[m.Message, ...]], Iterable[m.Message]]) -> None:
        """Give a segment other messages. Of one that is on its way the daemon takes either: it has each record once."""
        segment, _ = self._segment(held.name)
        kept = change(segment.messages if segment is not None else ())
        data = b"".join([self._greet(), *(encode(message) for message in kept)])
        if change is thin and len(data) >= held.size:  # rows so small that their losses would take more
            return
        self._files.replace(held.name, data)
        self.bytes_held += len(data) - held.size
        held.size = len(data)

    def _remove(self, held: Held) -> None:
        """Delete a segment; one that cannot be deleted is sent again by the next attempt, which changes nothing."""
        self.bytes_held -= held.size
        with suppress(OSError):
            self._files.remove(held.name)

    # Reading.

    def take(self, window: int, window_bytes: int = limits.WINDOW_BYTES, messages_max: int = 8) -> list[m.Message]:
        """The next messages in order of seq, with at most so many records and bytes in flight after them."""
        messages: list[m.Message] = []
        while len(messages) < messages_max and self.unacked < window and self.unacked_bytes < window_bytes:
            message = self._front()
            if message is None:
                break
            seqs = seqs_of(message)
            if seqs is not None:
                if isinstance(message, m.Samples):
                    room = window - self.unacked
                    if message.n > room:
                        self._next.appendleft(cut_rows(message, seqs[0] + room))
                        message = cut_rows(message, seqs[0], seqs[0] + room)
                        seqs = (message.first_seq, message.first_seq + message.n - 1)
                self._send(message, *seqs)
            messages.append(message)
        return messages

    @property
    def drained(self) -> bool:
        """Whether everything stored was taken."""
        return self._taken_seq >= self.last_seq

    def _send(self, message: m.Message, first: int, last: int) -> None:
        count = 1 if isinstance(message, m.Loss) else last - first + 1
        size = len(encode(message))
        self._sent.append((last, count, size))
        self.unacked += count
        self.unacked_bytes += size
        self._taken_seq = last

    def _front(self) -> m.Message | None:
        """The next message to send; reads the next segment where that is due."""
        while True:
            while not self._next and self._read < len(self._segments):
                segment, _ = self._segment(self._segments[self._read].name)
                self._read += 1
                self._next.extend(without_gaps(segment.messages if segment else (), self._taken_seq))
            if not self._next:
                missing = self._taken_seq < self.last_seq
                return m.Loss(self._taken_seq + 1, self.last_seq, NOT_SPOOLED) if missing else None
            message = self._next.popleft()
            if isinstance(message, m.SchemaMessage):
                self._schemas[schema_id(message)] = message
            elif (seqs := seqs_of(message)) is not None and seqs[1] > self._taken_seq:
                return self._prepared(message, seqs[0])

    def _prepared(self, message: m.Message, first: int) -> m.Message:
        """The message, or what has to go before it: its schema, or the LOSS of a record that the daemon refuses."""
        if isinstance(message, m.Samples) and message.schema not in self._told and message.schema in self._schemas:
            self._told.add(message.schema)
            self._next.appendleft(message)
            return self._schemas[message.schema]
        reason = self._forfeited.pop(first, None)
        if reason is None:
            return message
        if isinstance(message, m.Samples) and message.n > 1:
            self._next.appendleft(cut_rows(message, first + 1))
        return m.Loss(first, first, reason)

    def ack(self, seq: int) -> None:
        """Forget what the daemon has, and delete the segments that hold nothing else."""
        self._acked_seq = max(self._acked_seq, min(seq, self._taken_seq))
        while self._sent and self._sent[0][0] <= self._acked_seq:
            _, count, size = self._sent.popleft()
            self.unacked -= count
            self.unacked_bytes -= size
        while self._read and self._segments and self._segments[0].last_seq <= self._acked_seq:
            self._read -= 1
            self._remove(self._segments.popleft())

    def rewind(self, seq: int) -> None:
        """A new connection, on which the daemon has everything up to `seq`: send what follows again, schemas too."""
        for part in (self._sent, self._next, self._told):
            part.clear()
        self._read = self.unacked = self.unacked_bytes = 0
        self._taken_seq = self._acked_seq = seq
        while self._segments and self._segments[0].last_seq <= seq:
            self._remove(self._segments.popleft())

    def forfeit(self, seq: int, reason: str) -> None:
        """Give record `seq` up: the daemon refuses it, and would each time."""
        self._forfeited[seq] = reason

    def end(self) -> None:
        """Close the files; an empty spool leaves nothing behind."""
        self._files.end()
