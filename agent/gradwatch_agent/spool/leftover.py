"""The spool of a session that is over, as what its link sends from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_agent.spool.disk import Spool
from gradwatch_agent.spool.spilling import LOST
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.segments import seqs_of

if TYPE_CHECKING:
    from gradwatch_agent.spool.files import SpoolFiles


class Leftover:
    """`session.Outgoing` over a spool that nobody writes to any more. `reason` is that of its BYE, `lost` without one."""

    durable = True

    def __init__(self, files: SpoolFiles) -> None:
        self._disk = Spool(files)
        self._disk.take_over_box()
        self.greeting = self._disk.greeting
        self.bytes_held = self._disk.bytes_held
        self.reason = self._disk.bye.reason if self._disk.bye is not None else LOST

    @property
    def last_seq(self) -> int:
        """The last record that the session is known to have made."""
        return max(self._disk.last_seq, self._disk.bye.last_seq if self._disk.bye is not None else -1)

    @property
    def settled(self) -> bool:
        """Whether everything is acked."""
        return self._disk.settled

    @property
    def accepted(self) -> int:
        """No more come."""
        return self.last_seq + 1

    def absorb(self) -> int:
        """No more come."""
        return 0

    def tend(self, live: bool, now: float) -> None:
        """Nothing waits in memory."""

    def save(self) -> None:
        """It is where it was."""

    def take(self, window: int, window_bytes: int = limits.WINDOW_BYTES) -> list[m.Message]:
        """The next messages."""
        return self._disk.take(window, window_bytes)

    def ack(self, seq: int) -> None:
        """Forget everything up to `seq`."""
        self._disk.ack(seq)

    def rewind(self, seq: int) -> None:
        """A new connection."""
        self._disk.rewind(seq)

    def spoil(self, message: m.Message, reason: str) -> m.Loss | None:
        """Its LOSS: what travelled to the disk does not fail here, but for a bug."""
        seqs = seqs_of(message)
        return None if seqs is None else m.Loss(*seqs, reason[: limits.NAME_CHARS_MAX])

    def forfeit(self, seq: int, reason: str) -> None:
        """Give record `seq` up."""
        self._disk.forfeit(seq, reason)

    def put_result(self, id: str, state: str, update: int, reason: str = "") -> None:
        """Nobody is there who could do or refuse anything."""

    def stop(self) -> None:
        """No more come."""

    def discard(self, reason: str = "") -> None:
        """Close the files; what is delivered leaves nothing behind."""
        self._disk.end()
