"""Blocks of signals and rows for tests of the pure stages, from plain lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.columns import WIDTH, Schema, Status
from gradwatch_contracts.signals import COLUMNS, SIGNALS
from gradwatch_daemon.anomalies.lifecycle import Lifecycle
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.detect.engine import Engine, StreamState
from gradwatch_daemon.records import RowBlock, SignalBlock, SignalKey, Stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gradwatch_daemon.detect.catalogue import Profile
    from gradwatch_daemon.records import Anomaly, Verdicts

STREAM = Stream("run", 1, 0)
QUIET: dict[str, float] = {
    "policy.ratio.first_mb_dev": 1e-6,
    "policy.ratio.max": 1.4,
    "policy.ratio.min": 0.7,
    "policy.ratio.tail_index": 1.1,
    "policy.logratio.std": 0.1,
    "policy.logratio.nonfinite": 0.0,
    "policy.kl.k3": 0.01,
    "policy.entropy.norm": 0.8,
    "episode.return.mean": 100.0,
    "loss.total": 0.3,
    "grad.norm.nonfinite": 0.0,
    "grad.norm.mean": 0.4,
    "grad.health": 1.0,
    "grad.tensor_norm.min": 1e-3,
    "grad.tensor_norm.over_clip": 0.7,
    "value.nmse": 0.4,
    "value.explained_variance": 0.6,
    "value.target.std": 5.0,
    "episode.return.std": 10.0,
    "episode.count": 5.0,
    "rnn.h.rms": 0.3,
    "rnn.h.saturation": 0.05,
    "rnn.c.rms": 0.8,
    "rnn.c.absmax": 3.0,
    "obs.input.std": 1.0,
    "reward.step.mean": 0.5,
    "reward.step.absmax": 1.0,
    "value.envelope": 0.9,
    "value.error.rms": 3.0,
    "value.spread": 0.8,
    "adv.raw.std": 2.0,
    "policy.kl.k2": 0.01,
    "grad.clip_fraction": 0.5,
    "grad.clip_limit": 0.5,
    "param.features.dormant": 0.2,
    "policy.std.min": 0.4,
    "policy.std.mean": 0.5,
    "policy.kl.k3.sample_max": 0.05,
    "rnn.reset.violations": 0.0,
    "sys.update_ms": 100.0,
    "sys.host_bytes": 1e9,
    "opt.lr": 3e-4,
    "opt.steps": 16.0,
    "opt.skipped": 0.0,
}
"""One healthy update of everything the detectors read."""

UPDATES_TOTAL = 1000
"""What tests say of the length of a run: enough for the first phases to be told apart."""


def signal_block(
    n: int = 1, *, start: int = 0, flags: Sequence[int] | int = 0, drop: Sequence[str] = (), **given: object
) -> SignalBlock:
    """`QUIET` for `n` updates with some signals replaced: `policy__kl__k3=0.6`, a list of n, or a Status instead of a value.

    A name may carry a subject: `policy__entropy__norm__of__arm`.
    """
    series: dict[SignalKey, object] = {SignalKey(name): value for name, value in QUIET.items() if name not in drop}
    for name, value in given.items():
        base, _, subject = name.partition("__of__")
        series[SignalKey(base.replace("__", "."), subject)] = value
    values, status = np.zeros((len(series), n), np.float32), np.zeros((len(series), n), np.uint8)
    for row, (key, said) in enumerate(series.items()):
        assert key.name in SIGNALS, key
        cells = list(said) if isinstance(said, (list, tuple)) else [said] * n
        for place, cell in enumerate(cells):
            if isinstance(cell, Status):
                status[row, place] = cell
            else:
                values[row, place] = cell
    update = np.arange(start, start + n)
    marks = np.full(n, flags, np.uint8) if isinstance(flags, int) else np.array(flags, np.uint8)
    level = np.full(n, 2, np.uint8)
    return SignalBlock(STREAM, update, update * 1_000 + 7, update * 128, level, marks, tuple(series), values, status)


def below(x: float) -> float:
    """The float32 just below."""
    return float(np.nextafter(np.float32(x), np.float32(-1e9)))


def above(x: float) -> float:
    """The float32 just above."""
    return float(np.nextafter(np.float32(x), np.float32(1e9)))


def joined(blocks: Sequence[SignalBlock]) -> SignalBlock:
    """Consecutive blocks of the same signals as one."""
    first = blocks[0]
    return SignalBlock(
        first.stream,
        *(np.concatenate([getattr(b, name) for b in blocks]) for name in ("update", "t_ns", "env_steps", "level", "flags")),
        first.signals,
        np.concatenate([b.values for b in blocks], axis=1),
        np.concatenate([b.status for b in blocks], axis=1),
    )


def row_block(cells: Mapping[tuple[str, str], Sequence[Sequence[float]]], status: Mapping[str, int] | None = None) -> RowBlock:
    """Rows of the named columns: (name, subject) → one list of slots per update."""
    schema = Schema.of(COLUMNS[name].column(subject) for name, subject in cells)
    n = len(next(iter(cells.values())))
    values = np.concatenate([np.array(rows, np.float64).reshape(n, -1) for rows in cells.values()], axis=1)
    assert values.shape[1] == schema.slots
    codes = np.zeros((n, len(schema.columns)), np.uint8)
    for place, column in enumerate(schema.columns):
        codes[:, place] = (status or {}).get(column.name, 0)
    update = np.arange(n)
    zeros = np.zeros(n, np.uint8)
    return RowBlock(STREAM, "s1", (0, n - 1), schema, update, update * 1_000, update, zeros, zeros, values, codes)


def every_column(n: int = 4) -> RowBlock:
    """Rows of all columns of the registry (heads "" and "arm"), with plain finite numbers."""
    cells: dict[tuple[str, str], Sequence[Sequence[float]]] = {}
    for spec in COLUMNS.values():
        for subject in ("", "arm") if spec.per == "head" else ("",):
            slots = [64.0, 0.25, 4.0, 0.5, 1.0][: WIDTH[spec.kind]] if WIDTH[spec.kind] > 1 else [1.5]
            cells[spec.name, subject] = [slots] * n
    return row_block(cells)


class Seen:
    """Verdicts as arrays, whether they came of one row or of many."""

    def __init__(self, verdicts: Verdicts) -> None:
        self.kind, self.subject, self.reason = verdicts.kind, verdicts.subject, verdicts.reason
        self.code = np.frombuffer(verdicts.code, np.uint8)
        self.severity = np.array(verdicts.severity, np.uint8)
        self.value, self.limit, self.baseline = (
            np.array(numbers, np.float64) for numbers in (verdicts.value, verdicts.limit, verdicts.baseline)
        )
        self.minibatch, self.stage = np.array(verdicts.minibatch, np.int64), np.array(verdicts.stage, np.int64)


class Watch:
    """Engine, state and lifecycle of one stream under one profile."""

    def __init__(self, profile: str | Profile = "default", updates_total: int | None = UPDATES_TOTAL) -> None:
        self.updates_total = updates_total
        self.profile = load_profile(profile) if isinstance(profile, str) else profile
        self.engine = Engine(self.profile)
        self.state = StreamState()
        self.lifecycle = Lifecycle(STREAM, self.profile.rules, self.profile.rules_hash)

    def check(self, block: SignalBlock) -> dict[str, Seen]:
        """Verdicts by kind, `kind:subject` where there is one. Does not reach the lifecycle."""
        found = self.engine.check(self.state, block, self.updates_total)
        return {f"{v.kind}:{v.subject}" if v.subject else v.kind: Seen(v) for v in found}

    def feed(self, block: SignalBlock) -> list[Anomaly]:
        """Changed anomalies of a block."""
        return self.lifecycle.step(block, self.engine.check(self.state, block, self.updates_total))

    def dump(self) -> bytes:
        """The state of both."""
        return self.state.dump() + self.lifecycle.dump()
