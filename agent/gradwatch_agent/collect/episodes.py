"""The raw returns of the episodes that ended in an update, for a table: moments hide a bimodal policy."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_agent.collect.host import moments, to_float, to_floats
from gradwatch_contracts import limits
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Tally


def tell_episodes(tally: Tally, returns: Sequence[float]) -> None:
    """Add the table of at most `limits.EPISODES_PER_UPDATE_MAX` returns, in the order in which they were given."""
    kept = returns[: limits.EPISODES_PER_UPDATE_MAX]
    if kept:
        index = tuple(map(str, range(len(kept))))
        tally.tables.append(("episodes", index, ("return",), struct.pack(f"<{len(kept)}d", *kept)))


def tell_returns(tally: Tally, returns: object) -> None:
    """Add the moments and the table of returns that are on the host: one number, or several."""
    one = to_float(returns)
    floats = [one] if one is not None else to_floats(returns) if isinstance(returns, Iterable) else None
    if floats is None:
        tally.refuse("episode.return", Status.DTYPE)
    elif floats:
        tally.add("episode.return", moments(floats))
        tell_episodes(tally, floats)
    else:
        tally.refuse("episode.return", Status.UNDEFINED)


@dataclass(frozen=True, slots=True)
class EpisodeReader:
    """Returns that came as a tensor."""

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader."""
        tell_episodes(tally, values)
