"""Blocks of signals for tests, and what two lists of blocks must share to be the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradwatch_daemon.records import SignalBlock, SignalKey, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STREAM = Stream("ant-ppo", 1, 0)
KEYS = (SignalKey("policy.kl.k3"), SignalKey("policy.entropy.norm", "arm"), SignalKey("grad.norm.mean"))


def make_block(
    update: Sequence[int] | np.ndarray,
    *,
    stream: Stream = STREAM,
    signals: tuple[SignalKey, ...] = KEYS,
    values: np.ndarray | None = None,
    status: np.ndarray | None = None,
) -> SignalBlock:
    """A block whose every other field follows from the update; value of signal j at update u is u + j / 8."""
    at = np.asarray(update, np.int64)
    shape = (len(signals), len(at))
    if values is None:
        values = (at[None, :] + np.arange(len(signals))[:, None] / 8).astype(np.float32)
    if status is None:
        status = np.zeros(shape, np.uint8)
    wide = at.astype(np.uint64)
    t_ns, env_steps = (wide * np.uint64(1_000_000_007)).view(np.int64), (wide * np.uint64(2048)).view(np.int64)
    level, flags = (wide % np.uint64(4)).astype(np.uint8), (wide % np.uint64(3)).astype(np.uint8)
    return SignalBlock(stream, at, t_ns, env_steps, level, flags, signals, values, status)


def rows_of(blocks: Iterable[SignalBlock]) -> list[tuple[object, ...]]:
    """Every row with its signals, value bits and statuses, in order, however the rows are split into blocks."""
    return [
        (
            block.stream,
            int(block.update[i]),
            int(block.t_ns[i]),
            int(block.env_steps[i]),
            int(block.level[i]),
            int(block.flags[i]),
            block.signals,
            block.values[:, i].astype("<f4").tobytes(),
            block.status[:, i].tobytes(),
        )
        for block in blocks
        for i in range(len(block))
    ]
