"""A local `torch.profiler` capture that starts and ends at update boundaries."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import profiler

from gradwatch_contracts import limits
from gradwatch_contracts.errors import GradwatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


RUNNING, WRITTEN, FAILED = "running", "written", "failed"


class Capture:
    """One capture. The schedule waits for nothing and warms up for one step, the rest of the running update; then it records
    `updates` whole updates and ends. Also a context manager: leaving the block ends it early, with what was recorded by then.

    `state` is "running", "written" or "failed"; `path` the trace (Chrome's format, for Perfetto), None unless written;
    `reason` why it failed.
    """

    def __init__(self, updates: int, directory: Path, update: int, *, stacks: bool, tell: Callable[..., None]) -> None:
        self.updates = updates
        self.state = RUNNING
        self.path: Path | None = None
        self.reason = ""
        self._directory, self._first = directory, update + 1
        self._tell = tell
        self._recorded = 0
        self._boundaries = 0
        activities = [profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(profiler.ProfilerActivity.CUDA)
        self._profiler: Any = profiler.profile(
            activities=activities,
            schedule=profiler.schedule(wait=0, warmup=1, active=updates, repeat=1),
            on_trace_ready=self._write,
            with_stack=stacks,
        )
        self._profiler.start()

    @property
    def running(self) -> bool:
        """Whether it is not over."""
        return self.state == RUNNING

    def __enter__(self) -> Capture:
        """This capture."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it with what was recorded."""
        self.stop()

    def boundary(self) -> None:
        """An update ended."""
        if not self.running:
            return
        self._boundaries += 1
        try:
            self._profiler.step()
            if self._boundaries > self.updates:
                self._profiler.stop()
        except Exception as error:
            self._fail(f"the profiler failed: {error!r}")

    def stop(self) -> None:
        """End it now. Never raises: the trainer may be inside a block that is left by its own exception."""
        if not self.running:
            return
        try:
            self._profiler.stop()
        except Exception as error:
            self._fail(f"the profiler failed: {error!r}")
        if self.running:
            self._fail("no update was recorded: it ended before the first whole one")

    def _write(self, finished: Any) -> None:
        """Write the trace, whole or not at all."""
        if not self.running:
            return
        events = len(finished.events())
        if not events:
            self._fail("the trace is empty")
            return
        last = self._first + max(1, min(self._boundaries, self.updates)) - 1
        path = self._directory / f"trace-{os.getpid()}-updates-{self._first}-{last}.json"
        part = path.with_suffix(".part")
        try:
            finished.export_chrome_trace(str(part))
            size = part.stat().st_size
            part.replace(path)
        except Exception as error:
            self._fail(f"the trace could not be written: {error!r}")
            return
        self.state, self.path = WRITTEN, path
        self._tell(
            f"profile of updates {self._first} to {last} written to {path}",
            {
                "profile": WRITTEN,
                "path": str(path)[: limits.NAME_CHARS_MAX],
                "events": events,
                "bytes": size,
                "first": self._first,
                "last": last,
            },
        )

    def _fail(self, reason: str) -> None:
        self.state, self.reason = FAILED, reason
        self._tell(f"profile failed: {reason}", {"profile": FAILED, "reason": reason[: limits.NAME_CHARS_MAX]})


ALONE = "End that one first: two would share one recording, and spoil it."


def start_capture(  # noqa: PLR0917 - what `profile` was given, and then what it knows
    updates: object, directory: object, update: int | None, stacks: bool, tell: Callable[..., None], last: Capture | None
) -> Capture:
    """Check what `Monitor.profile` was given, and begin. `update` is the running one, None when the monitor is closed; `last`
    the capture before.

    Raises:
        GradwatchError: `invalid-argument`: a count out of range, a directory that cannot be made or written to, or a profiler
            that runs already.
    """
    if not isinstance(updates, int) or isinstance(updates, bool) or not 1 <= updates <= limits.PROFILE_UPDATES_MAX:
        raise _wrong("updates", f"a whole number from 1 to {limits.PROFILE_UPDATES_MAX}", repr(updates))
    if update is None:
        raise _wrong("", "an open monitor", "a closed one", "Ask before close(), or open another monitor with watch().")
    if last is not None and last.running:
        raise _wrong("", "no capture under way", "one", "Ask again when it has ended; `state` of the capture says so.")
    if getattr(torch.autograd.profiler, "_is_profiler_enabled", False):  # two would share one recording, and spoil it
        raise _wrong("updates", "no other profiler at work in this process", "one that records", ALONE)
    made = _make_directory(directory)
    try:
        return Capture(updates, made, update, stacks=stacks, tell=tell)
    except Exception as error:  # kineto allows one at a time in a process
        raise _wrong("updates", "no other profiler in this process", str(error), ALONE) from error


def _make_directory(directory: object) -> Path:
    if not isinstance(directory, (str, os.PathLike)) or not os.fspath(directory):
        raise _wrong("directory", "a directory to write to", repr(directory))
    path = Path(os.path.abspath(os.fspath(directory)))
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        why = error.strerror or repr(error)
        raise _wrong("directory", "a directory that can be made and written to", f"{path}: {why}") from error
    return path


def _wrong(argument: str, expected: str, got: str, next_step: str = "") -> GradwatchError:
    step = next_step or f"Call profile({argument}=…) with one, or leave it out."
    return GradwatchError("invalid-argument", where=f"profile({argument})", expected=expected, got=got[:200], next_step=step)
