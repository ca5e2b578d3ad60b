"""A recording through the daemon's own derivation, detection and lifecycle, in milliseconds: what it would have alerted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.control import Severity
from gradwatch_daemon.derive.derive import Deriver
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.pipeline.stream import StreamDetection
from gradwatch_daemon.records import SignalBlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.corpus.recording import Recording
    from gradwatch_daemon.detect.catalogue import Profile
    from gradwatch_daemon.records import Anomaly, SignalKey

    Keep = Callable[[SignalKey], bool]


@dataclass(frozen=True, slots=True)
class Alert:
    """One anomaly that reached a warning: the update at which it did, its root kind, how bad it got, and every kind found in
    it at a warning or above with the update at which that was said."""

    update: int
    kind: str
    subject: str
    severity: Severity
    kinds: tuple[tuple[str, int], ...]
    sentence: str


def derive(recording: Recording, keep: Keep | None = None) -> list[SignalBlock]:
    """The signals of each part; with `keep`, only those, as if the trainer had sent no others."""
    deriver, found = Deriver(), []
    for part in recording.parts:
        block = deriver.derive(part.block(recording.name))
        found.append(block if keep is None else masked(block, keep))
    return found


def masked(block: SignalBlock, keep: Keep) -> SignalBlock:
    """Only the signals that `keep` lets through."""
    rows = np.array([place for place, key in enumerate(block.signals) if keep(key)], np.intp)
    signals = tuple(block.signals[place] for place in rows)
    return SignalBlock(
        block.stream,
        block.update,
        block.t_ns,
        block.env_steps,
        block.level,
        block.flags,
        signals,
        np.ascontiguousarray(block.values[rows]),
        np.ascontiguousarray(block.status[rows]),
    )


def replay(blocks: list[SignalBlock], profile: Profile, updates_total: int | None, *, singly: bool = True) -> list[Alert]:
    """The alerts of a run, in order. `singly` gives row after row to detection, so that the update at which a finding rose to
    a warning is exact; else a whole part at once, five times as fast, with the same anomalies."""
    engine, found = Engine(profile), dict[str, "_Growing"]()
    detection: StreamDetection | None = None
    for block in blocks:
        if detection is None or detection.stream != block.stream:
            detection = StreamDetection(block.stream, engine, updates_total)
        for rows in _rows(block) if singly else (block,):
            for anomaly in detection.advance(rows):
                found.setdefault(anomaly.id, _Growing()).take(anomaly, int(rows.update[-1]) if singly else None)
    alerts = [growing.alert() for growing in found.values() if growing.update is not None]
    return sorted(alerts, key=lambda alert: alert.update)


def _rows(block: SignalBlock) -> Iterator[SignalBlock]:
    for row in range(len(block)):
        yield block.select(slice(row, row + 1))


class _Growing:
    """One anomaly as it changes."""

    def __init__(self) -> None:
        self.update: int | None = None
        self.kinds: dict[str, int] = {}

    def take(self, anomaly: Anomaly, update: int | None) -> None:
        """Its newest state, known after `update`; None where only the state after many rows is known."""
        self.newest = anomaly
        if anomaly.severity.rank >= Severity.WARNING.rank:
            at = anomaly.update_fired if update is None else update
            self.update = at if self.update is None else self.update
            self.kinds.setdefault(anomaly.kind, at)
        for attached in anomaly.attached:
            if attached.severity.rank >= Severity.WARNING.rank:
                self.kinds.setdefault(attached.kind, attached.update_fired if update is None else update)

    def alert(self) -> Alert:
        """As it stood at last."""
        assert self.update is not None
        newest = self.newest
        return Alert(self.update, newest.kind, newest.subject, newest.severity, tuple(self.kinds.items()), newest.sentence)
