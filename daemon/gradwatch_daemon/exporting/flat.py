"""Stored rows one by one: what every table format writes, so that all hold the same.

A row is one update of one stream. Beside each value stands whether it was measured: a value that is missing is never a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gradwatch_daemon.records import F32, SignalBlock, SignalKey, Stream

FIXED = ("run", "attempt", "rank", "update", "t_ns", "env_steps", "level", "flags")
"""The columns that every row has, in this order, before those of its signals."""

MISSING = "missing"
"""The column behind them that says why values are missing."""

STATUS_NAMES = tuple(status.name.lower() for status in Status)
LEVELS = tuple(level.name.lower() for level in Level)
"""By their numbers."""


class Head(NamedTuple):
    """What a row is of. `rank` None stands for all ranks together; `t_ns` is unix time by the trainer's clock; `env_steps`
    None where the trainer did not give them; `flags` are names of `RowFlag`."""

    run: str
    attempt: int
    rank: int | None
    update: int
    t_ns: int
    env_steps: int | None
    level: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FlatRow:
    """`values` by column name: floats as measured, also NaN and infinities; `missing` has the reason for every other signal of
    the row. A signal in neither was not part of what the trainer sent then."""

    head: Head
    values: dict[str, float]
    missing: dict[str, str]


def column_name(key: SignalKey) -> str:
    """`policy.kl.k3`, or `policy.entropy.norm[arm]` with the head, layer or key it is about."""
    return f"{key.name}[{key.subject}]" if key.subject else key.name


def flat_rows(blocks: Iterable[SignalBlock], first: int | None, last: int | None) -> Iterator[FlatRow]:
    """The rows of blocks whose update lies from `first` to `last` (both included, None for no bound)."""
    for block in blocks:
        names = [column_name(key) for key in block.signals]
        texts = shortest(block.values)
        status = block.status.tolist()
        for place, update in enumerate(block.update.tolist()):
            if (first is not None and update < first) or (last is not None and update > last):
                continue
            values, missing = {}, {}
            for signal, name in enumerate(names):
                if status[signal][place] == 0:
                    values[name] = float(texts[signal][place])
                else:
                    missing[name] = STATUS_NAMES[status[signal][place]]
            yield FlatRow(_head(block, place, update), values, missing)


def _head(block: SignalBlock, place: int, update: int) -> Head:
    stream: Stream = block.stream
    steps, flags = int(block.env_steps[place]), int(block.flags[place])
    return Head(
        stream.run,
        stream.attempt,
        stream.rank_shown,
        update,
        int(block.t_ns[place]),
        None if steps < 0 else steps,
        LEVELS[int(block.level[place])],
        flags_of(flags),
    )


def flags_of(flags: int) -> tuple[str, ...]:
    """Names of the bits that are set."""
    return tuple(flag.name.lower() for flag in RowFlag if flags & flag)


def shortest(values: F32) -> Sequence[Sequence[str]]:
    """Each number by the fewest digits that give the same float32 again."""
    texts: Sequence[Sequence[str]] = values.astype(str).tolist()
    return texts
