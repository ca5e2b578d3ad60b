"""Detection over one stream: signal rows in, changed anomalies out, state that survives a restart bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack

from gradwatch_daemon.anomalies.lifecycle import Lifecycle
from gradwatch_daemon.detect.engine import StreamState
from gradwatch_daemon.records import Checkpoint

if TYPE_CHECKING:
    from gradwatch_daemon.detect.engine import Engine
    from gradwatch_daemon.records import Anomaly, DetectorState, SignalBlock, Stream
    from gradwatch_daemon.store.protocol import Store

CHECKPOINT_UPDATES = 256
"""Rows between two checkpoints: a restart replays at most these, under 10 ms at 20 us a row."""


class StreamDetection:
    """The detectors and the anomalies of one (run, attempt, rank). A pure function of the rows it was given."""

    def __init__(self, stream: Stream, engine: Engine, updates_total: int | None) -> None:
        self.stream = stream
        self.rows = 0
        self.update_last = -1
        self._engine = engine
        self._updates_total = updates_total
        self._state = StreamState()
        self._lifecycle = Lifecycle(stream, engine.profile.rules, engine.profile.rules_hash)
        self._since_checkpoint = 0

    def advance(self, block: SignalBlock) -> list[Anomaly]:
        """Detect on further rows; returns the anomalies that changed, newest state of each, in order."""
        verdicts = self._engine.check(self._state, block, self._updates_total)
        self.rows += len(block)
        self.update_last = max(self.update_last, int(block.update[-1]))
        self._since_checkpoint += len(block)
        return self._lifecycle.step(block, verdicts)

    @property
    def detector_states(self) -> tuple[DetectorState, ...]:
        """How each detector stands after the last row."""
        return self._lifecycle.detector_states()

    def checkpoint_if_due(self) -> Checkpoint | None:
        """The state to store after every `CHECKPOINT_UPDATES` rows, else None."""
        if self._since_checkpoint < CHECKPOINT_UPDATES:
            return None
        self._since_checkpoint = 0
        state = msgpack.packb([self.rows, self._state.dump(), self._lifecycle.dump()])
        return Checkpoint(self.stream, self.update_last, self._engine.profile.rules_hash, state)

    def restore(self, store: Store) -> None:
        """Load the newest checkpoint made under the same rules and replay the stored rows after it.

        Nothing is announced: what these rows meant was committed together with them.
        """
        checkpoint = store.checkpoint(self.stream)
        if checkpoint is not None and checkpoint.rules_hash == self._engine.profile.rules_hash:
            self.rows, state, lifecycle = msgpack.unpackb(checkpoint.state)
            self._state.load(state)
            self._lifecycle.load(lifecycle)
            self.update_last = checkpoint.update
            replayed = store.blocks_since_checkpoint(self.stream)
        else:
            replayed = store.blocks_after(self.stream, -1)
        for block in replayed:
            self.advance(block)
