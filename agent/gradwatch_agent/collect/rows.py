"""From a finished update to its row. The trainer's thread hands over what was measured as soon as it is on the host, in order;
the link thread makes the row of it, keeps the black box, and sends both.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gradwatch_agent.blackbox import KIND, BlackBox
from gradwatch_agent.collect.catalogue import Catalogue
from gradwatch_agent.collect.host import LISTED_BYTES
from gradwatch_agent.inbox import RECORD_BYTES, Draft, Lost
from gradwatch_agent.outbox import OUR_ERROR
from gradwatch_agent.row import Row
from gradwatch_contracts.messages import Event, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from gradwatch_agent.collect.host import Scalars, Tally
    from gradwatch_agent.collect.measurement import Underway
    from gradwatch_agent.inbox import Record
    from gradwatch_agent.outbox import Outbox
    from gradwatch_contracts.control import Level

PENDING_MAX = 64
"""Updates whose values are still on a device. More of them than slots wait only behind one that is stuck."""

DRAFT_BYTES = 16 * RECORD_BYTES
"""Charged for an update that is yet to become a row, besides its numbers: partial columns, readers and what they name. This and
the next are measured with tracemalloc."""

DEVICE_BUSY = "device busy"
INTERRUPTED = "interrupted"
POLL_S = 0.001
"""Pause of `drain`, while the last copies arrive."""


def reason_of_loss(error: BaseException) -> str:
    """Why a row could not be made: by a failure of ours, or because somebody stopped the trainer in the middle of it."""
    return OUR_ERROR if isinstance(error, Exception) else INTERRUPTED


@dataclass(slots=True)
class Waiting:
    """One finished update. `underway`: its values on their way from devices; `lost`: no slot was free for them;
    `thinned`: of its level only what the host knows was collected, see `collect_every`; `resting`: the collectors that were
    left out to save time."""

    update: int
    t_ns: int
    env_steps: int
    level: Level
    flags: int
    tally: Tally
    user: Scalars
    underway: Underway | None = None
    lost: bool = False
    thinned: bool = False
    resting: frozenset[str] = frozenset()

    @property
    def done(self) -> bool:
        """Whether every value is on the host."""
        return self.underway is None or self.underway.ticket.done

    @property
    def size(self) -> int:
        """Bytes held for what is not on its way: what grows with an update is counted, the rest is about the same in each."""
        size = DRAFT_BYTES + LISTED_BYTES * self.tally.unread + len(self.user[1])
        for _, index, names, values in self.tally.tables:  # hardly ever one
            size += len(values) + LISTED_BYTES * (len(index) + len(names))
        return size


class RowMaker:
    """Makes rows of finished updates, on the link thread. `say` is told of each row until it answers True; `fail` is told of a
    failure of ours and may raise it. What the black box keeps of each update goes into `box`,
    with the `names` of the parameters by number.
    """

    __slots__ = ("_catalogue", "_fail", "box", "names", "say")

    def __init__(self, say: Callable[[Row], bool], fail: Callable[[Exception], None]) -> None:
        self.say: Callable[[Row], bool] | None = say
        self._fail = fail
        self._catalogue = Catalogue()
        self.box = BlackBox()
        self.names: Sequence[str] = ()

    def expect_none(self, calls: Collection[str]) -> None:
        """Before the first row: these calls will not be made, so their columns are not listed. See `Catalogue`."""
        self._catalogue = Catalogue(calls)

    def make(self, waiting: Waiting) -> Iterable[Record]:
        """The row, then tables and events of the update; the loss of it where its values never came."""
        if waiting.lost:
            return (Lost(1, DEVICE_BUSY),)
        row = self._build(waiting)
        try:
            if self.say is not None:
                say, self.say = self.say, None
                self.say = None if say(row) else say
        except Exception as error:
            self._fail(error)
        return (row, *_evidence(waiting))

    def tables(self) -> tuple[Table, ...]:
        """The black box as it is now."""
        return self.freeze()[1]

    def freeze(self) -> tuple[str, tuple[Table, ...]]:
        """What the black box holds, in words, and its newest updates as tables."""
        updates, blocks = self.box.freeze(self.names)
        tables = tuple([Table(0, KIND, *block) for block in blocks])
        if updates:
            return f"{updates} updates of {len(self.names)} tensors", tables
        if len(self.box):
            return "nothing is sent: the newest update alone has more norms than one answer may hold", ()
        return "nothing is kept: no gradient was measured", ()

    def _build(self, waiting: Waiting) -> Row:
        waiting.tally.read()
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
        return Row(waiting.update, waiting.t_ns, waiting.env_steps, level, flags, schema, values, status)


class RowQueue:
    """Finished updates, oldest first, on the trainer's thread; `harvest` hands over those whose values have arrived."""

    __slots__ = ("_maker", "_outbox", "_sync", "pending")

    def __init__(self, outbox: Outbox, maker: RowMaker, *, sync: bool) -> None:
        self._outbox, self._maker = outbox, maker
        self.pending: deque[Waiting] = deque()
        self._sync = sync

    def put(self, waiting: Waiting) -> None:
        """Take a finished update, and hand it over unless it has to wait: then `harvest` does, when it is complete."""
        if waiting.underway is None and not self.pending:
            self._outbox.put_draft(Draft(waiting.size, partial(self._maker.make, waiting)))
        elif len(self.pending) < PENDING_MAX:
            self.pending.append(waiting)
        else:
            self._outbox.lose(1, DEVICE_BUSY)

    def harvest(self) -> None:
        """Hand over the updates whose values have arrived. Waits for none, unless in sync mode."""
        pending = self.pending
        while pending and (self._sync or pending[0].done):
            try:
                waiting = pending.popleft()
                brought = 0 if waiting.underway is None else waiting.underway.bring()
                self._outbox.put_draft(Draft(waiting.size + brought, partial(self._maker.make, waiting)))
            except BaseException as error:  # Ctrl-C too: a row that is gone is told
                self._outbox.lose(1, reason_of_loss(error))
                raise

    def drain(self, timeout_s: float) -> None:
        """Wait a little for copies under way; what does not arrive is lost."""
        deadline = time.monotonic() + timeout_s
        self.harvest()
        while self.pending and time.monotonic() < deadline:
            time.sleep(POLL_S)
            self.harvest()
        self._outbox.lose(len(self.pending), DEVICE_BUSY)
        self.pending.clear()


def _evidence(waiting: Waiting) -> Iterable[Record]:
    tally = waiting.tally
    for kind, index, names, values in tally.tables:
        yield Table(0, kind, waiting.update, index, names, values)
    for kind, text, detail in tally.events:
        yield Event(0, kind, waiting.update, waiting.t_ns, text, detail)
