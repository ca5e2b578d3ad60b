"""Records of one sort on their way: not sent yet, or sent and not acked. In order of seq, with their bytes."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

R = TypeVar("R")


class Lane(Generic[R]):
    """Two queues of (seq, record, bytes). Every seq in `sent` is below every one in `unsent`.

    At most `sent_bytes_max` bytes are sent and unacked, or one record: a daemon that stopped acking must leave room for
    what is new.
    """

    __slots__ = ("_sent_bytes", "_sent_bytes_max", "bytes", "sent", "unsent")

    def __init__(self, sent_bytes_max: int) -> None:
        self.unsent: deque[tuple[int, R, int]] = deque()
        self.sent: deque[tuple[int, R, int]] = deque()
        self.bytes = 0
        self._sent_bytes = 0
        self._sent_bytes_max = sent_bytes_max

    def __len__(self) -> int:
        return len(self.unsent) + len(self.sent)

    @property
    def first_seq(self) -> int | None:
        """The next record to send, None when there is none."""
        return self.unsent[0][0] if self.unsent else None

    @property
    def sent_bytes(self) -> int:
        """Bytes that are sent and not acked."""
        return self._sent_bytes

    @property
    def blocked(self) -> bool:
        """Whether the next record has to wait for an ack."""
        return bool(self.sent and self.unsent) and self._sent_bytes + self.unsent[0][2] > self._sent_bytes_max

    def holds(self, kind: type) -> bool:
        """Whether a record of this kind is on its way."""
        return any(isinstance(record, kind) for queue in (self.unsent, self.sent) for _, record, _ in queue)

    def put(self, seq: int, record: R, size: int) -> None:
        """Queue a record behind all others."""
        self.unsent.append((seq, record, size))
        self.bytes += size

    def send(self) -> R:
        """Return the next record, which counts as sent from now on."""
        entry = self.unsent.popleft()
        self.sent.append(entry)
        self._sent_bytes += entry[2]
        return entry[1]

    def ack(self, seq: int) -> int:
        """Forget everything up to `seq`, also what was to be sent again; return how many records."""
        before = len(self)
        while self.sent and self.sent[0][0] <= seq:
            self._forget_sent(self.sent.popleft())
        while self.unsent and self.unsent[0][0] <= seq:
            self.bytes -= self.unsent.popleft()[2]
        return before - len(self)

    def rewind(self) -> None:
        """Send again whatever is not acked."""
        self.unsent.extendleft(reversed(self.sent))
        self.sent.clear()
        self._sent_bytes = 0

    def drop(self) -> tuple[int, bool]:
        """Drop the oldest unsent record, else the oldest sent one; return its seq and whether it was sent.

        A sent one may well be committed, and calling it lost would overstate: it goes only when nothing else is left.
        """
        if self.unsent:
            seq, _, size = self.unsent.popleft()
            self.bytes -= size
            return seq, False
        oldest = self.sent.popleft()
        self._forget_sent(oldest)
        return oldest[0], True

    def spoil(self, first: int, last: int) -> int:
        """Take the sent records `first` to `last` out; return how many there were."""
        spoiled = [entry for entry in self.sent if first <= entry[0] <= last]
        for entry in spoiled:
            self.sent.remove(entry)
            self._forget_sent(entry)
        return len(spoiled)

    def clear(self) -> None:
        """Forget all."""
        self.unsent.clear()
        self.sent.clear()
        self.bytes = self._sent_bytes = 0

    def _forget_sent(self, entry: tuple[int, R, int]) -> None:
        self.bytes -= entry[2]
        self._sent_bytes -= entry[2]
