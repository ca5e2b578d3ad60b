"""Whether the processes that greeted still exist, where they are on this machine.

Linux tells by a descriptor of the process (a pidfd, since 5.3), which cannot mean another process that got the same number
later. Elsewhere, for other machines and for another PID namespace nothing is known, and heartbeats alone decide.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from pathlib import Path

WATCHED_MAX = 256
"""Descriptors held: a quarter of what a process usually may have. Beyond it, heartbeats decide."""

STARTED_SLACK_S = 2.0
"""A process that began later than its HELLO says is another one: the same number in another PID namespace."""


class Processes:
    """The processes behind sessions, by the id of the session. One thread."""

    def __init__(self, proc: Path = Path("/proc"), host: str = "") -> None:
        self._proc, self._host = proc, host or socket.gethostname()
        self._watched: dict[str, tuple[int, int]] = {}
        self._ended = select.poll() if hasattr(select, "poll") else None

    def watch(self, session: str, host: str, pid: int, started_unix_ns: int) -> None:
        """Watch the process of a session from now on, if it can be seen from here."""
        self.forget(session)
        if host != self._host or len(self._watched) >= WATCHED_MAX or not hasattr(os, "pidfd_open"):
            return
        try:
            descriptor = os.pidfd_open(pid)
        except (OSError, OverflowError):
            return
        if self._began_s(pid) > started_unix_ns / 1e9 + STARTED_SLACK_S:
            os.close(descriptor)
            return
        self._watched[session] = descriptor, pid
        if self._ended is not None:
            self._ended.register(descriptor, select.POLLIN)

    def gone(self) -> list[str]:
        """The sessions whose process has ended. One system call for all."""
        if not self._watched or self._ended is None:
            return []
        ended = {descriptor for descriptor, _ in self._ended.poll(0)}
        return [session for session, (descriptor, _) in self._watched.items() if descriptor in ended]

    def state(self, session: str) -> str:
        """`exists`, `halted` (by a signal or a debugger), `gone`, or '' where nothing is known."""
        if session not in self._watched:
            return ""
        if session in self.gone():
            return "gone"
        with suppress(OSError, IndexError):
            return "halted" if self._stat(self._watched[session][1])[0] in {"T", "t"} else "exists"
        return "exists"

    def forget(self, session: str) -> None:
        """Watch it no more."""
        watched = self._watched.pop(session, None)
        if watched is not None:
            if self._ended is not None:
                self._ended.unregister(watched[0])
            os.close(watched[0])

    def close(self) -> None:
        """Let all descriptors go."""
        for session in list(self._watched):
            self.forget(session)

    def _stat(self, pid: int) -> list[str]:
        """Fields of /proc/PID/stat from the third on; the second, the name, may hold anything."""
        return (self._proc / str(pid) / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()

    def _began_s(self, pid: int) -> float:
        """Unix time at which a process began; 0.0 where that cannot be read."""
        with suppress(OSError, ValueError, IndexError, StopIteration):
            lines = (self._proc / "stat").read_text(encoding="ascii").splitlines()
            booted = next(float(line.split()[1]) for line in lines if line.startswith("btime "))
            return booted + int(self._stat(pid)[19]) / os.sysconf("SC_CLK_TCK")
        return 0.0
