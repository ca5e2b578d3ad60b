"""Episodes that ended in an update: returns, lengths, truncations; raw returns too, as moments hide a bimodal policy."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_agent.collect.host import FLOATS_ONLY, moments, to_float, to_floats
from gradwatch_contracts import limits
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Tally

RETURN = "episode.return"


def tell_episodes(tally: Tally, returns: Sequence[float]) -> None:
    """Add the table of at most `limits.EPISODES_PER_UPDATE_MAX` returns, in the order in which they were given."""
    kept = returns[: limits.EPISODES_PER_UPDATE_MAX]
    if kept:
        index = tuple(map(str, range(len(kept))))
        tally.tables.append(("episodes", index, ("return",), struct.pack(f"<{len(kept)}d", *kept)))


def put_off(tally: Tally, column: str, values: object) -> bool:
    """Take a list of a few floats, the usual case, as it is now, to be told when the row is made; False for anything else."""
    if type(values) is not list or len(values) > limits.EPISODES_PER_UPDATE_MAX or set(map(type, values)) != FLOATS_ONLY:
        return False
    tally.put_off(NumbersReader(column), values[:])
    return True


def tell_numbers(tally: Tally, column: str, values: object) -> None:
    """Add the moments of numbers that are on the host, one or several; of returns the table too."""
    one = to_float(values)
    floats = [one] if one is not None else to_floats(map(_plain, values)) if isinstance(values, Iterable) else None
    if floats is None:
        tally.refuse(column, Status.DTYPE)
    elif floats:
        tally.add(column, moments(floats))
        if column == RETURN:
            tell_episodes(tally, floats)
    else:
        tally.refuse(column, Status.UNDEFINED)


def _plain(value: object) -> object:
    """numpy's bool is no number, although Python's is."""
    return bool(value) if type(value).__name__ in {"bool_", "bool"} else value


@dataclass(frozen=True, slots=True)
class NumbersReader:
    """Numbers of one column that came as a list."""

    column: str

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader."""
        tell_numbers(tally, self.column, values)


@dataclass(frozen=True, slots=True)
class EpisodeReader:
    """Returns that came as a tensor."""

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader."""
        tell_episodes(tally, values)
