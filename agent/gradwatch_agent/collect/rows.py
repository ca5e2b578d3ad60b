"""From a finished update to its row: at once when its values are on the host, else when they have arrived, in order."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_agent.blackbox import KIND, BlackBox
from gradwatch_agent.collect.catalogue import Catalogue
from gradwatch_agent.row import Row
from gradwatch_contracts.messages import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.measurement import Underway
    from gradwatch_agent.outbox import Outbox
    from gradwatch_contracts.control import Level

PENDING_MAX = 64
"""Updates whose values are still on a device. More of them than slots wait only behind one that is stuck."""

DEVICE_BUSY = "device busy"
OUR_ERROR = "our error"
INTERRUPTED = "interrupted"
POLL_S = 0.001
"""Pause of `drain`, while the last copies arrive."""


def reason_of_loss(error: BaseException) -> str:
    """Why a row could not be made: by a failure of ours, or because somebody stopped the trainer in the middle of it."""
    return OUR_ERROR if isinstance(error, Exception) else INTERRUPTED


@dataclass(slots=True)
class Waiting:
    """One finished update. `underway`: its values on their way from devices; `lost`: no slot was free for them;
    `thinned`: of its level only what the host knows was collected, see `collect_every`; `resting`: the columns that were left
    out to save time."""

    update: int
    t_ns: int
    env_steps: int
    level: Level
    flags: int
    tally: Tally
    user: dict[str, float]
    underway: Underway | None = None
    lost: bool = False
    thinned: bool = False
    resting: frozenset[str] = frozenset()

    @property
    def done(self) -> bool:
        """Whether the row can be built."""
        return self.underway is None or self.underway.ticket.done


class RowQueue:
    """Finished updates, oldest first; `harvest` turns those that are complete into rows of the outbox. `say` is told of each
    row until it answers True. What the black box keeps of each update goes into `box`."""

    __slots__ = ("_catalogue", "_outbox", "_say", "_sync", "box", "pending")

    def __init__(self, outbox: Outbox, say: Callable[[Row], bool], *, sync: bool) -> None:
        self._say: Callable[[Row], bool] | None = say
        self._outbox = outbox
        self._catalogue = Catalogue()
        self.pending: deque[Waiting] = deque()
        self._sync = sync
        self.box = BlackBox()

    def expect_none(self, calls: Collection[str]) -> None:
        """Before the first row: these calls will not be made, so their columns are not listed. See `Catalogue`."""
        self._catalogue = Catalogue(calls)

    def put(self, waiting: Waiting) -> None:
        """Take a finished update; `harvest` builds it when it is complete."""
        if len(self.pending) >= PENDING_MAX:
            self._outbox.lose(1, DEVICE_BUSY)
        else:
            self.pending.append(waiting)

    def harvest(self) -> None:
        """Build the rows whose values have arrived. Waits for none, unless in sync mode."""
        pending = self.pending
        while pending and (self._sync or pending[0].done):
            try:
                waiting = pending.popleft()
                row = self._build(waiting)
            except BaseException as error:  # Ctrl-C too: a row that is gone is told
                self._outbox.lose(1, reason_of_loss(error))
                raise
            self._put_evidence(waiting)
            if self._say is not None and row is not None:
                say, self._say = self._say, None
                self._say = None if say(row) else say

    def drain(self, timeout_s: float) -> None:
        """Wait a little for copies under way; what does not arrive is lost."""
        deadline = time.monotonic() + timeout_s
        self.harvest()
        while self.pending and time.monotonic() < deadline:
            time.sleep(POLL_S)
            self.harvest()
        self._outbox.lose(len(self.pending), DEVICE_BUSY)
        self.pending.clear()

    def put_box(self, names: Sequence[str]) -> int:
        """Queue the black box as it is now, with the names of the parameters; returns how many updates are in it."""
        updates, blocks = self.box.freeze(names)
        for block in blocks:
            self._outbox.put_table(KIND, *block)
        return updates

    def keep_box(self, names: Sequence[str]) -> None:
        """Give the black box to the spool, for the day the process is killed."""
        self._outbox.keep_box(tuple(Table(0, KIND, *block) for block in self.box.freeze(names)[1]))

    def _build(self, waiting: Waiting) -> Row | None:
        if waiting.lost:
            self._outbox.lose(1, DEVICE_BUSY)
            return None
        if waiting.underway is not None:
            waiting.underway.tell(waiting.tally)
            if waiting.tally.norms:
                self.box.put(waiting.update, waiting.tally.norms)
        schema, values, status = self._catalogue.fill(
            waiting.level,
            waiting.flags,
            waiting.tally,
            waiting.user,
            thinned=waiting.thinned,
            resting=waiting.resting,
        )
        level, flags = int(waiting.level), int(waiting.flags)
        row = Row(waiting.update, waiting.t_ns, waiting.env_steps, level, flags, schema, values, status)
        self._outbox.put_row(row)
        return row

    def _put_evidence(self, waiting: Waiting) -> None:
        """Tables and events of the update, after its row."""
        tally = waiting.tally
        for kind, index, names, values in tally.tables:
            self._outbox.put_table(kind, waiting.update, index, names, values)
        for kind, text, detail in tally.events:
            self._outbox.put_event(kind, waiting.update, waiting.t_ns, text, detail)
