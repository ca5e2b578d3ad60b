"""Replays that HTTP asks for, each in a process of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from gradwatch_daemon.apart import Apart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gradwatch_daemon.records.replayed import ReplayOrder

ROWS_MAX = 200_000
"""Stored updates of one replay: about 10 s of an idle core with `default`."""

SECONDS_MAX = 60.0
"""A replay that takes longer is ended: by then whoever asked has gone."""

COMMAND = (sys.executable, "-m", "gradwatch_daemon.offline")


class Replayer:
    """One replay at a time over a data directory, under the rules of the daemon unless the order says otherwise."""

    def __init__(
        self,
        data_dir: Path,
        profile: str,
        thresholds: Mapping[str, Mapping[str, float]],
        *,
        rows_max: int = ROWS_MAX,
        seconds_max: float = SECONDS_MAX,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._data_dir = data_dir
        self._profile = profile
        self._thresholds = thresholds
        self._rows_max = rows_max
        self._apart = Apart("replay", command, seconds_max, "replay-too-large")

    async def __call__(self, order: ReplayOrder) -> dict[str, Any]:
        """The document of a replay.

        Raises:
            GradwatchError: `overloaded` while another one runs, `replay-too-large`, and what the replay itself refuses.
        """
        return await self._apart.ask(self._request(order))

    def _request(self, order: ReplayOrder) -> dict[str, Any]:
        """Numbers of the configuration belong to its own profile; another profile starts from its own."""
        profile = order.profile or self._profile
        thresholds = {kind: dict(numbers) for kind, numbers in self._thresholds.items()} if profile == self._profile else {}
        for kind, numbers in order.thresholds.items():
            thresholds.setdefault(kind, {}).update(numbers)
        return {
            "path": str(self._data_dir),
            "run": order.run,
            "profile": profile,
            "thresholds": thresholds,
            "first": order.window.first,
            "last": order.window.last,
            "against": order.against,
            "rows_max": self._rows_max,
        }
