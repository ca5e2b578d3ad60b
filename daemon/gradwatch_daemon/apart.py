"""Work that HTTP asks for, each piece in a process of its own: the daemon's lock of Python stays with ingest.

In a thread it would hold that lock for ms at a time, and every commit of the pipeline would wait for it.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.errors import GradwatchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Apart:
    """One process of `command` at a time: a request as JSON on its stdin, `{"document"}` or `{"error"}` on its stdout.

    `what` it does is how errors name it; one that takes longer than `seconds_max` is ended, and refused with `too_large`.
    """

    def __init__(self, what: str, command: Sequence[str], seconds_max: float, too_large: str) -> None:
        self._what, self._command, self._seconds_max, self._too_large = what, tuple(command), seconds_max, too_large
        self._busy = False

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The document that came back.

        Raises:
            GradwatchError: `overloaded` while another one runs, `too_large` beyond the time, `internal` where the process
                failed, and what it refuses itself.
        """
        if self._busy:
            raise GradwatchError(
                "overloaded", where=self._what, expected=f"no other {self._what}", got="one that is not done yet"
            )
        self._busy = True
        try:
            return await self._run(json.dumps(request).encode())
        finally:
            self._busy = False

    async def _run(self, request: bytes) -> dict[str, Any]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        try:
            out, _ = await asyncio.wait_for(process.communicate(request), self._seconds_max)
        except asyncio.TimeoutError as error:
            limit = f"at most {self._seconds_max:g} s"
            raise GradwatchError(self._too_large, where=self._what, expected=limit, got="one that takes longer") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            # Its traceback went to the daemon's log: they share stderr.
            raise GradwatchError("internal", where=self._what, got=f"exit {process.returncode}")
        answer = json.loads(out)
        if "error" in answer:
            refused = answer["error"]
            raise GradwatchError(refused.pop("slug"), **refused)
        document: dict[str, Any] = answer["document"]
        return document


def refusal(error: GradwatchError) -> dict[str, Any]:
    """An error as such a process answers with it."""
    said = {"where": error.where, "expected": error.expected, "got": error.got, "next_step": error.next_step}
    return {"error": {"slug": error.code.slug, **said}}
