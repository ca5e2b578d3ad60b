"""The bounds of a whole spool: a trainer that is restarted for ever without a daemon must not fill the disk.

Each session has its own bound; of all sessions together the oldest give way. Sessions of processes that live are left alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_agent.spool.disk import Spool
from gradwatch_agent.spool.files import SessionDirectory
from gradwatch_contracts import limits
from gradwatch_contracts.segments import BOX, SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Kept:
    """A session's directory: when it was last written to, in unix seconds, and the bytes of its files."""

    written_s: float
    path: str
    size: int


def make_room(root: str, now_unix_s: float, tell: Callable[[str], None]) -> None:
    """Bring a spool within its bounds, the oldest session first. `tell` gets one sentence, if anything was given up.

    Too many bytes: a session keeps of its records only that they are lost, so that the daemon is still told. Too old, or more
    sessions than may be: it goes as a whole.
    """
    kept = sorted(_sessions(root), key=lambda session: (session.written_s, session.path))
    total, gone, emptied, freed = sum(session.size for session in kept), 0, 0, 0
    for place, session in enumerate(kept):
        old = now_unix_s - session.written_s > limits.SPOOL_AGE_S or len(kept) - place > limits.SPOOL_SESSIONS_MAX
        if not old and total <= limits.SPOOL_ROOT_BYTES:
            break
        left = _give_up(session, whole=old)
        if left < session.size:
            gone, emptied = gone + (left == 0), emptied + (left > 0)
            freed += session.size - left
        total -= session.size - left
    if gone or emptied:
        tell(
            f"the spool {root} gave up {freed} bytes that no daemon took, the oldest first: {emptied} sessions are told as "
            f"lost, {gone} are gone (at most {limits.SPOOL_ROOT_BYTES >> 20} MiB, {limits.SPOOL_SESSIONS_MAX} sessions, "
            f"{limits.SPOOL_AGE_S // 86_400:.0f} days)"
        )


def _sessions(root: str) -> list[Kept]:
    """All that can be looked at."""
    found = []
    for run in _listed(root):
        for path in _listed(run):
            files = _listed(path)
            if not files or not all(file.removesuffix(".new").endswith((SUFFIX, BOX)) for file in files):
                continue  # not ours: somebody named a directory that holds other things too
            try:
                facts = [os.stat(file) for file in files]
            except OSError:  # its trainer has just sent it
                continue
            found.append(Kept(max(fact.st_mtime for fact in facts), path, sum(fact.st_size for fact in facts)))
    return found


def _listed(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder)]
    except OSError:
        return []


def _give_up(session: Kept, *, whole: bool) -> int:
    """Make a session small, or delete it; the bytes that are left, all of them where it is not ours or its process lives."""
    try:
        files = SessionDirectory(session.path)
        if not files.lock():
            return session.size
        made = os.stat(session.path).st_mtime
        try:
            disk = Spool(files)
            disk.give_up(whole=whole)
            left = disk.bytes_held
        finally:
            files.end()
        if left:  # it is as old as before, and goes in its order
            for file in _listed(session.path):
                os.utime(file, (session.written_s, session.written_s))
            os.utime(session.path, (made, made))
        return left
    except OSError:
        return session.size
