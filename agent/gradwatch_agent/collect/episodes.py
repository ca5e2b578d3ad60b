"""The raw returns of the episodes that ended in an update, for a table: moments hide a bimodal policy."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_contracts import limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Tally


def tell_episodes(tally: Tally, returns: Sequence[float]) -> None:
    """Add the table of at most `limits.EPISODES_PER_UPDATE_MAX` returns, in the order in which they were given."""
    kept = returns[: limits.EPISODES_PER_UPDATE_MAX]
    if kept:
        index = tuple(map(str, range(len(kept))))
        tally.tables.append(("episodes", index, ("return",), struct.pack(f"<{len(kept)}d", *kept)))


@dataclass(frozen=True, slots=True)
class EpisodeReader:
    """Returns that came as a tensor."""

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader."""
        tell_episodes(tally, values)
