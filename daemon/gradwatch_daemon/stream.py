"""Detection over one stream: signal rows in, changed anomalies out, state that survives a restart bit for bit."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgpack

from gradwatch_daemon.anomalies.lifecycle import Lifecycle
from gradwatch_daemon.detect.engine import StreamState
from gradwatch_daemon.records import Checkpoint, DetectorState

if TYPE_CHECKING:
    from gradwatch_daemon.detect.engine import Engine
    from gradwatch_daemon.records import Anomaly, SignalBlock, Stream
    from gradwatch_daemon.store.protocol import Store

LOG = logging.getLogger("gradwatch.daemon")

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
        self._lifecycle = self._new_lifecycle()
        self._since_checkpoint = 0
        self._failure = ""

    def advance(self, block: SignalBlock) -> list[Anomaly]:
        """Detect on further rows; returns the anomalies that changed, newest state of each, in order."""
        self.rows += len(block)
        self.update_last = max(self.update_last, int(block.update[-1]))
        self._since_checkpoint += len(block)
        if self._failure:
            return []
        try:
            return self._lifecycle.step(block, self._engine.check(self._state, block, self._updates_total))
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
        state = msgpack.packb([self.rows, self._state.dump(), self._lifecycle.dump()])
        return Checkpoint(self.stream, self.update_last, self._engine.profile.rules_hash, state)

    def restore(self, store: Store) -> None:
        """Load the newest checkpoint made under the same rules and replay the stored rows after it.

        Nothing is announced: what these rows meant was committed together with them.
        """
        checkpoint = store.checkpoint(self.stream)
        if checkpoint is not None and self._load(checkpoint):
            replayed = store.blocks_since_checkpoint(self.stream)
        else:
            replayed = store.blocks_after(self.stream, -1)
        for block in replayed:
            self.advance(block)

    def _load(self, checkpoint: Checkpoint) -> bool:
        """Take over a checkpoint; False when it was made under other rules or in a format we do not read."""
        if checkpoint.rules_hash != self._engine.profile.rules_hash:
            return False
        state, lifecycle = StreamState(), self._new_lifecycle()
        try:
            rows, state_bytes, lifecycle_bytes = msgpack.unpackb(checkpoint.state)
            state.load(state_bytes)
            lifecycle.load(lifecycle_bytes)
        except ValueError as error:
            LOG.warning("the checkpoint of %s is not read (%s); its rows are replayed", self.stream, error)
            return False
        self.rows, self._state, self._lifecycle, self.update_last = rows, state, lifecycle, checkpoint.update
        return True

    def _new_lifecycle(self) -> Lifecycle:
        return Lifecycle(self.stream, self._engine.profile.rules, self._engine.profile.rules_hash)
