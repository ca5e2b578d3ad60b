"""An outbox with a spool behind it: what no daemon acks for a while goes to the disk, and from there to the daemon. In order.

Memory and disk hold each record once: the disk what is older, memory what is newer. The trainer's thread knows the outbox only;
everything here belongs to the link thread.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gradwatch_agent.session import checked
from gradwatch_contracts import limits
from gradwatch_contracts.errors import ContractError
from gradwatch_contracts.messages import Bye, Event, Result, Table

if TYPE_CHECKING:
    from gradwatch_agent.outbox import Outbox
    from gradwatch_agent.spool.disk import Spool
    from gradwatch_contracts.messages import Loss, Message

LOGGER = logging.getLogger("gradwatch")

SPILL_MESSAGES = 16
"""Messages written at a time, at most 500 rows: a few ms of the trainer's interpreter. The next turn writes on."""

LOST = "lost"
"""Reason of the BYE of a session that ended without a word of the trainer."""

RETRY_S = 10.0
"""After a write that failed: a full disk does not free itself faster."""


class SpillingOutbox:
    """What `session.Outgoing` is, for a session with a spool. `memory` is where the trainer puts, `disk` the spool."""

    def __init__(self, memory: Outbox, disk: Spool, now: float) -> None:
        self._memory, self._disk = memory, disk
        self._acked_seq = -1
        self._moved_at = now
        self._retry_at = self._box_at = now
        self._warned = self._ended = self._failed = False

    @property
    def durable(self) -> bool:
        """Whether what is not acked at the end is on the disk, so that nobody has to be told it is lost: not while the last
        write failed. Then what the disk did take is told as lost with the rest, which overstates and hides nothing."""
        return not self._failed

    def save(self) -> None:
        """Write what is not acked, before the daemon may be told the last word."""
        self._memory.absorb()
        while self._spill(0.0):
            pass

    def tend(self, live: bool, now: float) -> None:
        """Write to the disk what waited for too long or is too much; called each turn. `live`: a daemon takes what we send."""
        self._memory.absorb()
        acked_seq = self._memory.acked_seq
        if self.settled or (live and acked_seq != self._acked_seq):
            self._moved_at = now
        self._acked_seq = acked_seq
        waited = now - self._moved_at >= limits.SPOOL_AFTER_S
        if (waited or self._memory.crowded) and now >= self._retry_at:
            self._spill(now)

        if now >= self._box_at and not self._disk.settled:
            self._box_at = now + limits.SPOOL_BOX_S
            self._keep_box()

    def _keep_box(self) -> None:
        """While the disk holds records, hold the black box there too: nobody could ask for it before a kill."""
        box = self._memory.box()
        if box:
            try:
                self._disk.keep_box(box)
            except (OSError, ContractError) as error:
                LOGGER.debug("gradwatch: the black box is not in the spool: %s", error)

    def _spill(self, now: float) -> bool:
        """Move the oldest messages; whether there may be more."""
        messages = [self._sendable(message) for message in self._memory.hand_over(SPILL_MESSAGES)]
        if not messages:
            return False
        try:
            self._memory.release(self._disk.store(messages))
            self._failed = False
        except OSError as error:
            self._memory.keep()
            self._failed = True
            self._retry_at = now + RETRY_S
            if not self._warned:
                self._warned = True
                LOGGER.warning("gradwatch: the spool cannot be written (%s); the newest telemetry is kept in memory", error)
            return False
        return True

    def _sendable(self, message: Message) -> Message:
        """The message, or its LOSS where what a user gave cannot travel: in a segment it would end what can be read."""
        if isinstance(message, (Table, Event, Result)):
            try:
                checked(message)
            except ContractError as error:
                return self._memory.spoil(message, f"could not be sent: {error.code.slug}") or message
        return message

    # What a session asks for.

    @property
    def accepted(self) -> int:
        """Records numbered so far."""
        return self._memory.accepted

    @property
    def last_seq(self) -> int:
        """The last number given, -1 for none."""
        return self._memory.last_seq

    @property
    def settled(self) -> bool:
        """Whether everything put so far is acked."""
        return self._memory.settled and self._disk.settled

    def stop(self) -> None:
        """Close the intake."""
        self._memory.stop()

    def absorb(self) -> int:
        """Number what was put."""
        return self._memory.absorb()

    def put_result(self, id: str, state: str, update: int, reason: str = "") -> None:
        """Queue what became of a command."""
        self._memory.put_result(id, state, update, reason)

    def take(self, window: int, window_bytes: int = limits.WINDOW_BYTES) -> list[Message]:
        """The next messages; the disk's are older, so they go first."""
        self._memory.absorb()
        if not self._disk.drained:
            return self._disk.take(window, window_bytes)
        return self._memory.take(window - self._disk.unacked, window_bytes - self._disk.unacked_bytes)

    def ack(self, seq: int) -> None:
        """Forget everything up to `seq`."""
        self._disk.ack(seq)
        self._memory.ack(seq)

    def rewind(self, seq: int) -> None:
        """A new connection: `seq` is the last record the daemon has. What the disk has of the rest is not missing."""
        self._disk.rewind(seq)
        self._memory.rewind(seq if self._disk.settled else max(seq, self._disk.last_seq))

    def spoil(self, message: Message, reason: str) -> Loss | None:
        """Put a LOSS in the place of a message just taken that cannot travel."""
        return self._memory.spoil(message, reason)

    def forfeit(self, seq: int, reason: str) -> None:
        """Give record `seq` up: the daemon refuses it."""
        if self._disk.settled or seq > self._disk.last_seq:
            self._memory.forfeit(seq, reason)
        else:
            self._disk.forfeit(seq, reason)

    def discard(self, reason: str = "") -> None:
        """The end: what is not acked goes to the disk, with how the session ended, for whoever comes next."""
        if self._ended:
            return
        self._ended = True
        self._memory.stop()
        if not self.settled:
            self.save()
            if self._memory.pending:
                LOGGER.warning("gradwatch: the last %d records fit neither the daemon nor the spool", self._memory.pending)
            try:
                self._disk.say_bye(Bye(self._memory.last_seq, reason or LOST))
            except OSError as error:
                LOGGER.warning("gradwatch: the end of the run is not in the spool: %s", error)
        self._memory.discard()
        self._disk.end()
