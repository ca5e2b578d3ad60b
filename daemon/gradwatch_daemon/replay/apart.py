"""Replays that HTTP asks for, each in a process of its own: the daemon's lock of Python stays with ingest.

In a thread a replay would hold that lock for ms at a time, and every commit of the pipeline would wait for it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.errors import GradwatchError

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
        self._seconds_max = seconds_max
        self._command = tuple(command)
        self._busy = False

    async def __call__(self, order: ReplayOrder) -> dict[str, Any]:
        """The document of a replay.

        Raises:
            GradwatchError: `overloaded` while another one runs, `replay-too-large`, and what the replay itself refuses.
        """
        if self._busy:
            raise GradwatchError("overloaded", where="replay", expected="no other replay", got="one that is not done yet")
        self._busy = True
        try:
            return await self._run(self._request(order))
        finally:
            self._busy = False

    def _request(self, order: ReplayOrder) -> bytes:
        """Numbers of the configuration belong to its own profile; another profile starts from its own."""
        profile = order.profile or self._profile
        thresholds = {kind: dict(numbers) for kind, numbers in self._thresholds.items()} if profile == self._profile else {}
        for kind, numbers in order.thresholds.items():
            thresholds.setdefault(kind, {}).update(numbers)
        request = {
            "path": str(self._data_dir),
            "run": order.run,
            "profile": profile,
            "thresholds": thresholds,
            "first": order.window.first,
            "last": order.window.last,
            "against": order.against,
            "rows_max": self._rows_max,
        }
        return json.dumps(request).encode()

    async def _run(self, request: bytes) -> dict[str, Any]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        try:
            out, _ = await asyncio.wait_for(process.communicate(request), self._seconds_max)
        except asyncio.TimeoutError as error:
            limit = f"at most {self._seconds_max:g} s"
            raise GradwatchError("replay-too-large", where="replay", expected=limit, got="one that takes longer") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            # Its traceback went to the daemon's log: they share stderr.
            raise GradwatchError("internal", where="replay", got=f"exit {process.returncode}")
        answer = json.loads(out)
        if "error" in answer:
            refused = answer["error"]
            raise GradwatchError(refused.pop("slug"), **refused)
        document: dict[str, Any] = answer["document"]
        return document
