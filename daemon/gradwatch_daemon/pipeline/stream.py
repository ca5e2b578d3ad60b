"""Detection over one stream: signal rows in, changed anomalies out, state that survives a restart bit for bit.

What is no row but counts for detection (a loss, a deadline that passed) becomes an event of the daemon's own, a mark: it says
behind which row it came, so that a replay of rows and marks gives the same anomalies and the same state.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import msgpack

from gradwatch_daemon.anomalies.lifecycle import Lifecycle, end_whole
from gradwatch_daemon.detect.engine import StreamState
from gradwatch_daemon.records import Checkpoint, DetectorState, EventRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gradwatch_daemon.detect.engine import Engine
    from gradwatch_daemon.records import Anomaly, LossRecord, SignalBlock, Stream, Verdicts
    from gradwatch_daemon.store.protocol import Store

LOG = logging.getLogger("gradwatch.daemon")

GAP, TICK = "gap", "tick"
MARKS = (GAP, TICK)
"""Kinds of the events that detection makes and replays."""

CHECKPOINT_UPDATES = 256
"""Rows between two checkpoints: a restart replays at most these, under 10 ms at 20 us a row."""


SINGLY_ROWS = 6
"""Up to so many rows are judged one by one: a block of 4 to 8 costs 1.3 to 1.9 ms, a single healthy row 0.21. Verdicts and
states are the same, however rows are split."""


class StreamDetection:
    """The detectors and the anomalies of one (run, attempt, rank). A pure function of the rows and marks it was given."""

    def __init__(self, stream: Stream, engine: Engine, updates_total: int | None, rows: int = 0) -> None:
        """`rows` of the stream were before the first one that will be given."""
        self.stream = stream
        self.rows = rows
        self.update_last = -1
        self._marks = 0
        self._t_ns = 0
        self._engine = engine
        self._updates_total = updates_total
        self._state = StreamState()
        self._lifecycle = self._new_lifecycle()
        self._since_checkpoint = 0
        self._failure = ""

    def advance(self, block: SignalBlock) -> list[Anomaly]:
        """Detect on further rows; returns the anomalies that changed, in order, the newest state of each last."""
        self.rows += len(block)
        self.update_last = max(self.update_last, int(block.update[-1]))
        self._since_checkpoint += len(block)
        self._t_ns = int(block.t_ns[-1])
        parts = [piece for part in end_whole(block) for piece in _cheapest(part)]
        return [anomaly for part in parts for anomaly in self._guarded(partial(self._judge, part))]

    def _judge(self, block: SignalBlock) -> list[Anomaly]:
        return self._lifecycle.step(block, self._engine.check(self._state, block, self._updates_total))

    def lose(self, loss: LossRecord, now_ns: int) -> tuple[list[Anomaly], EventRecord]:
        """Detect that these records never came; the anomalies that changed, and the mark to store. `now_ns` is the time of
        the mark where no row came before it."""
        count = loss.last_seq - loss.first_seq + 1
        mark = self._mark(GAP, loss.session, self._t_ns or now_ns, loss.reason, records=count)
        return self._apply(mark), mark

    @property
    def deadline_ns(self) -> int | None:
        """When the next update is due, on the trainer's clock: a tick after it is a stall. None while there is no telling."""
        return None if self._failure or not self.rows else self._engine.deadline_ns(self._state)

    @property
    def rhythm_s(self) -> tuple[float | None, float]:
        """The usual time between updates and that after which one is a stall; (None, 0.0) where there is no telling."""
        return (None, 0.0) if self._failure or not self.rows else self._engine.rhythm_s(self._state)

    def tick(self, waited_ns: int) -> tuple[list[Anomaly], EventRecord] | None:
        """Detect that no update came for `waited_ns` since the last row; None where that is not past the deadline."""
        deadline, t_ns = self.deadline_ns, self._t_ns + waited_ns
        if deadline is None or t_ns <= deadline:
            return None
        mark = self._mark(TICK, "", t_ns, "")
        return self._apply(mark), mark

    def _mark(self, kind: str, session: str, t_ns: int, text: str, **detail: int) -> EventRecord:
        place = {**detail, "rows": self.rows, "mark": self._marks}
        return EventRecord(self.stream, session, -1, max(self.update_last, 0), t_ns, kind, text, place)

    def _apply(self, mark: EventRecord) -> list[Anomaly]:
        self._marks += 1

        def judge() -> list[Anomaly]:
            verdicts: list[Verdicts]
            if mark.kind == GAP:
                verdicts = self._engine.lose(self._state, mark.text, int(mark.detail["records"] or 0))
            else:
                verdicts = self._engine.tick(self._state, mark.t_ns)
            return self._lifecycle.observe(mark.update, mark.t_ns, verdicts)

        return self._guarded(judge)

    def _guarded(self, judge: Callable[[], list[Anomaly]]) -> list[Anomaly]:
        if self._failure:
            return []
        try:
            return judge()
        except Exception as error:
            # One run that we fail on must not stop the record of it, nor the detection of the others.
            LOG.exception("detection of %s failed at update %d; its rows are kept", self.stream, self.update_last)
            self._failure = f"the daemon failed on update {self.update_last} ({type(error).__name__}); see its log"
            return []

    @property
    def detector_states(self) -> tuple[DetectorState, ...]:
        """How each detector stands after the last row."""
        if self._failure:
            return tuple(DetectorState(kind, "", "blind", self._failure) for kind in self._engine.profile.rules)
        return self._lifecycle.detector_states()

    def checkpoint_if_due(self) -> Checkpoint | None:
        """The state to store after every `CHECKPOINT_UPDATES` rows, else None."""
        if self._since_checkpoint < CHECKPOINT_UPDATES or self._failure:
            return None
        self._since_checkpoint = 0
        state = msgpack.packb([self.rows, self._marks, self._t_ns, self._state.dump(), self._lifecycle.dump()])
        return Checkpoint(self.stream, self.update_last, self._engine.profile.rules_hash, state)

    def restore(self, store: Store) -> None:
        """Load the newest checkpoint made under the same rules and replay the stored rows and marks after it.

        Nothing is announced: what these rows meant was committed together with them.
        """
        checkpoint, marks = store.checkpoint(self.stream), store.marks(self.stream)
        if checkpoint is not None and self._load(checkpoint):
            replayed = store.blocks_since_checkpoint(self.stream)
        else:
            # Of what was thinned nothing can be learned again: it begins behind that, as a replay does.
            self.rows, replayed = store.raw_begin(self.stream), store.blocks_after(self.stream, -1)
            self._marks = sum(bool(self.rows) and self._rows_to(mark) <= 0 for mark in marks)
        for _ in self.replay(replayed, marks[self._marks :]):
            pass

    def replay(self, blocks: Iterable[SignalBlock], marks: Iterable[EventRecord]) -> Iterator[list[Anomaly]]:
        """Detect on stored rows and marks in the order in which they once came: what changed, part by part.

        `blocks` begin behind row `rows` of the stream, and `marks` are those not yet applied. Where the blocks end early, the
        marks of later rows are left.
        """
        waiting = deque(marks)
        for block in blocks:
            done = 0
            while waiting and (due := self._rows_to(waiting[0])) < len(block) - done:
                if due:
                    yield self.advance(block.select(slice(done, done + due)))
                    done += due
                yield self._apply(waiting.popleft())
            yield self.advance(block.select(slice(done, len(block))) if done else block)
        while waiting and self._rows_to(waiting[0]) <= 0:
            yield self._apply(waiting.popleft())

    def _rows_to(self, mark: EventRecord) -> int:
        """Rows still to come before a mark."""
        return int(mark.detail["rows"] or 0) - self.rows

    def _load(self, checkpoint: Checkpoint) -> bool:
        """Take over a checkpoint; False when it was made under other rules or in a format we do not read."""
        if checkpoint.rules_hash != self._engine.profile.rules_hash:
            return False
        state, lifecycle = StreamState(), self._new_lifecycle()
        try:
            rows, marks, t_ns, state_bytes, lifecycle_bytes = msgpack.unpackb(checkpoint.state)
            state.load(state_bytes)
            lifecycle.load(lifecycle_bytes)
        except ValueError as error:
            LOG.warning("the checkpoint of %s is not read (%s); its rows are replayed", self.stream, error)
            return False
        self.rows, self._state, self._lifecycle, self.update_last = rows, state, lifecycle, checkpoint.update
        self._marks, self._t_ns = marks, t_ns
        return True

    def _new_lifecycle(self) -> Lifecycle:
        return Lifecycle(self.stream, self._engine.profile.rules, self._engine.profile.rules_hash)


def _cheapest(block: SignalBlock) -> list[SignalBlock]:
    """The rows as they are judged fastest."""
    if not 1 < len(block) <= SINGLY_ROWS:
        return [block]
    return [block.select(slice(row, row + 1)) for row in range(len(block))]
