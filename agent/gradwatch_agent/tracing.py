"""A profiler capture that was asked for by a command: recorded between updates, packed by a thread of its own, sent."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch_agent.uploads import Upload
from gradwatch_contracts import limits
from gradwatch_contracts.messages import Result

if TYPE_CHECKING:
    from gradwatch_agent.actions import Actions
    from gradwatch_agent.collect.profile import Capture
    from gradwatch_agent.outbox import Outbox
    from gradwatch_contracts.messages import Command, Scalar

UPDATES = 3
"""Whole updates that are recorded when the command does not say."""

PACKING = 5
"""gzip level: a trace shrinks to about a tenth; 9 would take three times as long for 3 % more."""


class Tracing:
    """Captures for commands, one at a time. `run` is in the file's name."""

    def __init__(self, run: str, actions: Actions, outbox: Outbox) -> None:
        self._run, self._actions, self._outbox = run, actions, outbox

    @staticmethod
    def possible(modules: tuple[object, ...]) -> bool:
        """Whether there is anything to record: a trainer without torch has no profiler."""
        return bool(modules) or "torch" in sys.modules

    def begin(self, command: Command, update: int, last: Capture | None) -> Capture:
        """Start to record. `last` is the capture before, of a command or of the trainer's own.

        Raises:
            GradwatchError: `invalid-argument`: a count out of range, or a profiler that runs already.
        """
        from gradwatch_agent.collect.profile import WRITTEN, start_capture

        folder = tempfile.mkdtemp(prefix="gradwatch-profile-")

        def tell(text: str, detail: dict[str, Scalar]) -> None:
            if detail["profile"] == WRITTEN and self._actions.commands.is_running(command.id):
                threading.Thread(
                    target=self._send, args=(command.id, capture, detail), name="gradwatch-upload", daemon=True
                ).start()
                return
            shutil.rmtree(folder, ignore_errors=True)
            self._actions.fail(command.id, update + capture.updates, str(detail["reason"]))

        try:
            updates, stacks = command.args.get("updates", UPDATES), bool(command.args.get("stacks", False))
            capture = start_capture(updates, folder, update, stacks, tell, last)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return capture

    def _send(self, id_: str, capture: Capture, detail: dict[str, Scalar]) -> None:
        """Pack the trace and queue it; what fails here is told as the command's failure."""
        trace = Path(str(capture.path))
        update, packed = int(detail["last"] or 0) + 1, trace.with_suffix(".json.gz")
        try:
            with open(trace, "rb") as plain, gzip.open(packed, "wb", compresslevel=PACKING) as file:
                shutil.copyfileobj(plain, file, 1 << 20)
            trace.unlink()
            size = os.stat(packed).st_size
            if size > limits.ARTIFACT_BYTES_MAX:
                raise OSError(
                    f"the trace has {size >> 20} MiB, {limits.ARTIFACT_BYTES_MAX >> 20} are allowed; record fewer updates"
                )
            name = f"trace-{self._run}-updates-{detail['first']}-{detail['last']}.json.gz"
            outcome = f"updates {detail['first']} to {detail['last']}, {detail['events']} events, {size} bytes"
            result = Result(0, id_, "ended", update, outcome)
            self._outbox.put_upload(Upload(str(packed), name, result, lambda: self._actions.commands.end(id_)))
        except OSError as error:
            with suppress(OSError):
                shutil.rmtree(trace.parent)
            self._actions.fail(id_, update, str(error))
