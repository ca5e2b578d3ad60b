"""Rows without a trainer: SAMPLES of chosen columns, for everything behind the wire."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradwatch_contracts import messages as m
from gradwatch_contracts.columns import WIDTH, Schema, Status
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T0_NS = 1_700_000_000_000_000_000

FULL = Schema.of([spec.column() for spec in COLUMNS.values() if not spec.per])
"""Every column of the registry that needs no subject."""

HEALTHY: Mapping[str, tuple[float, ...]] = {
    "obs.input": (256.0, 0.0, 256.0),
    "reward.step": (256.0, 1.0, 0.0),
    "value.pred": (256.0, 10.0, 2560.0),
    "value.target": (256.0, 10.0, 5120.0),
    "value.error": (256.0, 0.0, 1280.0),
    "adv.raw": (256.0, 0.0, 256.0),
    "value.new": (1024.0, 10.0, 10240.0),
    "value.new.error": (1024.0, 0.0, 5120.0),
    "adv.used": (1024.0, 0.0, 1024.0),
    "policy.logratio": (1024.0, -0.004, 8.2),
    "policy.logratio.absmax": (0.3,),
    "policy.ratio.max": (1.3,),
    "policy.ratio.min": (0.75,),
    "policy.ratio.first_mb_dev": (1e-7,),
    "policy.kl.k3": (1024.0, 0.004, 0.02),
    "policy.kl.k3.last": (0.005,),
    "policy.kl.k3.max": (0.006,),
    "policy.clipped": (40.0,),
    "policy.std": (1024.0, 0.5, 1.0),
    "policy.std.min": (0.4,),
    "policy.std.max": (0.6,),
    "policy.entropy": (1024.0, 0.6, 1.0),
    "policy.entropy.limit": (0.6931471805599453,),
    "loss.total": (16.0, 1.0, 0.5),
    "grad.norm": (16.0, 0.4, 0.1),
    "grad.norm.max": (0.6,),
    "grad.clipped": (3.0,),
    "grad.clip_limit": (0.5,),
    "grad.tensors": (192.0,),
    "grad.tensor_norm.min": (1e-3,),
    "grad.tensor_norm.max": (0.3,),
    "param.norm": (12.0,),
    "opt.update_ratio": (1e-3,),
    "opt.steps": (16.0,),
    "opt.lr": (2.5e-4,),
    "episode.return": (4.0, 120.0, 800.0),
    "sys.update_ms": (100.0,),
    "sys.agent_ms": (0.8,),
}
"""A healthy update, in the slots of each column; counts of non-finite values are 0."""


def healthy(schema: Schema = FULL, **changed: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    """Slots by column name; keyword names use `_` for `.` only where the column is given in `changed` as a dict key."""
    row = {column.name: HEALTHY.get(column.name, (0.0,) * WIDTH[column.kind]) for column in schema.columns}
    row.update(changed)
    return row


@dataclass
class RowMaker:
    """Makes consecutive SAMPLES of one session."""

    schema: Schema = FULL
    seq: int = 0
    update: int = 0
    t_ns: int = T0_NS
    rows: list[tuple[int, bytes, bytes]] = field(default_factory=list)

    def samples(
        self,
        n: int = 1,
        *,
        changed: Mapping[str, tuple[float, ...]] | None = None,
        status: Mapping[str, Status] | None = None,
        level: int = 2,
        flags: int = 0,
    ) -> m.Samples:
        """`n` equal rows with consecutive updates and sequence numbers."""
        values = {**healthy(self.schema), **(changed or {})}
        packed = b"".join(struct.pack(f"<{len(values[c.name])}d", *values[c.name]) for c in self.schema.columns)
        default = {
            c.name: Status.UNDEFINED
            for c in self.schema.columns
            if c.name.endswith(".nonfinite_mb") and c.name not in (changed or {})
        }
        missing = {**default, **(status or {})}
        bits = bytes(int(missing.get(c.name, Status.MEASURED)) for c in self.schema.columns)
        updates = range(self.update, self.update + n)
        message = m.Samples(
            self.seq,
            n,
            self.schema.id,
            struct.pack(f"<{n}q", *updates),
            struct.pack(f"<{n}q", *(self.t_ns + u * 1_000_000 for u in updates)),
            struct.pack(f"<{n}q", *(u * 256 for u in updates)),
            bytes([level]) * n,
            bytes([flags]) * n,
            packed * n,
            bits * n,
        )
        self.seq += n
        self.update += n
        return message


def hello(run: str = "ant-ppo", session: str = "s1", **changed: object) -> m.Hello:
    """A HELLO with sensible values."""
    given: dict[str, object] = {
        "run": run,
        "launch_id": f"launch-{session}",
        "session": session,
        "rank": 0,
        "world": 1,
        "host": "localhost",
        "pid": 1,
        "started_unix_ns": T0_NS,
    }
    return m.Hello(**{**given, **changed})  # type: ignore[arg-type]


def updates_of(samples: Sequence[m.Samples]) -> list[int]:
    """All update numbers, in order."""
    return [u for s in samples for u in struct.unpack(f"<{s.n}q", s.update)]


BROKEN = {"loss.total": (16.0, math.nan, math.nan), "loss.total.nonfinite": (16.0,), "loss.total.nonfinite_mb": (0.0,)}
"""Changes of a row whose losses are NaN from the first minibatch on."""
